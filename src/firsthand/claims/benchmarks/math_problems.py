"""Problems of MATH."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="MATH: 12,500 competition math problems.",
    source="Hendrycks et al. 2021, arXiv:2103.03874",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """The test set that is read here, and the paper's training set."""
    from firsthand.benchmarks.math import SOURCE

    rows = (("test", float(SOURCE.rows)), ("training (paper)", 7500.0))
    return Measurement(rows[0][1] + rows[1][1], "problems of both sets", columns=("part", "count"), rows=rows)


def judge(m: Measurement) -> Verdict:
    """The list's number."""
    if m.value == 12_500:
        return ruling("holds here", "12,500 in all; models are scored on the 5,000 of the test set, or on 500 of them")
    return ruling("does not hold here", f"{m.value:,.0f} problems")
