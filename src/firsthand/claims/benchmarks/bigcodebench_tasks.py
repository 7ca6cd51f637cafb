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
    """The paper's figures, and the tasks of the hard set and their libraries, counted where that set is at hand."""
    from ast import literal_eval

    from firsthand.benchmarks.bigcodebench import read_rows
    from firsthand.benchmarks.sources.datasets import located

    rows = [("full, by the paper", 1140.0), ("libraries, by the paper", 139.0)]
    if located("code/bigcodebench_hard.json", "", "code/bigcodebench_hard.jsonl") is not None:
        hard = read_rows("").rows
        libraries = {name for row in hard for name in literal_eval(str(row.get("libs") or "[]"))}
        rows += [("hard, counted here", float(len(hard))), ("libraries of the hard set", float(len(libraries)))]
    what = "tasks of the full set, by the figures of Zhuo et al. 2024"
    return Measurement(rows[0][1], what, columns=("part", "count"), rows=tuple(rows))


def judge(m: Measurement) -> Verdict:
    """The list's number."""
    if m.value == 1140:
        return ruling(
            "holds in part",
            "1,140 tasks and 139 libraries by the figures of Zhuo et al. 2024; at most the hard set is counted here",
        )
    return ruling("does not hold here", f"{m.value:,.0f} tasks by the figures of the paper")
