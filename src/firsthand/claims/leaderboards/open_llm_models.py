"""Models of the Open LLM Leaderboard."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="2000+ open models. They update in real-time as new models are released.",
    source="Hugging Face, Open LLM Leaderboard",
    kind="none",
    cannot="a count on a live site; the board was retired in March 2025 and takes no new models",
)
