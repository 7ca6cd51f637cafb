"""Worlds, items and scripted players of the evaluations of each concern; their scorers are in `scorers/concerns/`."""
