"""Training of Claude."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="This is how Claude was trained.",
    source="Bai et al. 2022, arXiv:2212.08073",
    kind="none",
    cannot=(
        "Anthropic says that it is a part of it; weights and data are not published. critique_and_revision tests the "
        "mechanism"
    ),
)
