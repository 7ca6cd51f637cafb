"""Lenses: what the residual stream says before the last layer, and which part said it."""
