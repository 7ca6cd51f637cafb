"""Spans as the store of traces takes them, and what it holds of them."""

from __future__ import annotations

from typing import Any

from firsthand.ingest.dialects.span_facts import SpanFacts
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.trace_store import ReadySpan, TraceStore

NONE = (b"d" * 32, b"{}", "")


def ready(trace: str, span: str, *, end: int = 20, body: bytes = b"{}", facts: SpanFacts | None = None, parent: str = "",
          resource: Any = NONE, **more: Any) -> ReadySpan:  # fmt: skip
    made = IncomingSpan(trace, span, parent, more.pop("name", f"n{span}"), more.pop("start", 10), end, **more)
    return ReadySpan(made, facts or SpanFacts(), body, resource)


def arrived(store: TraceStore, **times: float) -> None:
    with store.database.write() as connection:
        for trace, at_s in times.items():
            connection.execute("UPDATE traces SET arrived_s = ? WHERE trace = ?", (at_s, trace))


def names(store: TraceStore, table: str = "traces") -> list[str]:
    return [name for (name,) in store.database.read(f"SELECT DISTINCT trace FROM {table} ORDER BY trace")]
