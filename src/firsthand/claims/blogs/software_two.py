"""The coining of Software 2.0."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote='Coined "Software 2.0," predicted many trends years early.',
    source="Karpathy 2017, Software 2.0",
    kind="none",
    cannot="a statement about history; the essay is of November 2017",
)
