"""Expertise after fine-tuning."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Task specialization: RAG general behavior; fine-tuning deep task expertise",
    source="the list's table of RAG and fine-tuning",
    kind="none",
    cannot="depends on your data: `firsthand claims table rag ... --lora` measures quality of both",
)
