"""Helpers of the tests that make benchmarks from small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmark import Benchmark
from firsthand.task import Task


def refused(error: type[Exception], make: Any, *given: Any, **named: Any) -> str:
    """The sentence by which a call is refused."""
    with pytest.raises(error) as told:
        make(*given, **named)
    return str(told.value)


def names(made: Benchmark) -> tuple[str, ...]:
    """The names of a benchmark's scorers."""
    return tuple(getattr(scorer, "__name__", str(scorer)) for scorer in made.scorers)


def written(path: Path, *rows: dict[str, Any]) -> Path:
    """A JSONL file of these rows, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def facts(made: Benchmark) -> dict[str, Any]:
    """All that a benchmark says of itself, but for its tasks."""
    return {
        "name": made.name,
        "description": made.description,
        "protocol": made.protocol,
        "licence": made.licence,
        "scorers": list(names(made)),
        "reduce": made.reduce,
        "options": dict(made.options),
        "environment": made.environment is not None,
        "figures": made.figures is not None,
    }


def said(name: str, scorers: str, description: str, protocol: str, licence: str, **more: Any) -> dict[str, Any]:
    """What `facts` gives for a benchmark without environment and figures, but for what `more` names."""
    plain = {"reduce": "", "options": {}, "environment": False, "figures": False}
    told = {"name": name, "description": description, "protocol": protocol, "licence": licence}
    return {**told, "scorers": scorers.split(), **plain, **more}


def bodies(tasks: Any) -> list[dict[str, Any]]:
    """Tasks as JSON objects, without the fields that have their defaults."""
    plain = Task("", "").to_json()
    return [
        {key: value for key, value in task.to_json().items() if key not in plain or value != plain[key]}
        for task in tasks
    ]
