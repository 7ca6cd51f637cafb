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
    """The paper's size of each subset; where the authors' file is in `$FIRSTHAND_DATA`, its rows are counted."""
    from firsthand.benchmarks.gpqa import ROWS, read_rows
    from firsthand.claims.rows_at_hand import rows_at_hand

    rows = [(f"{name}, by the paper", float(count)) for name, count in ROWS.items()]
    files = "gpqa/dataset.zip", "gpqa_dataset.zip", "gpqa/gpqa_diamond.csv"
    counted = rows_at_hand(lambda: read_rows("diamond", ""), *files)
    if counted is not None:
        rows.append(("diamond, counted in your copy", float(counted)))
    what = "questions of the Diamond set, " + (
        "counted in your copy" if counted is not None else "by the figures of the paper"
    )
    size = ROWS["diamond"] if counted is None else counted
    return Measurement(size, what, columns=("subset", "questions"), rows=tuple(rows))


def judge(m: Measurement) -> Verdict:
    """The list's number for the list's set."""
    whose = ", by the figures of Rein et al., table 2" if "by the figures" in m.what else ""
    if m.value == 448:
        return ruling("holds here", "the Diamond set has 448 questions")
    return ruling("does not hold here", f"448 is the main set; the Diamond set named here has {m.value:.0f}{whose}")
