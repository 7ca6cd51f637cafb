"""Tells whether a recorded tool call was carried out, which is another question than whether the model read a result."""

from __future__ import annotations

from firsthand.trace import Call


def has_run(call: Call) -> bool:
    """True of a tool call that returned, also where a guard withheld its result, and of one that may have taken effect.

    The last are calls that were interrupted, and late or broken calls of tools whose effects outlive the attempt.
    """
    return call.kind == "tool" and bool(call.detail.get("ran", call.error is None and not call.detail.get("is_error")))
