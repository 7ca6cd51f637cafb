"""Benchmarking and planning: what the machine can do, what an engine is made to do, and what came of it."""
