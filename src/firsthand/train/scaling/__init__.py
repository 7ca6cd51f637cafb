"""Scaling laws: fits of loss against parameters and tokens, compute-optimal plans, and a sweep to fit."""
