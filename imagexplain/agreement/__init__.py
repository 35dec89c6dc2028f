"""Recorded answers of another service beside ours: how far they agree, and why not."""
