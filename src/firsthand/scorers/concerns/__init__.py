"""Scorers of the evaluations of each concern: by the final state, by log-probs, or by a rule that was checked on labels."""
