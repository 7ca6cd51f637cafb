"""EvalPlus's prompts and files, for `humaneval_plus` and `mbpp_plus` (Liu et al., 2023).

The hub's copies of the two sets hold tests as text without inputs, so the files of EvalPlus's releases are used.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Sequence
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import Rows, Source, located, read, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.differential import base, plus
from firsthand.task import Task

ASKED = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
ENDS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")
"""EvalPlus's stop strings for base models, besides those of each set."""


def chat(reproduces: str) -> Protocol:
    """Return the chat protocol, whose answer must be self-contained."""
    return Protocol(
        reproduces,
        query=f"{ASKED}\n```python\n{{question}}\n```",
        scorers=(plus, base),
        continuation=None,
        chat=True,
        max_tokens=768,
    )


def completed(reproduces: str, ends: tuple[str, ...]) -> Protocol:
    """Return the completion protocol, which stops at any of `ends`."""
    return Protocol(
        reproduces,
        query="{question}\n",
        scorers=(plus, base),
        continuation=None,
        stop=(*ENDS, *ends),
        max_tokens=768,
    )


def make(
    name: str,
    source: Source,
    named: dict[str, Protocol],
    protocol: str,
    data: str,
    *,
    url: str,
    rules: dict[str, str],
    typed: Callable[[str, Sequence[Any]], list[Any]],
    description: str,
) -> Benchmark:
    """Return the benchmark over the rows of one of EvalPlus's files."""
    chosen = choose(name, named, protocol)[1]
    path = located(source.path, data, *source.also)
    if path is None:
        raise DataError(f"{name} needs {source.path.rpartition('/')[2]}: fetch {url} and give data=FILE or its folder")
    rows = read(path, source, path.name)
    tasks = [_task(row, rows, index, chosen, rules, typed) for index, row in enumerate(rows.rows)]
    return make_benchmark(
        name,
        named,
        protocol,
        tasks,
        description=description,
        origin=rows.origin,
        licence=source.licence,
        sha256=rows.sha256,
    )


def _task(
    row: Json,
    rows: Rows,
    index: int,
    protocol: Protocol,
    rules: dict[str, str],
    typed: Callable[[str, Sequence[Any]], list[Any]],
) -> Task:
    where = rows.where(index)
    task_id, prompt = text_field(row, "task_id", where), text_field(row, "prompt", where)
    entry_point, solution = text_field(row, "entry_point", where), text_field(row, "canonical_solution", where)
    if not entry_point.isidentifier() or keyword.iskeyword(entry_point):
        raise DataError(
            f"{where}: the field 'entry_point' holds {entry_point[:60]!r}, and a function's name was expected"
        )
    atol = row.get("atol")
    if isinstance(atol, bool) or not isinstance(atol, int | float) or not 0 <= atol < 1:
        raise DataError(f"{where}: the field 'atol' holds {atol!r}, and a tolerance from 0 up to 1 was expected")
    inputs = {}
    for which in ("base", "plus"):
        given = row.get(f"{which}_input")
        if not isinstance(given, list) or not all(isinstance(case, list) for case in given):
            if not (which == "plus" and given == {}):  # Mbpp/793 has {} for no inputs
                raise DataError(f"{where}: the field '{which}_input' is not a list of argument lists")
            given = []
        try:
            inputs[which] = repr(typed(task_id, given))
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(
                f"{where}: the field '{which}_input' does not hold arguments of {entry_point}: {error}"
            ) from None
    if inputs["base"] == "[]":
        raise DataError(f"{where}: the field 'base_input' has no inputs, so an answer would pass untested")
    secret = {"solution": prompt + solution, "entry_point": entry_point, "inputs": inputs, "atol": atol}
    completed = {} if protocol.chat else {"prompt": prompt.strip() + "\n"}
    item = Item(
        task_id,
        {"question": prompt.strip()},
        secret=secret | {"rule": rules.get(entry_point, "equal")} | completed,
        metadata={"entry_point": entry_point, "prompt": prompt},
    )
    return make_task(item, protocol, hint="a Python function in a ```python block")
