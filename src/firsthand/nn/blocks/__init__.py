"""Transformer blocks: attention, rotary positions, norms, feed-forward layers."""
