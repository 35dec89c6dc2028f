"""Integrals along paths from a baseline to an image: their points, weights and adaptive refinement."""
