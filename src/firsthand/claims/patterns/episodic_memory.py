"""Episodes in a vector database."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="External (episodic): Vector DB (Pinecone, Chroma, Weaviate)",
    source="the list's memory kinds",
    kind="none",
    cannot=(
        "names products; the memory `episodic` keeps episodes in one SQLite file, and indexes in Pinecone and Chroma "
        "are tested by their wire formats"
    ),
)
