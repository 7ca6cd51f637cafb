"""What patterns are made of: reading answers and actions, verdicts, votes, feedback, thoughts."""
