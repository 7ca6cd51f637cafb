"""UndoPoint: a call that can be taken back, with the states on both sides of it, and the seal of whoever recorded it.

A trace may come from anyone: a state is put back without a word only if it was recorded under this data home.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from firsthand.message import Json, canonical
from firsthand.system.home_seal import is_ours, seal_of
from firsthand.tool import Tool
from firsthand.trace import as_json


@dataclass(frozen=True)
class UndoPoint:
    """A call that can be taken back."""

    effect: str
    step: int
    """The node that the call was made from; -1 before the first message."""
    tool: str
    arguments: Json
    before: Any
    """The state before the call."""
    after_hash: str | None
    """Hash of the state after it; None if the attempt ended before that was known."""
    seal: str = ""
    """The seal that the guard made of it under its data home; empty where there is none."""

    @property
    def before_hash(self) -> str:
        """Hash of the state before the call."""
        return state_hash(self.before)


def state_hash(state: Any) -> str:
    """SHA-256 of a captured state."""
    return hashlib.sha256(canonical(state).encode("utf-8", "surrogatepass")).hexdigest()


def point_seal(task: str, agent: str, tool: Tool, point: UndoPoint) -> str:
    """The seal of a point: of the call, what its tool acts on, and the states on both sides of it."""
    return seal_of(_sealed(task, agent, tool, point), "undo")


def is_sealed(task: str, agent: str, tool: Tool, point: UndoPoint) -> bool:
    """True if the point has the seal of this data home, for this tool over what it acts on now."""
    return is_ours(_sealed(task, agent, tool, point), point.seal, "undo")


def _sealed(task: str, agent: str, tool: Tool, point: UndoPoint) -> str:
    states = [point.before_hash, point.after_hash]
    return canonical([task, agent, point.effect, tool.name, tool.over, as_json(point.arguments), *states])
