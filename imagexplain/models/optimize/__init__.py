"""Networks made faster for inference: folded norms, specialised convolutions."""
