"""Compiled kernels where torch has none, each beside a plain torch version that says what it computes."""
