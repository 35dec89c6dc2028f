"""Captioners of abstract scene graphs: a graph as tensors, its encoder, the decoder, and the search for captions."""
