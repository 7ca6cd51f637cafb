"""Pauses between two polls of somebody else's task, so that its replies leave the event loop to others.

A reply of 8 MB takes a second to read, and a peer may say that it is to be asked again at once.
"""

from __future__ import annotations

MAX_PAUSE_S = 5.0
_SHARE = 4
"""Seconds left to others for each second that a poll took."""


def pause_s(wanted_s: float, cpu_s: float) -> float:
    """Returns the seconds to wait after a poll during which this thread used `cpu_s` of processor time."""
    return max(wanted_s, min(MAX_PAUSE_S, _SHARE * cpu_s))
