"""Which span of a distributed trace the running code belongs to, as W3C Trace Context writes it in a request's header.

Whoever watches an attempt or serves a request enters a TraceParent; a Model that asks an endpoint sends it along, so that
the endpoint's own spans become part of the same trace. Without one nothing is sent.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class TraceParent:
    """The span that others are children of."""

    trace_id: int
    """128 bits, not 0."""
    span_id: int
    """64 bits, not 0."""
    sampled: bool = True
    """Whether the trace is recorded."""

    @property
    def header(self) -> str:
        """The value of the header `traceparent`."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


_parent: ContextVar[TraceParent | None] = ContextVar("firsthand_traceparent", default=None)


def current() -> TraceParent | None:
    """The span that the running code belongs to."""
    return _parent.get()


def enter(parent: TraceParent | None) -> None:
    """Make `parent` the current one for the running task and the tasks it starts."""
    _parent.set(parent)
