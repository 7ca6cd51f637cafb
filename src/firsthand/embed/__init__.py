"""Embeddings: texts to vectors, packed without padding, batch-invariant."""
