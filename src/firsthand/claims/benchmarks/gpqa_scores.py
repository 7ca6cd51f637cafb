"""Scores on GPQA."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Human experts score ~65%. GPT-4o hits ~53%, o3 ~87%.",
    source="Rein et al. 2023, arXiv:2311.12022",
    kind="none",
    cannot="needs people with doctorates and hosted models; 65 is the paper's number for the experts",
)
