"""RAG by three agents."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote=(
        "Three-agent architecture (Coordinator → Retrieval → Reasoning), failure modes, latency tradeoffs, and when "
        "to use RAG vs. fine-tuning."
    ),
    source="Building production-ready multi-agent RAG systems",
    kind="none",
    cannot=(
        "depends on the model: the pattern `team` is that architecture, and `firsthand run pubmedqa --pattern "
        "naive,team` compares it with one agent on yours"
    ),
)
