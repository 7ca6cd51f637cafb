"""The importance of SWE-bench."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Most important real-world coding benchmark. Jumped from 4% (2023) to 70%+ (2025).",
    source="Jimenez et al. 2023, arXiv:2310.06770",
    kind="none",
    cannot="a judgement, and hosted models; the set called Verified did not exist in 2023",
)
