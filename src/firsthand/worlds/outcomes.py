"""Scores of an attempt in a world, with the reason of failure in the detail."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.trace import Score, Trace
from firsthand.worlds.world import Ending, failure_reason


def world_score(name: str, value: float, trace: Trace, **detail: object) -> Score:
    """The score of that name; below 1 its detail says why: invalid action, loop, limit or wrong end."""
    counts = {key: trace.final_state.get(key, 0) for key in ("rounds", "invalid_actions")}
    reason = {} if value >= 1 else {"reason": reason_of(trace)}
    return Score(name, float(value), {**counts, **reason, **detail})


def reason_of(trace: Trace) -> Ending:
    """Why an attempt that did not win ended; `limit` also where the pattern's own steps ran out."""
    found = failure_reason(trace.final_state, trace.stop_reason)
    ran_out = any(event.kind == "max_steps" for event in trace.events)
    return "limit" if found == "wrong end" and ran_out and trace.final_state.get("ended") == "stopped" else found


def world_result(trace: Trace) -> Json:
    """The world's report at the end; empty if the attempt failed before that."""
    result = trace.final_state.get("result")
    return result if isinstance(result, dict) else {}
