"""Token cost of Reflexion."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, Word, ruling
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_costs import LEVELS, level, pattern_cost

CLAIM = Claim(
    quote="Reflexion: Act → Critique → Store → Retry. 7B+. Token cost: Medium",
    source="the list's table of patterns",
    kind="sim",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Tokens and calls under a scripted model."""
    return pattern_cost(lab, "reflexion", {"trials": 3})


def judge(m: Measurement) -> Verdict:
    """The list's word against the measured level; a neighbouring level holds in part."""
    found = level(m.value)
    if found == "Medium":
        return ruling("holds here", f"{found.lower()} by structure: {m.value:.1f} times the tokens of a plain answer")
    near = abs(LEVELS.index(found) - LEVELS.index("Medium")) == 1
    word: Word = "holds in part" if near else "does not hold here"
    return ruling(word, f"{found.lower()} rather than medium: {m.value:.1f} times the tokens of a plain answer")
