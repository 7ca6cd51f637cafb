"""Generators of long texts: RULER, haystacks, lengths in tokens."""
