"""Scores on BigCodeBench."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="GPT-4o: ~60.4%. Llama 3.1 405B: ~52.8%.",
    source="Zhuo et al. 2024, arXiv:2406.15877",
    kind="none",
    cannot="needs GPT-4o and a 405B model",
)
