"""Runs lm-evaluation-harness tasks with our agents."""
