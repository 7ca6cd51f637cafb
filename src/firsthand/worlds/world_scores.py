"""Scores an attempt in a world, with the reason if it fell short."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.trace import Score, Trace
from firsthand.worlds.world import failure_reason


def world_result(trace: Trace) -> Json:
    """What the world reported at the end; empty if the attempt failed before that."""
    result = trace.final_state.get("result")
    return result if isinstance(result, dict) else {}


def world_score(name: str, value: float, trace: Trace, **detail: object) -> Score:
    """A Score; below 1 its detail has a `reason`: invalid action, loop, limit or wrong end."""
    reason = {} if value >= 1 else {"reason": failure_reason(trace.final_state)}
    return Score(name, float(value), {**detail, **reason})
