"""A model as attribution methods see it: its calls, layers, token layouts and attention."""
