"""Keeps the attempts that are looked at decoded, so that the views and spans of a large one are made once."""

from __future__ import annotations

import gc
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter

import orjson

from firsthand.loop.protection import shareable
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.runs.attempts import find, parsed, trace_body
from firsthand.runs.later_scores import with_scores
from firsthand.runs.run_folder import Run
from firsthand.studio.attempt_spans import first_spans_json, spans_json
from firsthand.trace import Trace

FIRST_SPANS = 100
MOST_KEPT = 32
MOST_CALLS = 400_000
"""Calls and messages of all attempts that are kept, but for the last one."""


@dataclass(frozen=True)
class KeptTrace:
    """An attempt as the Studio may show it: read once, and decoded where a page needs more than its head and its spans."""

    run: Run
    number: int
    """The number of the try."""
    head: Trace
    """The attempt with all its scores, without messages, calls and events."""
    body: Json
    """The attempt as JSON, without its text if its benchmark is protected."""

    @cached_property
    def trace(self) -> Trace:
        """The attempt."""
        with _without_collection():
            return parsed(self.run.database, Trace.from_json, self.body).scored(self.head.scores)

    @cached_property
    def spans(self) -> bytes:
        """Its spans as JSON."""
        with _without_collection():
            columns = parsed(self.run.database, spans_json, self.body)
            try:
                return orjson.dumps(columns)
            except TypeError:  # a lone surrogate, which UTF-8 has no bytes for
                return json.dumps(columns, allow_nan=False).encode()

    @cached_property
    def first_spans(self) -> Json:
        """Those that are drawn before all are there."""
        return parsed(self.run.database, lambda body: first_spans_json(body, FIRST_SPANS), self.body)

    @cached_property
    def usage(self) -> Usage:
        """Tokens and money of all its calls."""
        return parsed(self.run.database, _usage_of, self.body)

    @property
    def has_messages(self) -> bool:
        """True if it has any."""
        return bool(self.body["nodes"])

    @property
    def size(self) -> int:
        """The number of its calls, messages and events."""
        return len(self.body["calls"]) + len(self.body["nodes"]) + len(self.body["events"])


class KeptTraces:
    """The attempts that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], KeptTrace] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, run: Run, ref: str) -> KeptTrace:
        """The attempt that `ref` names, as `Run.trace` finds it, with the scores it was given since."""
        place, number = find(run.database, ref, run.id)
        newest = run.database.read("SELECT coalesce(max(seq), 0) FROM scores WHERE attempt = ?", (place,))[0][0]
        key = (run, place, number, newest)  # not its path, where another run may have taken its place
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with _without_collection():
            made = _read(run, place, number)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MOST_KEPT or (
                len(self._kept) > 1 and sum(each.size for each in self._kept.values()) > MOST_CALLS
            ):
                self._kept.popitem(last=False)
        return made


def _read(run: Run, place: str, number: int) -> KeptTrace:
    """A try of an attempt. One of a protected task is decoded, for its text has to be removed."""
    body = trace_body(run.database, place, number)
    head = with_scores(run.database, parsed(run.database, _head_of, body), number)
    if parsed(run.database, _is_protected, body):
        trace = shareable(parsed(run.database, Trace.from_json, body).scored(head.scores))
        body, head = trace.to_json(), replace(trace, nodes=(), calls=(), events=())
    return KeptTrace(run, number, head, body)


def _head_of(body: Json) -> Trace:
    without: Json = {name: [] for name in _LISTS}
    if not all(isinstance(body[name], list) for name in _LISTS):
        raise TypeError("messages, calls or events are no list")
    return Trace.from_json(body | without)


_LISTS = ("nodes", "calls", "events")


def _is_protected(body: Json) -> bool:
    return any(event["kind"] == "protected" for event in body["events"])


_ALWAYS = ("prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd")


def _usage_of(body: Json) -> Usage:
    each = [call["usage"] for call in body["calls"]]
    sums = {name: sum(map(itemgetter(name), each)) for name in _ALWAYS}
    return Usage(**sums, cache_write_tokens=sum(usage.get("cache_write_tokens", 0) for usage in each))


@contextmanager
def _without_collection() -> Iterator[None]:
    """Without the garbage collector, which would go through a hundred thousand new objects again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
