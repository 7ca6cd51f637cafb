"""The resources of spans: each is there as long as a span of a trace names it, and no longer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.ingest import trace_store
from firsthand.ingest.alert_rules import Alert
from firsthand.ingest.cold_segments import drop_segment, read_sealed, seal
from firsthand.ingest.intake import MAX_ALERTS, Intake
from firsthand.ingest.retention import remove_beyond, remove_older, used_bytes
from firsthand.ingest.trace_store import ReadySpan, TraceStore
from firsthand.runs.database import Database, Schema
from received_spans import arrived, ready


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    made.read_sealed = read_sealed
    yield made
    made.close()


def of(program: str, trace: str, span: str = "1", *, start: int = 1, end: int = 2) -> ReadySpan:
    body = json.dumps({"service.name": program}).encode()
    return ready(trace, span, start=start, end=end, resource=(hashlib.sha256(body).digest(), body, program))


def kept(store: TraceStore) -> list[str]:
    return [
        json.loads(body)["service.name"] for (body,) in store.database.read("SELECT body FROM resources ORDER BY id")
    ]


def programs(store: TraceStore, trace: str) -> list[str]:
    return [each.span.resource["service.name"] for each in store.spans(trace)]


def test_a_flood_of_resources_goes_by_size_and_what_comes_after_it_stays(store: TraceStore) -> None:
    store.add([of("shop", "honest")])
    store.add([of(f"{number:08}" + "x" * 15_000, "flood", str(number)) for number in range(200)])
    arrived(store, honest=1, flood=2)
    most = 1 << 20
    assert used_bytes(store) > 3 * most
    remove_beyond(store, most)
    assert kept(store) == [] and used_bytes(store) <= most
    store.add([of("shop", "later")])
    assert remove_beyond(store, most) == 0 and programs(store, "later") == ["shop"]


def test_a_resource_goes_by_age_with_the_last_trace_that_names_it(store: TraceStore) -> None:
    store.add([of("shop", "a"), of("mail", "a", "2"), of("shop", "b"), of("bank", "c")])
    arrived(store, a=1, b=2, c=3)
    assert (
        remove_older(store, 10, now_s=11.5) == 1
        and kept(store) == ["shop", "bank"]
        and programs(store, "b") == ["shop"]
    )
    assert remove_older(store, 10, now_s=12.5) == 1 and kept(store) == ["bank"] and programs(store, "c") == ["bank"]


def test_a_store_that_is_open_beside_the_one_that_removes_keeps_the_resource_again(store: TraceStore) -> None:
    beside = TraceStore(store.home)
    store.add([of("shop", "a")])
    remove_beyond(beside, 0)
    beside.close()
    assert kept(store) == []
    store.add([of("shop", "b")])
    assert kept(store) == programs(store, "b") == ["shop"]


def test_spans_that_are_not_kept_leave_no_resource(store: TraceStore) -> None:
    store.add([of("shop", "a")])
    assert store.add([of("again", "a"), of("new", "a", "2"), of("again", "a", "2")]) == 1
    assert kept(store) == ["shop", "new"]
    store.add([of("begun", "a", "3", end=0)])
    store.add([of("ended", "a", "3"), of("begun", "a", "4")])
    assert kept(store) == ["shop", "new", "ended", "begun"] and programs(store, "a") == [
        "shop",
        "new",
        "ended",
        "begun",
    ]
    store.add([of("brief", "a", "5", end=0), of("ended", "a", "5"), of("brief", "a", "6")])
    assert kept(store) == ["shop", "new", "ended", "begun", "brief"]
    assert programs(store, "a")[4:] == ["ended", "brief"]


def test_the_last_ten_thousand_alerts_are_remembered(tmp_path: Path) -> None:
    intake = Intake(tmp_path)
    try:
        with intake.store.database.write() as connection:
            for seq in (1, 2, MAX_ALERTS):
                connection.execute("INSERT INTO alerts VALUES (?, 'r', 0, 's', 1, 'yes')", (seq,))
        intake._note(Alert("errors>0/1h", 1.0, "said", 2.0), "", 2.0)
        assert intake.store.database.read("SELECT seq FROM alerts") == [(2,), (MAX_ALERTS,), (MAX_ALERTS + 1,)]
    finally:
        intake.close()


def test_what_a_segment_names_is_there_until_it_goes(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    store.add([of("shop", "a"), of("mail", "a", "2"), of("shop", "b"), of("bank", "c")])
    arrived(store, a=1, b=2, c=3)
    assert seal(store, 0, now_s=1.5) == 2 and seal(store, 0, now_s=2.5) == 1
    assert remove_older(store, 0, now_s=0) == 0 and kept(store) == ["shop", "mail", "bank"]
    first, second = (file for (file,) in store.database.read("SELECT file FROM segments ORDER BY last_s"))
    drop_segment(store, first)
    assert kept(store) == ["shop", "bank"] and programs(store, "b") == ["shop"]
    drop_segment(store, second)
    assert kept(store) == ["bank"] and store.database.read("SELECT * FROM sealed_resources") == []


@pytest.mark.parametrize("sealed", [False, True])
def test_a_store_of_an_older_release_keeps_what_its_segments_may_name(tmp_path: Path, sealed: bool) -> None:
    old = trace_store.SCHEMA
    (tmp_path / "traces").mkdir()
    path = tmp_path / "traces" / "traces.sqlite"
    first = Schema(old.noun, old.application_id, old.migrations[:1], page_bytes=old.page_bytes)
    older = Database(path, create=True, schema=first)
    with older.write() as connection:
        for id in (1, 2):
            connection.execute("INSERT INTO resources VALUES (?, ?, ?)", (id, str(id), f'{{"service.name": "{id}"}}'))
        connection.execute(
            "INSERT INTO spans VALUES (1, 'a', '1', 0, '', 'n', 'span', '', 1, 2, NULL, '', 0, 0, 0, 0, 0, 2, '', '{}')"
        )
        if sealed:
            files = [("day=2026-01-01/00000000000001-00000001.parquet", 5.0), ("older", 4.0), ("old", 3.0)]
            connection.executemany("INSERT INTO segments VALUES (?1, 1, 1, ?2, ?2)", files)
    older.close()
    store = TraceStore(tmp_path)
    assert kept(store) == (["1", "2"] if sealed else ["2"])
    if sealed:
        drop_segment(store, "older")
        drop_segment(store, "old")
        assert kept(store) == ["1", "2"]
        drop_segment(store, files[0][0])
        assert kept(store) == ["2"]
    store.close()
