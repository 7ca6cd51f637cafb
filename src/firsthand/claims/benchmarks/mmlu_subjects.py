"""Subjects of MMLU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.task import Task

CLAIM = Claim(
    quote="57-subject MCQ covering STEM, humanities, social sciences, law, medicine.",
    source="Hendrycks et al. 2020, arXiv:2009.03300",
    kind="arithmetic",
    cost_s=3,
    needs=("data mcq/mmlu_csv.zip",),
)


def measure(lab: Lab) -> Measurement:
    """Reads the test questions."""
    from firsthand import catalog

    return _measured(catalog.benchmark("mmlu").tasks(0))


def _measured(tasks: Sequence[Task]) -> Measurement:
    subjects = Counter(str(task.metadata.get("subject")) for task in tasks)
    return Measurement(
        len(subjects),
        f"subjects of {len(tasks):,} test questions",
        columns=("subject", "questions"),
        rows=tuple((n, float(c)) for n, c in subjects.most_common()),
    )


def judge(m: Measurement) -> Verdict:
    """Exactly 57."""
    if m.value == 57:
        return ruling("holds here", "57 subjects, of 100 to 1,534 questions each")
    return ruling("does not hold here", f"{m.value:.0f} subjects")
