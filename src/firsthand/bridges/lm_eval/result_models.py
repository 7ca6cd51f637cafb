"""Finds what the results beside lm-evaluation-harness's samples say of them, reading each file of results once:
the model, and of which metrics a higher value is better."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.stats.metric_names import is_lower_better
from firsthand.system.json_values import values_in
from firsthand.system.ordinary_file import open_ordinary

MAX_RESULTS_BYTES = 64 << 20
MAX_RESULTS_VALUES = 5_000_000


class ResultFacts(NamedTuple):
    """What a file of results says."""

    model: str | None = None
    directions: Any = None
    """Task -> metric -> True if higher is better, as the file has it, unchecked."""


class ResultModels:
    """What the results of folders say, remembered for one import."""

    def __init__(self) -> None:
        self._of_folder: dict[Path, tuple[ResultFacts, ...]] = {}
        self._of_file: dict[tuple[int, int], ResultFacts] = {}
        """By device and number of the file, which can have many names."""

    def of(self, samples: Path) -> str:
        """The model of the results beside a file of samples, or the name of their folder."""
        named = (each.model for each in self._beside(samples) if each.model is not None)
        return next(named, samples.parent.name or "model")

    def is_lower_better(self, samples: Path, task: str, metric: str) -> bool:
        """True if the results beside a file of samples say that lower is better, or if they do not say and its name does."""
        for each in self._beside(samples):
            of_task = each.directions.get(task) if isinstance(each.directions, dict) else None
            higher = of_task.get(metric) if isinstance(of_task, dict) else None
            if isinstance(higher, bool):
                return not higher
        return is_lower_better(metric)

    def _beside(self, samples: Path) -> tuple[ResultFacts, ...]:
        """The files of results in the folder, the newest first."""
        folder = samples.parent
        if folder not in self._of_folder:
            found = sorted(folder.glob("results_*.json"), reverse=True)
            self._of_folder[folder] = tuple(map(self._read, found))
        return self._of_folder[folder]

    def _read(self, results: Path) -> ResultFacts:
        """What a file of results says; nothing if it cannot be read."""
        try:
            with open_ordinary(results) as file:
                status = os.fstat(file.fileno())
                key = (status.st_dev, status.st_ino)
                if key not in self._of_file:
                    is_small = status.st_size <= MAX_RESULTS_BYTES
                    self._of_file[key] = _facts(file.read(MAX_RESULTS_BYTES)) if is_small else ResultFacts()
                return self._of_file[key]
        except OSError:
            return ResultFacts()


def _facts(text: bytes) -> ResultFacts:
    if values_in(text, MAX_RESULTS_VALUES) > MAX_RESULTS_VALUES:
        return ResultFacts()
    try:
        body = json.loads(text.decode())
    except (ValueError, RecursionError):
        return ResultFacts()
    if not isinstance(body, dict):
        return ResultFacts()
    name = body.get("model_name")
    return ResultFacts(name[:200] if isinstance(name, str) else None, body.get("higher_is_better"))
