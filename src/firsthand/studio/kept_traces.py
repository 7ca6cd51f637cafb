"""Keeps the attempts that are looked at decoded, so that the views and spans of a large one are made once."""

from __future__ import annotations

import gc
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from firsthand.loop.protection import shareable
from firsthand.model import Usage
from firsthand.runs.attempts import find
from firsthand.runs.run_folder import Run
from firsthand.studio.attempt_spans import spans_json
from firsthand.trace import Trace

MOST_KEPT = 32
MOST_CALLS = 400_000
"""Calls and messages of all attempts that are kept, but for the last one."""


@dataclass(frozen=True)
class KeptTrace:
    """An attempt as the Studio may show it."""

    trace: Trace
    """Without its text if its benchmark is protected."""
    number: int
    """The number of the try."""

    @cached_property
    def spans(self) -> bytes:
        """Its spans as JSON in ASCII, for texts may hold lone surrogates, which UTF-8 has no bytes for."""
        with _without_collection():
            return json.dumps(spans_json(self.trace), allow_nan=False).encode()

    @cached_property
    def usage(self) -> Usage:
        """Tokens and money of all its calls."""
        return self.trace.usage

    @property
    def size(self) -> int:
        """The number of its calls and messages."""
        return len(self.trace.calls) + len(self.trace.nodes) + len(self.trace.events)


class KeptTraces:
    """The attempts that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], KeptTrace] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, run: Run, ref: str) -> KeptTrace:
        """The attempt that `ref` names, as `Run.trace` finds it, with the scores it was given since."""
        place, number = find(run.database, ref, run.id)
        newest = run.database.read("SELECT coalesce(max(seq), 0) FROM scores WHERE attempt = ?", (place,))[0][0]
        key = (run.path, place, number, newest)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with _without_collection():
            made = KeptTrace(shareable(run.trace(place)), number)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MOST_KEPT or (
                len(self._kept) > 1 and sum(each.size for each in self._kept.values()) > MOST_CALLS
            ):
                self._kept.popitem(last=False)
        return made


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
