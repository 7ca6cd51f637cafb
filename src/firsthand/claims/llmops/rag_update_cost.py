"""Cost to update."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Cost to update: RAG update index only; fine-tuning retrain or re-fine-tune",
    source="the list's table of RAG and fine-tuning",
    kind="none",
    cannot=(
        "depends on your data: the table's column `update` is measured, in seconds, on a changed copy of your documents"
    ),
)
