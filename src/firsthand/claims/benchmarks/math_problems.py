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
    """The paper's sizes; where the test set is in `$FIRSTHAND_DATA`, its problems are counted instead."""
    from firsthand.benchmarks.math import SOURCE
    from firsthand.benchmarks.sources.datasets import load
    from firsthand.claims.rows_at_hand import rows_at_hand

    counted = rows_at_hand(lambda: load(SOURCE), SOURCE.path)
    test = ("test, by the paper", float(SOURCE.rows)) if counted is None else ("test, counted here", float(counted))
    rows = (test, ("training, by the paper", 7500.0))
    return Measurement(rows[0][1] + rows[1][1], "problems of both sets", columns=("part", "count"), rows=rows)


def judge(m: Measurement) -> Verdict:
    """The list's number."""
    if m.value == 12_500:
        return ruling(
            "holds here",
            "12,500 in all, by the figures of Hendrycks et al. 2021; the test set has 5,000, and a usual subset 500",
        )
    return ruling("does not hold here", f"{m.value:,.0f} problems")
