"""Simon Willison and Django."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Creator of Django, LLM CLI tool",
    source="Django's documentation, FAQ: General",
    kind="none",
    cannot="a statement about history; Django's documentation names two people who began it, Adrian Holovaty and him",
)
