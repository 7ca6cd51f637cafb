"""Bridges to Inspect and lm-evaluation-harness."""
