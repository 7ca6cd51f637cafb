"""Scenarios and metrics of HELM."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="42 scenarios, 7 metrics each.",
    source="Liang et al. 2022, arXiv:2211.09110",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """The paper's counts, typed in; 98 of the 112 pairs of a core scenario and a metric are measured in it."""
    rows = (("core", 16.0), ("targeted", 26.0), ("metrics", 7.0), ("measured pairs, %", 100 * 98 / 112))
    return Measurement(
        rows[3][1],
        "core scenarios and metrics that are measured, in %, by the figures of Liang et al. 2022",
        columns=("part", "count"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """The list's number."""
    if m.value >= 99:
        return ruling("holds here", "42 scenarios with all seven metrics, by the figures of Liang et al. 2022")
    return ruling(
        "holds in part",
        f"by the figures of Liang et al. 2022, 16 core and 26 targeted scenarios are 42, but {m.value:.1f}% of the pairs "
        "of a core scenario and a metric are measured, and targeted scenarios have metrics of their own",
    )
