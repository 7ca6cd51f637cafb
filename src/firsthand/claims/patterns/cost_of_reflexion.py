"""Token cost of Reflexion."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_costs import cost_verdict, pattern_cost

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
    """The list's word against the measured level."""
    return cost_verdict(m.value, "Medium")
