"""Compiled kernels where torch has none, each with a plain torch version as its reference."""
