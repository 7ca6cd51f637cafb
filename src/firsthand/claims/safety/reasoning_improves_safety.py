"""Safety by reasoning about rules."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="First paper to show reasoning improves safety, not just capability.",
    source="Guan et al. 2024, arXiv:2412.16339",
    kind="none",
    cannot=(
        "needs a model that reasons about rules: `firsthand run xstest --pattern direct,deliberative` measures both "
        "kinds of errors for one of yours"
    ),
)
