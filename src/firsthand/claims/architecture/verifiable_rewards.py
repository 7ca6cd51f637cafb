"""Reinforcement from verifiable rewards."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="RLVR (Reinforcement from Verifiable Rewards) — used in DeepSeek R1, o1/o3",
    source="DeepSeek-AI 2025, arXiv:2501.12948",
    kind="none",
    cannot=(
        "what o1 and o3 were trained with is not published; the experiment is here and trains for minutes: "
        "`firsthand train toy_reasoner`, then `firsthand train grpo` (docs/reinforcement.md)"
    ),
)
