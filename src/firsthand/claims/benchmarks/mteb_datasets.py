"""Datasets and tasks of MTEB."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="56 datasets across 8 embedding tasks.",
    source="Muennighoff et al. 2022, arXiv:2210.07316",
    kind="arithmetic",
    cost_s=3,
)

ENGLISH = {
    "classification": 12, "clustering": 11, "pair classification": 3, "reranking": 4, "retrieval": 15, "STS": 10,
    "summarization": 1,
}  # fmt: skip
"""Task -> its datasets on the English board; the benchmark `MTEB(eng, v1)` of the package mteb 2.26 has the same."""
BITEXT = 2
"""BUCC and Tatoeba, the datasets of the eighth task, bitext mining."""


def measure(lab: Lab) -> Measurement:
    """The paper's datasets by task; the English ones are counted in the package mteb as well, where it is installed."""
    english = sum(ENGLISH.values())
    rows = [(name, float(count)) for name, count in ENGLISH.items()]
    rows += [("bitext mining", float(BITEXT)), ("all", float(english + BITEXT)), ("English, 7 tasks", float(english))]
    if (counted := _in_the_package()) is not None:
        rows.append(("English, counted in the package mteb", float(counted)))
    return Measurement(
        english + BITEXT,
        "datasets of 8 tasks, by the figures of the paper",
        columns=("part", "count"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """The list's number of datasets for the list's number of tasks."""
    if m.value == 56:
        return ruling("holds here", "56 datasets of 8 tasks, by the figures of Muennighoff et al. 2022")
    return ruling(
        "holds in part",
        f"{m.value:.0f} datasets of 8 tasks by the figures of Muennighoff et al. 2022, whose first version said 56; 56 are "
        "the English ones, of 7 tasks",
    )


def _in_the_package() -> int | None:
    from importlib import import_module

    try:
        return len(import_module("mteb").get_benchmark("MTEB(eng, v1)").tasks)
    except Exception:
        return None  # not installed, or a version that names its benchmarks otherwise
