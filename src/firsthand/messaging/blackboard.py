"""Blackboard: versioned keys that agents read and write, each write compared with the version that its writer had seen.

A blackboard (Erman et al., 1980, Hearsay-II) is a working memory that independent experts watch and add to. Here an
entry has a version, a writer and a time; nothing is overwritten without a trace, as the history of a key is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from firsthand.declaration import Readers
from firsthand.errors import ConfigError, FirsthandError

MAX_KEY_CHARS = 200
MAX_VALUE_CHARS = 1_000_000


class BoardConflict(FirsthandError):
    """A write that expected another version than the key has. `entry` is the entry as it is, None if there is none."""

    def __init__(self, message: str, entry: BoardEntry | None):
        super().__init__(message)
        self.entry = entry


@dataclass(frozen=True)
class BoardEntry:
    """One version of a key."""

    key: str
    value: str
    version: int
    """1 for the first, one more for each write."""
    writer: str
    at: float
    """Seconds since 1970."""
    sequence: int
    """The place among all writes of the board."""
    readers: Readers = "public"
    """Those who may read it: the user alone where its writer copied what only the user may read."""


class Blackboard(Protocol):
    """A shared board. Its methods may be called by many agents, threads and processes at a time."""

    def write(
        self,
        key: str,
        value: str,
        *,
        writer: str,
        expected: int | None = None,
        once: str | None = None,
        readers: Readers = "public",
    ) -> BoardEntry:
        """Keep a new version of a key; returns it.

        Args:
            expected: The version that the key must have now, 0 for a new key; None writes over any.
            once: A name of this write: a second write of the name changes nothing and returns the first one's entry, so
                that a program that begins again does not write twice.
            readers: Those who may read the entry, which it keeps.

        Raises:
            BoardConflict: The key has another version.
        """
        ...

    def read(self, key: str) -> BoardEntry | None:
        """The key as it is; None if it was never written."""
        ...

    def entries(self, prefix: str = "") -> Sequence[BoardEntry]:
        """The latest entry of each key that begins so, by key."""
        ...

    def history(self, key: str) -> Sequence[BoardEntry]:
        """All versions of a key that are kept, the first one first."""
        ...

    def changes(self, after: int = 0, limit: int = 1000) -> Sequence[BoardEntry]:
        """The writes after that place in the sequence, in order: a watcher asks for those after the last it has seen."""
        ...


def check_entry(key: str, value: str) -> None:
    """ConfigError for a key or value that a board cannot hold."""
    if not key or len(key) > MAX_KEY_CHARS or not key.isprintable():
        raise ConfigError(f"the key is {key[:60]!r}: 1 to {MAX_KEY_CHARS} printable characters are expected")
    if len(value) > MAX_VALUE_CHARS:
        raise ConfigError(f"the value of {key!r} has {len(value):,} characters: at most {MAX_VALUE_CHARS:,} are kept")


def conflict(key: str, expected: int, entry: BoardEntry | None) -> BoardConflict:
    """The error for a write that expected another version."""
    there = "it is not there" if entry is None else f"it is at version {entry.version}, written by {entry.writer!r}"
    return BoardConflict(f"{key!r} was expected at version {expected}, and {there}: read it, then write again", entry)
