"""GSM8K: grade-school maths word problems with a number as answer (Cobbe et al., 2021)."""

from __future__ import annotations

import re

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.data import Rows, Source, load, text_field
from firsthand.errors import DataError
from firsthand.evals.match import flexible, strict
from firsthand.message import Json
from firsthand.task import Task

EXAMPLES = 8
_FINAL = re.compile(r"#### *(-?[\d.,]+)\s*$")


def gsm8k(*, data: str = "") -> Benchmark:
    """The benchmark over the test split. `data` is a folder that holds the files, `packaged` or `hub`; see `data.py`."""
    test, train = load(_source("test", 1319), data), load(_source("train", 7473), data)
    examples = [_example(row, train.where(i)) for i, row in enumerate(train.rows[:EXAMPLES])]
    tasks = [_task(i, row, test, examples) for i, row in enumerate(test.rows)]
    return Benchmark(
        name="gsm8k",
        tasks=lambda seed: tasks,
        scorers=(flexible, strict),
        description="Grade-school maths word problems (Cobbe et al., 2021).",
        protocol=(
            f"test split, {test.origin}; worked examples: the first {len(examples)} of train ({train.origin}); "
            "flexible: the last number of the answer; strict: stated as '#### number', as in lm-evaluation-harness"
        ),
        licence="MIT",
        options={"data": test.origin, "sha256": test.sha256},
    )


def _source(split: str, rows: int) -> Source:
    return Source(
        path=f"math/gsm8k_{split}.jsonl",
        rows=rows,
        licence="MIT",
        dataset="openai/gsm8k",
        config="main",
        split=split,
        from_hub=_from_hub,
    )


def _from_hub(row: Json) -> Json:
    return {"question": row["question"], "answer": row["answer"]}


def _example(row: Json, where: str) -> Json:
    _gold(row, where)
    return {"question": text_field(row, "question", where), "answer": row["answer"]}


def _gold(row: Json, where: str) -> str:
    """The number after `####`."""
    found = _FINAL.search(text_field(row, "answer", where)[-400:])
    if found is None:
        raise DataError(f"{where}: the answer does not end with '#### number'")
    return found.group(1).replace(",", "").rstrip(".")


def _task(index: int, row: Json, test: Rows, examples: list[Json]) -> Task:
    where = test.where(index)
    question = text_field(row, "question", where)
    return Task(
        id=f"test-{index:04d}",
        prompt=question,
        hint="a number",
        metadata={"examples": examples},
        secret={"answer": _gold(row, where), "solution": row["answer"]},
    )
