"""Reads the samples that lm-evaluation-harness logs (`samples_TASK_TIME.jsonl`, by --log_samples) as runs."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import reprlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from firsthand.bridges.lm_eval.result_models import ResultModels
from firsthand.errors import DataError, reason_of
from firsthand.message import Json, assistant, user
from firsthand.runs.whole_run import whole_run
from firsthand.scorers.reference_answers import secret_of
from firsthand.system.json_values import values_in_text
from firsthand.system.ordinary_file import open_ordinary
from firsthand.task import Task
from firsthand.trace import Node, Score, Trace

MAX_LINE_CHARS = 64 << 20
MAX_FILE_BYTES = 1 << 30
MAX_VALUES = 20_000_000
"""JSON values of a file; as objects they take up to 2 GB."""
_NAME = re.compile(r"samples_(.+?)_\d{4}-\d\d-\d\dT[\d.:-]+$")
_RESERVED = (
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
)  # fmt: skip


def import_samples(path: Path, home: Path, models: ResultModels | None = None) -> tuple[str, int]:
    """Imports a file of samples as a new run; returns its id and the number of samples. DataError if it is none.

    `models` is one object for all files of an import, so that results beside several of them are read once.
    """
    task = found[1] if (found := _NAME.match(path.stem)) else path.stem.removeprefix("samples_")
    models = models or ResultModels()
    model = models.of(path)
    config = {"kind": "import", "imported": "lm-eval", "model": model, "benchmarks": [task], "file": path.name}
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path} has no samples: a file of lm-eval's --log_samples was expected")
    with whole_run(home, config, f"lm-eval-{task}") as run:
        filters = list(dict.fromkeys(str(row.get("filter", "none")) for row in rows))
        for name in filters:
            agent = model if len(filters) == 1 else f"{model}:{name}"
            run.add_agent(agent, {"name": agent, "model": model})
        try:
            run.add_tasks(task, {str(row["doc_id"]): _task(row) for row in rows}.values())
            numeric = {name for row in rows for name in _names(row) if _is_number(row.get(name))}
            scored = [name for name in dict.fromkeys(name for row in rows for name in _names(row)) if name in numeric]
            every = {name for row in rows for name in _names(row)}
            lower = frozenset(name for name in every if models.is_lower_better(path, task, name))
            made: Counter[tuple[str, str]] = Counter()
            for row in rows:
                name = model if len(filters) == 1 else f"{model}:{row.get('filter', 'none')}"
                place = (str(row["doc_id"]), name)
                run.append(_trace(row, task, name, model, scored, lower, epoch=made[place]))
                made[place] += 1
        except (DataError, RecursionError) as error:
            raise DataError(f"{path}: {reason_of(error)}") from None
        return run.id, len(rows)


def _rows(path: Path) -> Iterator[Json]:
    try:
        with open_ordinary(path) as opened, io.TextIOWrapper(opened, encoding="utf-8") as file:
            if os.fstat(opened.fileno()).st_size > MAX_FILE_BYTES:
                raise DataError(
                    f"{path} has more than {MAX_FILE_BYTES >> 20:,} MiB: import its samples in several files"
                )
            values = 0
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_CHARS + 1), ""), 1):
                is_whole = len(line) <= MAX_LINE_CHARS
                if is_whole and not line.strip():
                    continue
                values += values_in_text(line, MAX_VALUES - values)
                if values > MAX_VALUES:
                    raise DataError(
                        f"{path}, line {number}: more than {MAX_VALUES:,} JSON values up to this line: import its samples "
                        "in several files"
                    )
                try:
                    row = json.loads(line) if is_whole else None
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict) or "doc_id" not in row or "filtered_resps" not in row:
                    raise DataError(
                        f"{path}, line {number}: a sample of lm-eval with doc_id and filtered_resps was expected"
                    )
                yield row
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {reason_of(error)}") from None


def _task(row: Json) -> Task:
    doc = row.get("doc")
    facts = (
        {key: value for key, value in doc.items() if isinstance(value, str | int | float)}
        if isinstance(doc, dict)
        else {}
    )
    short = {key: value for key, value in facts.items() if len(str(value)) <= 100}
    return Task(str(row["doc_id"]), _prompt(row), secret=secret_of(row.get("target")), metadata=short)


def _prompt(row: Json) -> str:
    """The first prompt that the model was given."""
    given = row.get("arguments")
    first: Any = (
        next(iter(given.values()), "")
        if isinstance(given, dict)
        else given[0]
        if isinstance(given, list) and given
        else ""
    )
    if isinstance(first, dict):
        first = first.get("arg_0", "")
    return _shown(first[0] if isinstance(first, list) and first else first)


def _trace(
    row: Json,
    task: str,
    agent: str,
    model: str,
    scored: Sequence[str] = (),
    lower: Collection[str] = (),
    epoch: int = 0,
) -> Trace:
    """The attempt of a row; `epoch` counts the rows of one document, and `scored` are the names of the file's scores.

    `lower` are the names of those of which lower is better.
    """
    answer = _answer(row.get("filtered_resps"))
    said = _answer(row.get("resps")) or answer
    key = f"{task} {row['doc_id']} {agent}" + (f" {epoch}" if epoch else "")
    return Trace(
        id=hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16], benchmark=task, task_id=str(row["doc_id"]),
        agent={"name": agent, "model": model}, epoch=epoch, seed=0, started_at="1970-01-01T00:00:00+00:00", duration_s=0.0,
        nodes=(Node(None, user(_prompt(row))), Node(0, assistant(said))), answer=answer,
        scores=tuple(_scores(row, scored, lower)),
    )  # fmt: skip


def _names(row: Json) -> list[str]:
    named = row.get("metrics")
    names = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    return names or [key for key in row if key not in _RESERVED]


def _is_number(value: Any) -> TypeGuard[bool | int | float]:
    return isinstance(value, bool | int | float)


def _scores(row: Json, scored: Sequence[str] = (), lower: Collection[str] = ()) -> Iterator[Score]:
    """A score of each name that the file has, failed where the row has no number, then the row's other numbers."""
    for name in dict.fromkeys([*scored, *_names(row)]):
        value: Any = row.get(name)
        detail = {"is_harm": True} if name in lower else {}
        if _is_number(value) and not (isinstance(value, float) and not math.isfinite(value)):
            try:
                yield Score(name, float(value), detail)
            except OverflowError:
                raise DataError(
                    f"the {name[:40]} of sample {str(row['doc_id'])[:40]!r} is a number of {len(str(value))} digits, "
                    "and a score was expected: correct it, or take the line out"
                ) from None
        elif name in scored:
            yield Score(name, 0.0, detail, failure=f"no number: {reprlib.repr(value)} in the file")


def _answer(responses: Any) -> str:
    """The first text of responses; log-probs of choices as they are."""
    first = responses
    while isinstance(first, list) and len(first) == 1:
        first = first[0]
    return _shown(first)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
