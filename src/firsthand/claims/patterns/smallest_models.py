"""Smallest models of the patterns."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Min Model: ReAct 4B+, CoT 7B+, Reflexion 7B+, Orchestrator 13B+, ToT 14B+",
    source="the list's table of patterns",
    kind="none",
    cannot=(
        "needs a ladder of models from 1B to 14B; `firsthand claims table patterns --model M` measures each pattern "
        "for a model of yours, and cot_reasoning tests one row"
    ),
)
