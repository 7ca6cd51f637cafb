"""Steps of the tour that are done: a file in the tour's folder, below the data home."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from firsthand.errors import DataError
from firsthand.reading.tour_steps import TourStep, tour_steps
from firsthand.system.home import data_home


def tour_folder() -> Path:
    """The folder that the tour's commands run in."""
    return data_home() / "tour"


def steps_done() -> dict[str, str]:
    """Id -> when it was done, of the steps that were. DataError if the file was damaged."""
    path = _file()
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {step.id for step in tour_steps()}
        return {str(id): str(when) for id, when in found["done"].items() if id in known}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{path} does not hold the tour's progress: `firsthand tour --reset` begins anew") from None


def mark_done(step: TourStep) -> None:
    """Records that a step's command ended well."""
    _write({**steps_done(), step.id: datetime.now(UTC).isoformat(timespec="seconds")})


def reset_progress() -> None:
    """Forgets which steps are done; what their commands made stays."""
    _file().unlink(missing_ok=True)


def next_step(done: Iterable[str]) -> TourStep | None:
    """The first step that is not done; None if all are."""
    passed = set(done)
    return next((step for step in tour_steps() if step.id not in passed), None)


def _file() -> Path:
    return tour_folder() / "progress.json"


def _write(done: dict[str, str]) -> None:
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"progress.{os.getpid()}.part")
    part.write_text(json.dumps({"version": 1, "done": done}, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
