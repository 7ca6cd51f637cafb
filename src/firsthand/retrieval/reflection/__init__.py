"""Self-RAG: a model that decides when to retrieve and criticises what it writes (Asai et al., 2023)."""
