"""Scores on Humanity's Last Exam."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Best models score ~8–18%. Designed to stay hard for years.",
    source="Phan et al. 2025, arXiv:2501.14249",
    kind="none",
    cannot="needs a hosted model that is not on this machine; scores above 25 were reported within months",
)
