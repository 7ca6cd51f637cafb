"""Scores on MATH and AIME."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="MATH: GPT-4 ~52% (2023) → o3 ~97% (2025). DeepSeek R1 scores 79.8%.",
    source="Hendrycks et al. 2021, arXiv:2103.03874; DeepSeek-AI 2025, arXiv:2501.12948",
    kind="none",
    cannot="needs a hosted model that is not on this machine; 79.8 is R1's pass@1 on AIME 2024",
)
