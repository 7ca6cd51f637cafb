"""Calls and attempts in few words."""

from __future__ import annotations

from typing import Any

from firsthand.trace import Call, Trace


def call(
    id: str, kind: Any = "generate", at: int | None = None, begun: float = 0.0, took: float = 1.0, **more: Any
) -> Call:
    return Call(id, kind, at, begun, took, "r", **more)


def trace(**more: Any) -> Trace:
    given: dict[str, Any] = {"agent": {"name": "ann"}, "place": "p1", **more}
    agent = given.pop("agent")
    return Trace("x1", "quiz", "a task", agent, 2, 0, "", given.pop("duration_s", 4.0), **given)
