"""Counts the calls of an attempt whose tokens or cost no endpoint reported, so that tables say which numbers lack them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from firsthand.loop.prompt_size import ESTIMATED
from firsthand.trace import Call, Trace


class Unreported(NamedTuple):
    """Counts of calls and attempts whose tokens or cost no endpoint reported."""

    silent: int = 0
    """Answered model calls that count 0 tokens."""
    estimated: int = 0
    """Model calls whose tokens are an estimate."""
    unpriced: int = 0
    """Attempts under a limit of money that asked a model and cost nothing."""


ALL_REPORTED = Unreported()


def unreported_in(trace: Trace) -> Unreported:
    """Count the unreported tokens and cost of one attempt."""
    calls = [call for call in trace.calls if call.error is None and _asks_model(call)]
    estimated = sum(call.detail.get(ESTIMATED) is True for call in calls)
    silent = sum(not call.usage.total_tokens for call in calls)
    limits = trace.agent.get("limits")
    is_limited = isinstance(limits, dict) and limits.get("cost_usd") is not None
    return Unreported(silent, estimated, int(is_limited and bool(calls) and not trace.usage.cost_usd))


def total_unreported(each: Iterable[Unreported]) -> Unreported:
    """Add up the counts of several attempts."""
    listed = list(each)
    return Unreported(*(sum(one[index] for one in listed) for index in range(len(Unreported._fields))))


def _asks_model(call: Call) -> bool:
    return call.kind in ("generate", "score") or (call.kind == "guard" and "model" in call.detail)
