"""Token cost of parallel agents."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, Word, ruling
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_costs import LEVELS, level, pattern_cost

CLAIM = Claim(
    quote="Parallelization: Spawn N agents in parallel → Aggregate. Any model. Token cost: High (parallel)",
    source="the list's table of patterns",
    kind="sim",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Tokens and calls under a scripted model."""
    return pattern_cost(lab, "parallel", {"n": 8})


def judge(m: Measurement) -> Verdict:
    """The list's word against the measured level; a neighbouring level holds in part."""
    found = level(m.value)
    if found == "High":
        return ruling("holds here", f"{found.lower()} by structure: {m.value:.1f} times the tokens of a plain answer")
    near = abs(LEVELS.index(found) - LEVELS.index("High")) == 1
    word: Word = "holds in part" if near else "does not hold here"
    return ruling(word, f"{found.lower()} rather than high: {m.value:.1f} times the tokens of a plain answer")
