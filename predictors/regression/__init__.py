"""Regressions from features to a figure with its uncertainty, and the choice among them."""
