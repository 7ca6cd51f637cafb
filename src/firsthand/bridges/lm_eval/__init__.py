"""lm-evaluation-harness: its task files and its results."""
