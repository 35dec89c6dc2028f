"""Families of pixel groups, and their directional gradients."""
