"""Scores of an attempt in a world, with the reason of failure in the detail."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.trace import Score, Trace
from firsthand.worlds.world import failure_reason


def world_score(name: str, value: float, trace: Trace, **detail: object) -> Score:
    """The score of that name; below 1 its detail says why: invalid action, loop, limit or wrong end."""
    counts = {key: trace.final_state.get(key, 0) for key in ("rounds", "invalid_actions")}
    reason = {} if value >= 1 else {"reason": failure_reason(trace.final_state, trace.stop_reason)}
    return Score(name, float(value), {**counts, **reason, **detail})


def world_result(trace: Trace) -> Json:
    """The world's report at the end; empty if the attempt failed before that."""
    result = trace.final_state.get("result")
    return result if isinstance(result, dict) else {}
