"""Removes runs from disk. A run that a process works on is kept."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from firsthand.errors import StoreError
from firsthand.runs.run_names import DATABASE, LOCK
from firsthand.system.lock import is_held

_REMOVED = ".removed-"


def remove_run(path: Path) -> None:
    """Remove a run's folder and all in it. StoreError if a process works on the run, or the folder cannot be removed.

    The folder is renamed first, so a removal that is interrupted leaves no half of a run; the next one finishes it.
    """
    if not (path / DATABASE).is_file() or path.is_symlink():
        raise StoreError(f"{path} is not the folder of a run, and is kept")
    if is_held(path / LOCK):
        raise StoreError(f"run {path.name} is being worked on: stop that process first, then remove the run")
    removed = path.with_name(_REMOVED + path.name)
    try:
        path.rename(removed)
        shutil.rmtree(removed)
    except OSError as error:
        raise StoreError(f"{path} cannot be removed: {error.strerror or error}") from None
    for left in path.parent.glob(f"{_REMOVED}*"):
        with suppress(OSError):
            shutil.rmtree(left)
