"""Freshness of RAG and fine-tuning."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Knowledge freshness: RAG real-time, always current; fine-tuning baked in at training time",
    source="the list's table of RAG and fine-tuning",
    kind="none",
    cannot=(
        "depends on your documents and model: `firsthand claims table rag --docs DIR --questions FILE` changes facts "
        "and measures which arm's answers follow"
    ),
)
