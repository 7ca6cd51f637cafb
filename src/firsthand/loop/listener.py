"""What is told of an attempt while it runs: each step as plain data, to whoever listens."""

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
    """A call has begun. Where it is tried again it begins again, and what was streamed of it is void."""

    id: str
    kind: CallKind
    at: int | None
    detail: Json = field(default_factory=dict)
    """Name and arguments of a tool call; how many answers, `n`, a generation asks for."""


@dataclass(frozen=True)
class Piece:
    """New text of the answer that the call of this id generates."""

    id: str
    text: str


Step = Added | Began | Piece | Call | Event
"""One thing that happened in an attempt; a Call has ended when it is told."""
Listener = Callable[[Step], None]
"""What is told of each step of an attempt, in order, while it runs. It must be quick, and it cannot change the attempt.

One with an attribute `streams` that is False is told no Piece, so that nothing is streamed for it."""
