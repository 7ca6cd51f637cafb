"""Style after fine-tuning."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Response style / tone: RAG harder to control; fine-tuning strong style consistency",
    source="the list's table of RAG and fine-tuning",
    kind="none",
    cannot=(
        "depends on your data: the table's column `style` is the mean F1 of wording, by `firsthand claims table rag "
        "--docs DIR --questions FILE --lora`"
    ),
)
