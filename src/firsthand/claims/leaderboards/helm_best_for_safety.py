"""HELM for comparing safety."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Best for comparing safety dimensions.",
    source="Liang et al. 2022, arXiv:2211.09110",
    kind="none",
    cannot="a judgement; `firsthand run MODEL --...` of helm_metrics measures its seven metrics on a benchmark of yours",
)
