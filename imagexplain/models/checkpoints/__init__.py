"""Checkpoint files: strict readers, and the state dicts within."""
