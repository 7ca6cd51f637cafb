"""Helpers of the long-context benchmarks: RULER's generators, haystacks, lengths in tokens."""
