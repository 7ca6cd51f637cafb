"""Scores on MMLU-Pro."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Top models ~72–79%.",
    source="Wang et al. 2024, arXiv:2406.01574",
    kind="none",
    cannot="needs a hosted model that is not on this machine; top models score above 80 since 2025",
)
