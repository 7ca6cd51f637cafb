"""What the Studio leaves behind where it is interrupted, refused, closed, or asked for one thing twice."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import StoreError
from firsthand.ingest.incoming_span import IncomingSpan, StoredSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.studio import incoming_rows, incoming_traces, live_events
from firsthand.studio.arena_rounds import ArenaRounds
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.kept_traces import _without_collection
from firsthand.studio.live_events import changes, mark_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.views.curve_views import KeptCurves
from firsthand.system import lock


def test_a_change_that_ctrl_c_interrupts_is_undone_and_the_store_goes_on(tmp_path: Path) -> None:
    made = SqliteStore(tmp_path / "not" / "there" / "yet")
    assert made.put("a", "k", {"n": 1}) == 1 and made.path.is_file()
    for error in (KeyboardInterrupt(), asyncio.CancelledError()):
        with pytest.raises(type(error)), made._write() as connection:
            connection.execute("DELETE FROM items")
            raise error
        assert not connection.in_transaction and made.get("a", "k") is not None
    assert made.put("a", "k", {"n": 2}, version=1) == 2
    made.close()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as told:
        SqliteStore(tmp_path / "file" / "home").put("a", "k", {})
    assert str(told.value) == f"{tmp_path}/file/home/studio.sqlite cannot be made: Not a directory"


def test_a_run_that_another_studio_holds_is_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.0)
    agent = Agent("a", Scripted(["x"], name="scripted:a"), reply)
    rounds = ArenaRounds(tmp_path, {"a": agent, "b": agent})
    closed: list[str] = []

    class Watched:
        def __init__(self, run: Any):
            self.run, self.working = run, run.working

        def close(self) -> None:
            closed.append(self.run.id)
            self.run.close()

    with store.create(tmp_path, {}, "arena") as held:
        with held.working():
            assert not rounds._claimed(Watched(store.open_run(held.id, tmp_path)))  # type: ignore[arg-type]
            assert closed == [held.id]
        with store.open_run(held.id, tmp_path) as free:
            assert rounds._claimed(Watched(free)) and closed == [held.id]  # type: ignore[arg-type]
            rounds.close()


def test_a_topic_that_is_named_twice_is_one_topic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "MOST_TOPICS", 2)
    runs, traces = OpenRuns(tmp_path), SimpleNamespace(version="1")
    marks = f"{mark_of('runs', runs)} {'0' * 16}"

    async def first() -> list[str]:
        told = changes(["runs", "runs", "traces", "run:x"], runs, traces, seen=marks, poll_s=0.001)  # type: ignore[arg-type]
        return [await anext(told), await anext(told)]

    assert asyncio.run(first())[1] == 'event: changed\ndata: {"topic": "traces"}\n\n'


def test_curves_ahead_end_quietly_where_the_pool_closes_or_forgets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firsthand.studio.views.curve_views.AHEAD_AFTER_S", 0.0)
    ids = []
    for name in ("a", "b"):
        with store.create(tmp_path, {}, name) as run, Track(run) as track:
            track.log({"loss": 1.0}, step=1)
        ids.append(run.id)
    runs, kept = OpenRuns(tmp_path), KeptCurves()
    asked: list[str] = []
    lost: Future[bytes] = Future()
    lost.cancel()
    with monkeypatch.context() as patch:
        patch.setattr(kept, "begin", lambda run, *_: [asked.append(run.id), lost][1:])
        kept._make_ahead(ids, runs)
    assert asked == ids, "one that is cancelled does not end the others"
    go_on = threading.Event()
    under_way = [kept._pool.submit(go_on.wait) for _ in range(3)]
    kept.close()
    cancelled = [each.cancelled() for each in under_way]
    go_on.set()
    assert cancelled == [False, False, True], "what has not begun is not made"
    kept._closed.clear()
    kept._make_ahead(ids[:1], runs)  # its pool takes no more
    runs.close()


def test_the_garbage_collector_is_left_as_it_was() -> None:
    try:
        for was_on in (False, True):
            (gc.enable if was_on else gc.disable)()
            with pytest.raises(KeyError), _without_collection():
                assert not gc.isenabled()
                raise KeyError
            assert gc.isenabled() is was_on
    finally:
        gc.enable()


def test_a_received_trace_that_has_changed_is_the_newest_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming_traces, "MOST_KEPT", 2)
    ids = [f"{number:032x}" for number in (1, 2, 3)]
    taken = TraceStore(tmp_path, create=True)
    spans = [IncomingSpan(id, f"{1:016x}", "", "ask", 1, 2) for id in ids]
    taken.add(SpanPreparer(Redactor()).prepared(spans))
    found = IncomingTraces(tmp_path)
    first, _ = found.get(ids[0]), found.get(ids[1])
    taken.add_score(ids[0], "late", "judge", 1.0)
    assert found.get(ids[0]) is not first
    found.get(ids[2])
    assert list(found._kept) == [ids[0], ids[2]]
    taken.close()


def test_a_span_whose_messages_cannot_be_read_shows_its_data_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    span = IncomingSpan("1", "2", "", "odd", 1_000_000, 3_000_000, {"a": "é"})

    for error in (AttributeError, RecursionError, KeyError):

        def refuse(_: IncomingSpan, error: type[Exception] = error) -> None:
            raise error("x")

        monkeypatch.setattr(incoming_rows, "content_of", refuse)
        detail = incoming_rows.incoming_detail([StoredSpan(1, span, "span")], "span:0")
        assert (detail.title, detail.new, detail.answers, detail.num_before) == ("odd", (), (), 0)
        assert '"a": "é"' in detail.data and ("took", "0.002 s") in detail.facts
