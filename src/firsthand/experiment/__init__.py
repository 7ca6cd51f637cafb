"""Experiments: agents x benchmarks x epochs under one seed, carried out as a Run."""
