"""RAG variants as patterns, a file each, found by name like those of `patterns/`."""
