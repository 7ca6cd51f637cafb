"""Citations of RAG and fine-tuning."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Citability / traceability: RAG source attribution built-in; fine-tuning hard to attribute",
    source="the list's table of RAG and fine-tuning",
    kind="none",
    cannot="depends on your data: the table's column `cited` counts right answers that stand in a passage that was shown",
)
