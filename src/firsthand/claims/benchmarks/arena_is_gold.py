"""The arena as the gold standard."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote=(
        "Only benchmark using actual human preference in real conversations. Not gameable via benchmark overfitting. "
        'Gold standard for "which model feels better."'
    ),
    source="Chiang et al. 2024, arXiv:2403.04132",
    kind="none",
    cannot="a judgement about a live site; arena_votes_gamed tests whether votes can be gamed",
)
