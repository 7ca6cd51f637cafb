"""Benchmarks, one file each: the function named after the file returns the Benchmark. Helpers lie in the folders below."""
