"""Removes runs from disk. A run that a process works on is kept."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from firsthand.errors import ConfigError, StoreError
from firsthand.runs.run_claims import claim_all
from firsthand.runs.run_names import DATABASE, LOCK
from firsthand.system.lock import is_held

_REMOVED = ".removed-"


def remove_run(path: Path) -> None:
    """Remove a run's folder and all in it. StoreError if a process works on the run, or the folder cannot be removed.

    A process that makes attempts or gives scores works on it, and none can begin meanwhile. The folder is renamed first, so
    a removal that is interrupted leaves no half of a run; the next one finishes it.
    """
    if not (path / DATABASE).is_file() or path.is_symlink():
        raise StoreError(f"{path} is not the folder of a run, and is kept")
    try:
        with claim_all(path, path.name) as held:
            removed = path.with_name(_REMOVED + secrets.token_hex(8))
            path.rename(removed)
            try:
                with claim_all(removed, path.name, but=held):  # a scoring that began before the folder had its new name
                    _delete(removed)
            except ConfigError:
                removed.rename(path)
                raise
    except ConfigError as busy:
        raise StoreError(str(busy)) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be removed: {error.strerror or error}") from None
    for left in path.parent.glob(f"{_REMOVED}*"):
        if not is_held(left / LOCK):  # else its removal is under way
            shutil.rmtree(left, ignore_errors=True)


def _delete(folder: Path) -> None:
    """Delete the folder, of which another removal may delete a part once its lock is gone."""
    while os.path.lexists(folder):
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
