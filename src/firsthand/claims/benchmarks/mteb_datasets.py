"""Datasets and tasks of MTEB."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="56 datasets across 8 embedding tasks.",
    source="Muennighoff et al. 2022, arXiv:2210.07316",
    kind="arithmetic",
    cost_s=1,
)

TASKS = {
    "bitext mining": 4, "classification": 12, "clustering": 11, "pair classification": 3, "reranking": 4, "retrieval": 15,
    "STS": 10, "summarization": 1,
}  # fmt: skip
"""Task -> its datasets in the paper's table."""


def measure(lab: Lab) -> Measurement:
    """The paper's table of datasets by task."""
    rows = (*((name, float(count)) for name, count in TASKS.items()), ("all", float(sum(TASKS.values()))))
    return Measurement(rows[-1][1], "datasets of the paper", columns=("part", "count"), rows=rows)


def judge(m: Measurement) -> Verdict:
    """The list's number."""
    if m.value == 56:
        return ruling("holds here", "56 datasets")
    return ruling(
        "holds in part", f"the paper has {m.value:.0f} datasets in 8 tasks; 56 are the English ones of the old board"
    )
