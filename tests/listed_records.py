"""A RecordStore in a dict, which says what conditions mean: RecordIndex is tested over it where no engine is installed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np

from firsthand.retrieval.chunk_index import Vectors
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record


class ListedRecords:
    """Records by id. `calls` are the reads and writes, in order."""

    transactional = False

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.calls: list[str] = []
        self.asked: list[int] = []
        """The k of each call of `nearest`."""

    def atomically(self) -> AbstractContextManager[None]:
        return nullcontext()

    def snapshot(self) -> AbstractContextManager[None]:
        return nullcontext()

    def upsert(self, records: Sequence[Record]) -> None:
        self.calls.append("upsert")
        self.records |= {each.id: each for each in records}

    def remove(self, ids: Sequence[str]) -> None:
        self.calls.append("remove")
        for id in ids:
            self.records.pop(id, None)

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        return {id: self._shown(self.records[id], vectors) for id in ids if id in self.records}

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        return [self._shown(each, vectors) for each in [*self.records.values()] if holds(condition, each)]

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        self.asked.append(k)
        found = [(each.id, float(np.dot(each.vector, vector))) for each in self.select(condition, vectors=True)]
        return sorted(found, key=lambda pair: -pair[1])[:k]

    def close(self) -> None:
        self.calls.append("close")

    def _shown(self, record: Record, vectors: bool) -> Record:
        return record if vectors else replace(record, vector=None)


def holds(condition: Condition, record: Record) -> bool:
    """True if a condition holds for a record."""
    if isinstance(condition, Match):
        return record.fields.get(condition.field) in condition.values
    if isinstance(condition, Range):
        value = record.fields.get(condition.field)
        low = -float("inf") if condition.low is None else condition.low
        high = float("inf") if condition.high is None else condition.high
        return isinstance(value, float) and low <= value <= high
    if isinstance(condition, Among):
        return record.id in condition.ids
    if isinstance(condition, Not):
        return not holds(condition.condition, record)
    found = (holds(each, record) for each in condition.conditions)
    return all(found) if isinstance(condition, Every) else any(found)
