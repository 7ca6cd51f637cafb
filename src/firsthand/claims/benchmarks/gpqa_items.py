"""GPQA Diamond: the number of its questions."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="GPQA Diamond: 448 expert-level MCQs in biology, chemistry, and physics written by PhDs.",
    source="Rein et al. 2023, arXiv:2311.12022, table 2",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Rows of each subset, as the reader of the authors' files checks them."""
    from firsthand.benchmarks.gpqa import ROWS

    rows = tuple((name, float(count)) for name, count in ROWS.items())
    what = "questions of the Diamond set, which our reader of the authors' files insists on"
    return Measurement(ROWS["diamond"], what, columns=("subset", "questions"), rows=rows)


def judge(m: Measurement) -> Verdict:
    """The list's number for the list's set."""
    if m.value == 448:
        return ruling("holds here", "the Diamond set has 448 questions")
    return ruling("does not hold here", f"448 is the main set; the Diamond set named here has {m.value:.0f}")
