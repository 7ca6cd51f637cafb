"""Judging: scores, what they can tell with what certainty, and how that is shown."""
