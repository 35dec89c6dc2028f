"""Instance segmenters: the architectures, and their checkpoints' keys."""
