"""Explanations of image models: attribution methods, and a service of them."""
