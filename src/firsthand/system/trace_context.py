"""The current span of a distributed trace, as a W3C Trace Context header.

Listeners of attempts and the server enter a TraceParent; a Model that calls an endpoint sends it along, so that the
endpoint's own spans join the same trace. Without one nothing is sent.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class TraceParent:
    """The parent span of spans made by the running code."""

    trace_id: int
    """128 bits, not 0."""
    span_id: int
    """64 bits, not 0."""
    sampled: bool = True
    """True if the trace is recorded."""

    @property
    def header(self) -> str:
        """The value of the `traceparent` header."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


_parent: ContextVar[TraceParent | None] = ContextVar("firsthand_traceparent", default=None)


def current() -> TraceParent | None:
    """The current span, or None."""
    return _parent.get()


def enter(parent: TraceParent | None) -> None:
    """Make `parent` the current span of the running task and the tasks it starts."""
    _parent.set(parent)
