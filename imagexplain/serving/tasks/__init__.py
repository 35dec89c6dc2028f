"""The kinds of models that are served."""
