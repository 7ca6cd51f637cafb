"""Keeps the store of received traces open for the pages, and the traces that are looked at decoded."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from firsthand.ingest.as_trace import trace_of
from firsthand.ingest.cold_segments import read_sealed
from firsthand.ingest.incoming_span import StoredSpan
from firsthand.ingest.span_tree import arranged
from firsthand.ingest.trace_store import TraceStore
from firsthand.ingest.trace_summary import TraceSummary
from firsthand.studio.incoming_rows import incoming_spans_json
from firsthand.trace import Trace

MOST_KEPT = 16
MOST_BYTES = 256 << 20
"""Of the bodies of the traces that are kept decoded, each span counted with SPAN_BYTES more."""
SPAN_BYTES = 1000


@dataclass(frozen=True)
class KeptIncoming:
    """A received trace as the pages show it."""

    summary: TraceSummary
    spans: tuple[StoredSpan, ...]

    @cached_property
    def size_bytes(self) -> int:
        """About what its spans take as JSON; what they share is in memory once."""
        return sum(each.size_bytes + SPAN_BYTES for each in self.spans)

    @cached_property
    def trace(self) -> Trace:
        """As the record of an attempt."""
        return trace_of(self.summary.trace, self.spans)

    @cached_property
    def failed_row(self) -> int:
        """The row in its tree of the failed span that lies deepest, the first of several; -1 if none failed."""
        failed = [
            (-each.depth, row)
            for row, each in enumerate(arranged(self.spans), start=1)
            if each.stored.span.error is not None
        ]
        return min(failed)[1] if failed else -1

    @cached_property
    def rows(self) -> bytes:
        """The rows of its tree as JSON in ASCII, for texts may hold lone surrogates, which UTF-8 has no bytes for."""
        return json.dumps(incoming_spans_json(self.summary.name, self.spans), allow_nan=False).encode()


class IncomingTraces:
    """The traces of a data home that other programs sent."""

    def __init__(self, home: Path):
        self.home = home
        self._lock = threading.Lock()
        self._store: TraceStore | None = None
        self._kept: OrderedDict[str, KeptIncoming] = OrderedDict()

    @property
    def store(self) -> TraceStore | None:
        """The store; None while nothing has ever been received."""
        with self._lock:
            if self._store is None and TraceStore.exists(self.home):
                self._store = TraceStore(self.home)
                self._store.read_sealed = read_sealed
            return self._store

    def get(self, trace: str) -> KeptIncoming:
        """A trace by its id; UnknownName if there is none."""
        from firsthand.errors import UnknownName

        store = self.store
        if store is None:
            raise UnknownName(f"no trace {trace[:80]!r}: nothing has been received")
        summary = store.summary(trace)
        with self._lock:
            known = self._kept.get(trace)
            if known is not None and known.summary.changed == summary.changed:
                self._kept.move_to_end(trace)
                return known
        made = KeptIncoming(summary, tuple(store.spans(trace)))
        with self._lock:
            self._kept[trace] = made
            self._kept.move_to_end(trace)
            while len(self._kept) > 1 and (
                len(self._kept) > MOST_KEPT or sum(each.size_bytes for each in self._kept.values()) > MOST_BYTES
            ):
                self._kept.popitem(last=False)
        return made

    @property
    def version(self) -> str:
        """A text that changes when a span or a score comes; empty without a store."""
        store = self.store
        return "" if store is None else store.version
