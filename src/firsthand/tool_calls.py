"""Tells whether a recorded tool call was carried out, which is another question than whether the model read a result."""

from __future__ import annotations

from firsthand.trace import Call


def has_run(call: Call) -> bool:
    """True of a tool call that returned, or was interrupted while it ran; also where a guard withheld its result."""
    return call.kind == "tool" and bool(call.detail.get("ran", call.error is None and not call.detail.get("is_error")))
