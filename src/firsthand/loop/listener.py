"""The steps of an attempt as plain data, which a listener is given while the attempt runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from firsthand.message import Json
from firsthand.trace import Call, CallKind, Event, Node


@dataclass(frozen=True)
class Added:
    """A message was added to the tree."""

    index: int
    node: Node


@dataclass(frozen=True)
class Began:
    """A call has begun. A retried call begins again, and what was streamed of it before is void."""

    id: str
    kind: CallKind
    at: int | None
    detail: Json = field(default_factory=dict)
    """Name and arguments of a tool call; `n`, the number of answers, of a generation.

    Where guards watch calls, a tool call begins with its name alone, and again with the arguments once they have passed.
    """


@dataclass(frozen=True)
class Piece:
    """New text of the answer that the call with this id generates."""

    id: str
    text: str


Step = Added | Began | Piece | Call | Event
"""One step of an attempt; a Call is given when it has ended."""
Listener = Callable[[Step], None]
"""Called with each step of an attempt, in order, while it runs. It must be quick, and it cannot change the attempt.

A listener with an attribute `streams` that is False gets no Piece, and answers are not streamed for it."""
