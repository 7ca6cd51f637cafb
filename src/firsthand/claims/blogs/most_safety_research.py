"""Safety research by laboratory."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Anthropic publishes more safety and interpretability research than any other lab.",
    source="anthropic.com/research",
    kind="none",
    cannot=(
        "needs a count of all laboratories' papers; many-shot jailbreaks and faithfulness are benchmarks here "
        "(`many_shot`, `faithfulness`)"
    ),
)
