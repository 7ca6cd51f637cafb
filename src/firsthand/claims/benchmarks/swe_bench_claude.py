"""Claude's score on SWE-bench Verified."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Claude 3.5 Sonnet achieved 49% solo.",
    source="Anthropic 2024, Raising the bar on SWE-bench Verified",
    kind="none",
    cannot="needs a hosted model that is not on this machine",
)
