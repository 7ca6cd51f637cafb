"""Attempts as a run stores them."""

from __future__ import annotations

from typing import Any

from firsthand.trace import Failure, Score, Trace


def trace(
    id: str, task: str = "t", value: float | None = 1.0, *, agent: str = "a", epoch: int = 0, **more: Any
) -> Trace:
    """An attempt by an agent at a task, with one score, or failed if `value` is None."""
    scores = more.pop("scores", () if value is None else (Score("s", value),))
    error = more.pop("error", Failure("Gone", "no answer") if value is None else None)
    place = more.pop("place", f"{more.get('benchmark', 'b')}{task}{agent}{epoch}")
    return Trace(
        id, more.pop("benchmark", "b"), task, {"name": agent}, epoch, more.pop("seed", 0), "", 1.0, scores=scores,
        error=error,
        place=place, **more,
    )  # fmt: skip
