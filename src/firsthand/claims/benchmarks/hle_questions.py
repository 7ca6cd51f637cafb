"""Questions of Humanity's Last Exam."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="3,000 extremely hard questions from 100+ academic disciplines, crowd-sourced from experts worldwide.",
    source="Phan et al. 2025, arXiv:2501.14249",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """The number that our reader of the authors' file insists on."""
    from firsthand.benchmarks.hle import SOURCE

    rows = (("final set", float(SOURCE.rows)), ("first release (paper)", 3000.0))
    return Measurement(rows[0][1], "questions of the published set", columns=("part", "count"), rows=rows)


def judge(m: Measurement) -> Verdict:
    """The list's number."""
    if m.value == 3000:
        return ruling("holds here", "3,000 questions")
    return ruling("does not hold here", f"the first release had 3,000; the final set has {m.value:,.0f}")
