"""Torture of a Ray Serve cluster: several nodes of one machine, under load, while parts of it die."""
