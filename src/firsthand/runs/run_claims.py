"""Claims on a run: one process at a time makes its attempts, and one gives it the scores of one name.

A claim is a lock on a file in the run's folder, which the system releases when its process dies. Whoever comes second gets
a ConfigError that names the process that holds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.runs.database import plain
from firsthand.runs.run_names import LOCK
from firsthand.system.lock import claimed, holder, is_held

_SCORING = "scoring-*.lock"


def claim_attempts(folder: Path) -> AbstractContextManager[None]:
    """Be the one that makes the run's attempts, as long as the block lasts."""
    return claimed(folder / LOCK, _busy(folder, "is being run"))


def claim_scoring(folder: Path, name: str) -> AbstractContextManager[None]:
    """Be the one that gives the run scores of this name, as long as the block lasts."""
    lock = folder / _SCORING.replace("*", hashlib.sha256(plain(name).encode()).hexdigest()[:12])
    return claimed(lock, _busy(folder, f"is being given scores named {name!r}"))


@contextmanager
def claim_all(folder: Path, name: str, *, but: Collection[str] = ()) -> Iterator[set[str]]:
    """Be the only one that works on the run `name` in this folder; yields the names of the locks that are held.

    All that has begun is claimed, the attempts and the scores of each name, except for locks `but`, which the caller holds.
    """
    there = {path.name for path in folder.glob(_SCORING)} | {LOCK}
    with ExitStack() as claims:
        for each in sorted(there.difference(but)):
            lock = folder / each
            if lock.is_symlink() or (lock.exists() and not lock.is_file()):
                continue  # nobody holds such a lock, which came with a folder from elsewhere
            claims.enter_context(claimed(lock, _busy(folder.with_name(name), "is being worked on")))
        yield there


def expect_idle(folder: Path) -> None:
    """ConfigError if a process makes the run's attempts."""
    if is_held(folder / LOCK):
        raise _busy(folder, "is being run")(holder(folder / LOCK))


def _busy(folder: Path, what: str) -> Callable[[str], ConfigError]:
    return lambda by: ConfigError(f"{folder.name} {what} by {by}: wait until it ends, or end it first")
