"""Boards, traces, diffs and plots for terminals and as HTML."""
