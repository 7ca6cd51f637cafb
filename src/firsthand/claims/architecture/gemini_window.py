"""Gemini's context window."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Gemini 2.0: 2M token context",
    source="Google, Gemini 2.0 model card",
    kind="none",
    cannot="needs a hosted model that is not on this machine",
)
