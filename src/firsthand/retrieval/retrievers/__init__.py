"""Retrievers, and combinators that make retrievers of retrievers: plain async functions of (query, k)."""
