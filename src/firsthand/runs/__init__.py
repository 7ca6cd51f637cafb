"""Runs: folders that keep every attempt, so that it can be resumed, compared, shown, scored again and trained on."""
