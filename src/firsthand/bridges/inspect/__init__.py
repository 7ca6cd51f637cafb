"""Runs Inspect tasks with our agents, and offers our models and sandbox to Inspect."""
