"""The place at which a model or a tool is being asked, for those that answer from a record of the same attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from firsthand.loop.journal import Journal, where_in

REPLAYED_ELSEWHERE = "replayed_elsewhere"
"""The kind of the event that notes a reply that a replay took from another attempt than the one it repeats."""


@dataclass(frozen=True)
class AskedAt:
    """A call that is being made: its attempt's place, its effect as the run's journal names it, and the attempt's notes."""

    attempt: str
    effect: str
    note: Callable[..., None]
    """Records an event in the attempt's trace: its kind, then its data by name."""


_current: ContextVar[AskedAt | None] = ContextVar("firsthand_asked_at", default=None)


def asked_at() -> AskedAt | None:
    """The call that is being made; None outside of an attempt, and in one whose place is not known."""
    return _current.get()


@contextmanager
def asking(journal: Journal, effect: str, note: Callable[..., None]) -> Iterator[None]:
    """Ask within the block for this effect of the journal's attempt."""
    place, full = where_in(journal, effect)
    before = _current.set(AskedAt(place, full, note) if place else None)
    try:
        yield
    finally:
        _current.reset(before)
