"""Helpers of the tests that make benchmarks from small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmark import Benchmark


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
