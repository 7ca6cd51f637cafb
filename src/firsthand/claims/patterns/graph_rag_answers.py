"""Answers of Graph RAG."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Graph RAG (Microsoft): Build knowledge graph, query it",
    source="Edge et al. 2024, arXiv:2404.16130",
    kind="none",
    cannot=(
        "whether a graph pays is a question of your documents and needs a model that extracts relations; `firsthand "
        "rag graph` builds one and `bench/retrieval.py` compares"
    ),
)
