"""Rigour of a company's blog."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The most technically rigorous company blog in the ecosystem.",
    source="Hugging Face, huggingface.co/blog",
    kind="none",
    cannot="a judgement of taste",
)
