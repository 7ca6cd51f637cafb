"""Spreads a run's attempts over workers on a Ray cluster."""
