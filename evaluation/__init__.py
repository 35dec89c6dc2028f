"""Scores of explanations against scenes whose deciding object is known. Nothing of it ships inside an archive."""
