"""Records and conditions: the small language in which an index is kept in the collection of a server.

A record has an id of 32 hex digits, flat fields (strings and numbers), a payload that only we read, and a vector or none.
An engine is a RecordStore: it translates conditions into its own filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from firsthand.retrieval.chunk_index import Vectors

Value = str | float


@dataclass(frozen=True)
class Record:
    """The record stored under an id."""

    id: str
    fields: Mapping[str, Value]
    payload: str = ""
    """JSON in ASCII."""
    vector: Vectors | None = None
    """Shape (dimension,); None where it was not asked for, and in an index of terms alone."""


@dataclass(frozen=True)
class Match:
    """The field is one of the values; never true where it is missing."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """The field is a number from `low` to `high`, either of which may be missing."""

    field: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Among:
    """The record's id is one of these."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class Not:
    """The condition does not hold."""

    condition: Condition


@dataclass(frozen=True)
class Every:
    """All conditions hold."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Some:
    """At least one condition holds."""

    conditions: tuple[Condition, ...]


Condition = Match | Range | Among | Not | Every | Some


def record_pages(records: Sequence[Record], size: int) -> list[Sequence[Record]]:
    """Records in pages, the last record in one of its own, as it names the others and an engine's batch has no order."""
    others = records[:-1]
    return [
        *(others[first : first + size] for first in range(0, len(others), size)),
        *([records[-1:]] if records else []),
    ]


class RecordStore(Protocol):
    """A collection of records on some engine. What was written is found by the next call."""

    transactional: bool
    """True if `atomically` shows others all writes of its block at once or none."""

    def atomically(self) -> AbstractContextManager[None]:
        """A block whose writes belong together."""

    def snapshot(self) -> AbstractContextManager[None]:
        """A block whose reads see one state of the records, if the store is transactional; else as without it."""

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records, in place of those with their ids; the last, in one step, when all others are stored."""

    def remove(self, ids: Sequence[str]) -> None:
        """Delete the records with these ids, as far as there are any."""

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records that are there, by id."""

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        """All records for which the condition holds."""

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        """The ids and dot products of the k records of highest dot product for which the condition holds, best first.

        It may be approximate where the engine is.
        """

    def close(self) -> None:
        """Release the connection."""
