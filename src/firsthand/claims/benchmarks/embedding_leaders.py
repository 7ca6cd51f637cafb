"""The best embedding models."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="text-embedding-3-large and voyage-3 dominate.",
    source="MTEB leaderboard",
    kind="none",
    cannot="both are hosted models; boards change by the month",
)
