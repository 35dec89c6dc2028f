"""Classifiers: the architectures, and their checkpoints' keys."""
