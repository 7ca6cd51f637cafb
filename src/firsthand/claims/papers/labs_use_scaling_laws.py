"""Use of scaling laws by laboratories."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Every major lab uses these laws to decide how to spend their training budget.",
    source="Hoffmann et al. 2022, arXiv:2203.15556",
    kind="none",
    cannot="laboratories do not publish how they spend their budgets",
)
