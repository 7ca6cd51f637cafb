"""Weights & Biases as the standard."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The standard MLOps tool for any serious LLM fine-tuning project.",
    source="Weights & Biases",
    kind="none",
    cannot=(
        "a judgement about a hosted product; `firsthand track` keeps the same curves on this machine and reads its "
        "files"
    ),
)
