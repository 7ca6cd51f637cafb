"""Judged sets of documents and queries: read, checked, and made into benchmarks of retrieval."""
