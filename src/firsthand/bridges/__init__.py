"""Bridges to other evaluation frameworks: Inspect and lm-evaluation-harness."""
