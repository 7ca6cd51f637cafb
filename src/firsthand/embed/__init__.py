"""Embeddings and relevance: texts to vectors, and pairs of texts to scores; packed without padding, batch-invariant."""
