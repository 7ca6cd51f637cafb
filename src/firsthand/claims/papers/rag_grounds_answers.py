"""Answers grounded in documents."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The LLM generates conditioned on retrieved context — grounding outputs in real documents.",
    source="Lewis et al. 2020, arXiv:2005.11401",
    kind="none",
    cannot=(
        "depends on model and documents: `firsthand claims table rag --docs DIR --questions FILE` measures closed "
        "book against retrieval, and `cited` counts right answers that stand in a shown passage"
    ),
)
