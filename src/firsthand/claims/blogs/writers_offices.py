"""Offices of the writers."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="VP of Safety @ OpenAI. Research Scientist @ Google DeepMind. Staff Research Engineer @ Lightning AI.",
    source="the writers' own pages",
    kind="none",
    cannot="offices change, and no claim asks the network: the writer's page says who holds one now",
)
