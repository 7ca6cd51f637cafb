"""Readers and task makers that MTEB's benchmarks share."""
