"""Size of what RAG knows."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Knowledge size: RAG unlimited (external DB); fine-tuning limited by context/capacity",
    source="the list's table of RAG and fine-tuning",
    kind="none",
    cannot=(
        "depends on documents and model; `bench/retrieval.py` measures search over a million passages, which is a "
        "bound of disk and time, not `unlimited`"
    ),
)
