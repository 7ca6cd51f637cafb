"""Toolformer as the precursor of function calling."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The precursor to function calling in GPT-4 and Claude tool use.",
    source="Schick et al. 2023, arXiv:2302.04761",
    kind="none",
    cannot="a statement about history: how these products were trained is not published",
)
