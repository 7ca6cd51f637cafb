"""Lateral thinking puzzles: a host who knows the truth answers yes, no or irrelevant."""
