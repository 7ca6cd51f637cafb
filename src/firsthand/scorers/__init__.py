"""Scorers: functions of (task, trace) that return a Score, one family per file, found by the function's name."""
