"""Explanations of groups of pixels at equal cost: estimators of Shapley values, compared on stored games."""
