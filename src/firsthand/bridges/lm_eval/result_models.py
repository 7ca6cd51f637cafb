"""Finds the model of lm-evaluation-harness's samples in the results beside them, reading each file of results once."""

from __future__ import annotations

import json
import os
from pathlib import Path

from firsthand.system.json_values import values_in
from firsthand.system.ordinary_file import open_ordinary

MAX_RESULTS_BYTES = 64 << 20
MAX_RESULTS_VALUES = 5_000_000


class ResultModels:
    """The models of folders of results, remembered for one import."""

    def __init__(self) -> None:
        self._of_folder: dict[Path, str] = {}
        self._of_file: dict[tuple[int, int], str | None] = {}
        """By device and number of the file, which can have many names."""

    def of(self, samples: Path) -> str:
        """The model of the results beside a file of samples, or the name of their folder."""
        folder = samples.parent
        if folder not in self._of_folder:
            named = (self._named(each) for each in sorted(folder.glob("results_*.json"), reverse=True))
            found = next((each for each in named if each is not None), None)
            self._of_folder[folder] = folder.name or "model" if found is None else found
        return self._of_folder[folder]

    def _named(self, results: Path) -> str | None:
        """The `model_name` in a file of results; None if it has none, or cannot be read."""
        try:
            with open_ordinary(results) as file:
                status = os.fstat(file.fileno())
                key = (status.st_dev, status.st_ino)
                if key not in self._of_file:
                    is_small = status.st_size <= MAX_RESULTS_BYTES
                    self._of_file[key] = _model_name(file.read(MAX_RESULTS_BYTES)) if is_small else None
                return self._of_file[key]
        except OSError:
            return None


def _model_name(text: bytes) -> str | None:
    if values_in(text, MAX_RESULTS_VALUES) > MAX_RESULTS_VALUES:
        return None
    try:
        body = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    name = body.get("model_name") if isinstance(body, dict) else None
    return name[:200] if isinstance(name, str) else None
