"""Benchmarks of engines and machines, and the speeds that planners use."""
