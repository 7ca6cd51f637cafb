"""Graph RAG: entities and relations of an index's chunks, their communities, and searches over both (Edge et al., 2024)."""
