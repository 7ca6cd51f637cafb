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
    """The authors' size of the final set; where their file is in `$FIRSTHAND_DATA`, its rows are counted."""
    from firsthand.benchmarks.hle import SOURCE, read_rows
    from firsthand.claims.rows_at_hand import rows_at_hand

    counted = rows_at_hand(lambda: read_rows(""), SOURCE.path)
    rows = [("final set, by its authors", float(SOURCE.rows)), ("first release, by the paper", 3000.0)]
    if counted is not None:
        rows.append(("final set, counted in your copy", float(counted)))
    what = "questions of the final set, " + (
        "counted in your copy" if counted is not None else "by its authors' figure"
    )
    return Measurement(SOURCE.rows if counted is None else counted, what, columns=("part", "count"), rows=tuple(rows))


def judge(m: Measurement) -> Verdict:
    """The list's number."""
    whose = ", by its authors' figure" if "by its authors" in m.what else ""
    if m.value == 3000:
        return ruling("holds here", "3,000 questions")
    return ruling("does not hold here", f"the first release had 3,000; the final set has {m.value:,.0f}{whose}")
