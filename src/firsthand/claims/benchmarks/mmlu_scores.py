"""Scores on MMLU."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Near-saturated at top. GPT-4 scores ~87%.",
    source="Hendrycks et al. 2020, arXiv:2009.03300; OpenAI 2023, arXiv:2303.08774",
    kind="none",
    cannot="needs a hosted model that is not on this machine; OpenAI reports 86.4",
)
