"""Torture of the service: a real server behind its front door, under load, while things go wrong."""
