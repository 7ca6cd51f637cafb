"""o1's scores on safety benchmarks."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Achieved state-of-the-art on benchmarks for illicit advice avoidance and jailbreak resistance.",
    source="OpenAI 2024, o1 System Card; Guan et al. 2024, arXiv:2412.16339",
    kind="none",
    cannot="needs a hosted model that is not on this machine; the pattern `deliberative` is here to try on yours",
)
