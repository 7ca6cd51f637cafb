"""Scale's expert graders."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Uses human expert graders, not automated metrics. Hard to game.",
    source="Scale AI, SEAL leaderboards",
    kind="none",
    cannot="needs the graders and their private questions",
)
