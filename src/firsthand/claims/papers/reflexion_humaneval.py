"""Reflexion's score on HumanEval."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Achieves 91% on HumanEval benchmarks vs. 80% for GPT-4 alone.",
    source="Shinn et al. 2023, arXiv:2303.11366, table 1",
    kind="none",
    cannot=(
        "needs GPT-4 of 2023, which is no longer served; 80.1 is the paper's own baseline, and OpenAI's report gives "
        "GPT-4 67.0. reflexion_retries tests the mechanism"
    ),
)
