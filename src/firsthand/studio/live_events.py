"""One stream of events for each tab: it tells that runs, or a run, have changed, and the page asks for what it shows.

A topic is `runs`, `traces`, or `run:ID`. Its version is a short text that changes with what it stands for; it is read
from the files a few times a second, so that runs of any process are followed.

A page carries the marks of its topics from before it was made until it listens, so that a change in between is told. A
file changes a moment before its new rows can be read, so its size and time alone would let a page that is made in that
moment miss them: the version holds SQLite's own count of commits too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from firsthand.errors import FirsthandError, StoreError
from firsthand.runs.index import INDEX, files_of
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.open_runs import OpenRuns

POLL_S = 0.4
PING_S = 15.0
ASK_S = 5.0
"""After so many seconds a stream asks again whether its reader is still signed in."""
MOST_TOPICS = 20
MOST_STREAMS = 64
"""Open streams of one account: each reads files a few times a second."""


def version_of(topic: str, runs: OpenRuns, traces: IncomingTraces | None = None) -> str:
    """The version of a topic; empty if there is no such run."""
    if topic == "traces":
        return "" if traces is None else traces.version
    if topic == "runs":
        folder = runs.home / "runs"
        try:
            return f"{files_of_index(folder)} {folder.stat().st_mtime_ns}"
        except OSError:
            return ""
    kind, _, id = topic.partition(":")
    if kind != "run":
        return ""
    try:
        run = runs.get(id)
        return f"{files_of(run.path)} {run.database.version} {run.status}"
    except FirsthandError:
        return ""


def files_of_index(folder: Path) -> str:
    """Sizes and times of the index of runs."""
    found = []
    for name in (INDEX, f"{INDEX}-wal"):
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        found.append(f"{stat.st_size}@{stat.st_mtime_ns}")
    return " ".join(found)


def mark_of(topic: str, runs: OpenRuns, traces: IncomingTraces | None = None) -> str:
    """A short mark of a topic's version, which a page carries from before it was made until it listens."""
    return _mark(version_of(topic, runs, traces))


def marks_of(topics: Sequence[str], runs: OpenRuns, traces: IncomingTraces | None = None) -> str:
    """The marks of a page's topics, in their order."""
    return " ".join(mark_of(topic, runs, traces) for topic in topics)


async def changes(
    topics: Sequence[str],
    runs: OpenRuns,
    traces: IncomingTraces | None = None,
    *,
    seen: str = "",
    poll_s: float = POLL_S,
    may_go_on: Callable[[], bool] = lambda: True,
    ask_s: float = ASK_S,
) -> AsyncIterator[str]:
    """The text of an event stream: an event `changed` for each topic whose version is another than before.

    `seen` are the marks of the topics when the page was made: what has changed since is told at once. `may_go_on` is called
    in a thread each `ask_s` seconds, and the stream ends once it is False; while it raises a StoreError nothing is told.
    """
    watched = list(dict.fromkeys(topics))[:MOST_TOPICS]
    known: dict[str, str | None] = {}
    for topic, mark in zip_longest(watched, seen.split()[: len(watched)]):
        known[topic] = await run_in_threadpool(version_of, topic, runs, traces)
        if mark is not None and mark != _mark(known[topic] or ""):
            known[topic] = None
    yield "retry: 2000\n: the Studio tells what changes\n\n"
    quiet_s, unasked_s = 0.0, ask_s
    while True:
        await asyncio.sleep(poll_s)
        quiet_s, unasked_s = quiet_s + poll_s, unasked_s + poll_s
        if unasked_s >= ask_s:
            try:
                if not await run_in_threadpool(may_go_on):
                    return
            except StoreError:
                continue  # asked again at once
            unasked_s = 0.0
        for topic in watched:
            version = await run_in_threadpool(version_of, topic, runs, traces)
            if version != known[topic]:
                known[topic], quiet_s = version, 0.0
                yield f"event: changed\ndata: {json.dumps({'topic': topic})}\n\n"
        if quiet_s >= PING_S:
            quiet_s = 0.0
            yield ": still here\n\n"


class OpenStreams:
    """Streams under way, by account."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def taken(self, account: str) -> Iterator[bool]:
        """Count one stream as the account's while the block lasts; False, and none is, if it has as many as one may."""
        if self._open[account] >= MOST_STREAMS:
            yield False
            return
        self._open[account] += 1
        try:
            yield True
        finally:
            self._open[account] -= 1
            if not self._open[account]:
                del self._open[account]


class CountedStream(StreamingResponse):
    """A stream of events, an account's from before its first byte until its reader leaves; 429 for one too many."""

    def __init__(self, told: AsyncIterator[str], streams: OpenStreams, account: str):
        super().__init__(told, media_type="text/event-stream")
        self._streams, self._account = streams, account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, or the refusal."""
        with self._streams.taken(self._account) as has_room:
            if has_room:
                await super().__call__(scope, receive, send)
                return
        refusal = PlainTextResponse(f"{MOST_STREAMS} pages of yours are followed already: close some.\n", 429)
        await refusal(scope, receive, send)


def _mark(version: str) -> str:
    return hashlib.sha256(version.encode()).hexdigest()[:16]
