"""A local server: start, stop, status and keys."""
