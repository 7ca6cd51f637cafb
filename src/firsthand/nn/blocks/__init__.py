"""The blocks of a transformer: attention, positions, norms, feed-forward layers."""
