"""Inspect: its tasks on our agents, our models and sandbox in its runs."""
