"""Models and votes of LM Arena."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="200+ models ranked by blind human preference votes. 2.5M+ votes.",
    source="LM Arena",
    kind="none",
    cannot="a count on a live site, and no claim asks the network",
)
