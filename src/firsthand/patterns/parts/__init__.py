"""Parts of patterns: parsing answers and actions, verdicts, votes, feedback, thoughts."""
