"""Scores of embedding tasks: the metrics of MTEB's task types."""
