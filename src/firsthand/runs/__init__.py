"""Runs: folders that record every attempt, to be resumed, followed, compared, shown, scored again and trained on."""
