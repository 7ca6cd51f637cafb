"""Tasks and libraries of BigCodeBench."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="1,140 function-level coding tasks using real library APIs from 139 libraries.",
    source="Zhuo et al. 2024, arXiv:2406.15877",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """The full set of the paper, and the hard set that is here."""
    from firsthand.benchmarks.bigcodebench import SOURCE

    rows = (("full (paper)", 1140.0), ("hard, read here", float(SOURCE.rows)), ("libraries (paper)", 139.0))
    return Measurement(rows[0][1], "tasks of the full set, by the paper", columns=("part", "count"), rows=rows)


def judge(m: Measurement) -> Verdict:
    """The list's number."""
    if m.value == 1140:
        return ruling(
            "holds in part",
            "1,140 tasks and 139 libraries by the paper; the 148 of the hard set are what was read here",
        )
    return ruling("does not hold here", f"{m.value:,.0f} tasks")
