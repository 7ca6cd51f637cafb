"""AgentBench as the first of its kind."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The first systematic benchmark for evaluating LLMs as real-world agents",
    source="Liu et al. 2023, arXiv:2308.03688",
    kind="none",
    cannot="a statement about history, and about what counts as systematic",
)
