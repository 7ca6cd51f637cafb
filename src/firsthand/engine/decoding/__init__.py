"""Logits to tokens: sampling, constraints, speculative decoding."""
