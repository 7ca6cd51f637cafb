"""Retrieval: documents, chunks, one durable index, retrievers, and every RAG variant as a composition of them."""
