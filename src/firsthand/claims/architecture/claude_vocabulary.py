"""Claude's vocabulary."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Claude: ~100K vocab",
    source="Anthropic, tokenizer of Claude 2 and earlier",
    kind="none",
    cannot="Anthropic publishes no tokenizer of its present models; that of Claude 2 and earlier had 65,000 entries",
)
