"""Findings of the joint evaluation."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote=(
        "Most models struggle with sycophancy, GPT-4o showed concerning misuse support behaviors in simulations, "
        "GPT-5 showed substantial improvements."
    ),
    source="Anthropic and OpenAI 2025, joint alignment evaluation",
    kind="none",
    cannot="needs both laboratories' models; `firsthand alignment` runs one scenario set over models of yours",
)
