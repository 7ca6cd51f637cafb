"""Leaderboards over many benchmarks, as queries over runs and imported results."""
