"""Chain of thought as the beginning of prompt engineering."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The paper that legitimized prompt engineering as a research discipline",
    source="Wei et al. 2022, arXiv:2201.11903",
    kind="none",
    cannot="a statement about history; cot_reasoning tests what the prompt does",
)
