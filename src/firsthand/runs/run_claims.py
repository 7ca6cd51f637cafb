"""Claims on a run: one process at a time makes its attempts, and one gives it the scores of one name.

A claim is a lock on a file in the run's folder, which the system releases when its process dies. Whoever comes second gets
a ConfigError that names the process that holds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.runs.database import plain
from firsthand.runs.run_names import LOCK
from firsthand.system.lock import claimed, holder, is_held


def claim_attempts(folder: Path) -> AbstractContextManager[None]:
    """Be the one that makes the run's attempts, as long as the block lasts."""
    return claimed(folder / LOCK, _busy(folder, "is being run"))


def claim_scoring(folder: Path, name: str) -> AbstractContextManager[None]:
    """Be the one that gives the run scores of this name, as long as the block lasts."""
    lock = folder / f"scoring-{hashlib.sha256(plain(name).encode()).hexdigest()[:12]}.lock"
    return claimed(lock, _busy(folder, f"is being given scores named {name!r}"))


def expect_idle(folder: Path) -> None:
    """ConfigError if a process makes the run's attempts."""
    if is_held(folder / LOCK):
        raise _busy(folder, "is being run")(holder(folder / LOCK))


def _busy(folder: Path, what: str) -> Callable[[str], ConfigError]:
    return lambda by: ConfigError(f"{folder.name} {what} by {by}: wait until it ends, or end it first")
