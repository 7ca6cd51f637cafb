"""Age of Lil'Log."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The most comprehensive technical AI blog in existence. Active since 2017.",
    source="lilianweng.github.io",
    kind="none",
    cannot="a judgement of taste, and a date on a site",
)
