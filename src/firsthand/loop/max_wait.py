"""Bounds the time of what an attempt awaits outside its pattern: an environment, a tool source, a scorer, a memory.

Their time is not the agent's, so `Limits.seconds` leaves it out. An optional attribute `max_wait_s` is a bound of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from firsthand.errors import ConfigError, WorldFailed
from firsthand.tool_source import source_name

MAX_WAIT_S = 3600.0
"""Seconds for things without a bound of their own."""

T = TypeVar("T")


def max_wait_s(thing: object) -> float | None:
    """The `max_wait_s` of a source, an environment, a world, a scorer or a memory, in seconds; None is no bound."""
    bound: object = getattr(thing, "max_wait_s", MAX_WAIT_S)
    if bound is None:
        return None
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0:
        raise ConfigError(f"max_wait_s of {thing!r:.80} is {bound!r:.80}: give seconds above 0, or None for no bound")
    return float(bound)


async def awaited(bound_s: float | None, pending: Awaitable[T], owner: object, part: str) -> T:
    """The result of `pending`, a `part` of its owner such as `open`; after `bound_s` it is cancelled, with a WorldFailed.

    It runs in the caller's task. Errors of its own, a TimeoutError too, pass through, unless they come after `bound_s`.
    What never yields, or refuses to be cancelled, cannot be ended.
    """
    try:
        async with asyncio.timeout(bound_s) as timer:
            return await pending
    except Exception as error:
        if timer.expired():
            cause = None if isinstance(error, TimeoutError) else error
            raise WorldFailed(
                f"{source_name(owner)}: {part} did not end within {bound_s:g} s: set a longer max_wait_s if it needs it"
            ) from cause
        raise
