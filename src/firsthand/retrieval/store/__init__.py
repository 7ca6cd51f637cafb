"""Stores of chunks behind the protocol ChunkIndex: one SQLite file, or a server."""
