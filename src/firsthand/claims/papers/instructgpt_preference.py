"""People's preference of InstructGPT 1.3B over GPT-3 175B."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="A 1.3B InstructGPT model outperforms raw GPT-3 (175B) in human preference.",
    source="Ouyang et al. 2022, arXiv:2203.02155",
    kind="none",
    cannot="needs both models and human raters; `firsthand arena` measures preferences between models that are here",
)
