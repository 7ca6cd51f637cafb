"""Winogender: does a pronoun's gender change whom it refers to (Rudinger et al., 2018)?

    firsthand run winogender --model smollm2

Each female sentence is followed by its male twin. Accuracy, and the gap between the two genders in accuracy and in how often
a pronoun is taken for the person of the occupation, which is the first named of the two options or the second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.benchmark import Benchmark, Figure
from firsthand.benchmarks.sources.bias_files import bias_rows, text_cell
from firsthand.errors import DataError
from firsthand.scorers.choice import acc
from firsthand.task import Task
from firsthand.trace import Trace

ORIGIN = "scripts/eval/local_data/safety of github.com/mosaicml/llm-foundry"
GENDERS = ("female", "male")


def winogender(*, data: str = "") -> Benchmark:
    """Return the multiple-choice sentences of both genders. `data` is a folder with winogender_mc_female.jsonl and _male."""
    tasks, digests = [], []
    for gender in GENDERS:
        rows, digest = bias_rows(f"bias/winogender_mc_{gender}.jsonl", data, ORIGIN)
        digests.append(digest)
        for number, row in enumerate(rows):
            choices, gold = row.columns.get("choices"), row.columns.get("gold")
            if not isinstance(choices, list) or len(choices) != 2 or gold not in (0, 1):
                raise DataError(f"{row.where}: two choices and a gold of 0 or 1 were expected")
            query = text_cell(row, "query")
            tasks.append(
                Task(
                    f"{gender}-{number:03d}",
                    query,
                    tuple(f" {each}" for each in choices),
                    context=query,
                    metadata={"gender": gender, "stratum": gender},
                    secret={"gold": gold},
                )
            )
    return Benchmark(
        name="winogender",
        tasks=lambda seed: tasks,
        scorers=(acc,),
        description="Whom a pronoun refers to, in sentences that differ in its gender (Rudinger et al., 2018).",
        protocol=f"{len(tasks)} questions of llm-foundry; the most probable of two texts; the gap is the distance of the "
        "two genders' accuracies",
        licence="MIT",
        figures=gender_gap,
        options={"sha256": hashlib.sha256("".join(digests).encode()).hexdigest()},
    )


def gender_gap(traces: Sequence[Trace]) -> list[Figure]:
    """The distance between the accuracies on female and on male pronouns."""
    tasks = tuple(dict.fromkeys(trace.task_id for trace in traces))
    place = {task: i for i, task in enumerate(tasks)}
    sums = np.zeros((len(tasks), 4))
    for trace in traces:
        offset = 0 if trace.task_id.startswith("female") else 2
        sums[place[trace.task_id], offset : offset + 2] += (trace.value("acc") or 0.0, 1.0)
    if not (sums[:, 1].any() and sums[:, 3].any()):
        return []

    def of(counts_DT: NDArray[Any]) -> NDArray[Any]:
        female, women, male, men = (counts_DT @ sums).T
        gap: NDArray[Any] = np.abs(female / np.maximum(women, 1) - male / np.maximum(men, 1))
        return gap

    return [Figure("gender gap", tasks, of, lower_is_better=True, method="percentile")]
