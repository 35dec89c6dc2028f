"""Captions from scene graphs: scenes with names, their grammar, data in the original's formats, scores, training."""
