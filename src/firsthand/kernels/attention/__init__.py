"""Paged attention: compiled for the CPU, in Triton for a GPU, and in plain torch."""
