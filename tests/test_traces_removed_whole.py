"""Retention removes whole traces, no more than the size asks for, and a span is counted once after it was sealed too."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.errors import MissingExtra, StoreError
from firsthand.ingest import cold_segments, retention
from firsthand.ingest.cold_segments import drop_segment, read_sealed, seal
from firsthand.ingest.dialects.span_facts import SpanFacts
from firsthand.ingest.retention import remove_beyond, remove_older, used_bytes
from firsthand.ingest.trace_store import TraceStore
from received_spans import arrived, names, ready

COUNTED = SpanFacts(what="generate", prompt_tokens=100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    made.read_sealed = read_sealed
    yield made
    made.close()


def held(store: TraceStore, trace: str) -> list[str]:
    return [each.span.name for each in store.spans(trace)]


def segments(store: TraceStore) -> list[str]:
    return [file for (file,) in store.database.read("SELECT file FROM segments ORDER BY last_s, file")]


# -- by size --


def body(size: int) -> bytes:
    """A body that is larger than it would be packed to."""
    return b'{"a": "' + random.Random(size).randbytes(size // 2).hex().encode() + b'"}'


@pytest.mark.parametrize(("count", "spans", "size"), [(60, 4, 40_000), (3, 2, 400_000), (150, 30, 300)])
def test_a_store_above_its_size_loses_no_trace_more_than_it_must(
    store: TraceStore, count: int, spans: int, size: int
) -> None:
    for trace in range(count):
        store.add([ready(f"{trace:03}", str(number), body=body(size)) for number in range(spans)])
    arrived(store, **{f"{trace:03}": float(trace) for trace in range(count)})
    used, largest = used_bytes(store), spans * (size + retention._SPAN_BYTES) + 2 * 16384
    most = used - used // 5
    removed = remove_beyond(store, most)
    assert most - largest < used_bytes(store) <= most
    assert 0 < removed < count / 2 and names(store) == [f"{trace:03}" for trace in range(removed, count)]


def test_a_store_one_byte_above_its_size_loses_its_oldest_trace_alone(store: TraceStore) -> None:
    for trace in "abcd":
        store.add([ready(trace, str(number), body=body(40_000)) for number in range(3)])
    arrived(store, a=3.0, b=1.0, c=2.0, d=4.0)
    assert remove_beyond(store, used_bytes(store) - 1) == 1 and names(store) == ["a", "c", "d"]
    assert remove_beyond(store, used_bytes(store)) == 0


def test_a_trace_of_just_the_bytes_that_are_wanted_is_enough(store: TraceStore) -> None:
    for trace in "abc":
        store.add([ready(trace, "1", body=body(1000))])
    arrived(store, a=1.0, b=2.0, c=3.0)
    [(kept,)] = store.database.read("SELECT length(body) FROM spans WHERE trace = 'a'")
    assert retention._remove_hot(store, 9.0, kept + retention._SPAN_BYTES) == 1 and names(store) == ["b", "c"]
    assert retention._remove_hot(store, 9.0, kept + retention._SPAN_BYTES + 1) == 2


def test_traces_that_are_older_than_a_segment_go_before_it_and_younger_ones_after(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    store.add([ready(trace, str(number), body=body(40_000)) for trace in "abc" for number in range(2)])
    arrived(store, a=1.0, b=5.0, c=9.0)
    assert seal(store, 1.0, most=2, now_s=3.0) == 2  # a
    with store.database.write() as connection:
        connection.execute("UPDATE segments SET last_s = 7")
        connection.execute("UPDATE traces SET arrived_s = 7 WHERE trace = 'a'")
    sealed = store.database.read("SELECT bytes FROM segments")[0][0]
    assert remove_beyond(store, used_bytes(store) - 1) == 1 and names(store) == ["a", "c"]
    assert remove_beyond(store, used_bytes(store) - sealed) == 1 and names(store) == ["c"]


# -- sealed traces --


def sealed_with_a_late_span(store: TraceStore) -> None:
    """Trace a: two spans sealed at 1 s beside the quiet trace b, and a third one that arrived at 30 s."""
    long = b'{"times": [10, 20], "attributes": {"text": "' + b"x" * cold_segments.PACKED_BYTES + b'"}}'
    store.add([ready("a", "1", facts=COUNTED, body=long), ready("a", "2", parent="1", facts=COUNTED), ready("b", "1")])
    arrived(store, a=1.0, b=1.0)
    assert seal(store, 1.0, now_s=10.0) == 3
    store.add([ready("a", "3", parent="1", facts=COUNTED)])
    arrived(store, a=30.0)


def test_a_trace_that_received_spans_since_it_was_sealed_is_kept_whole(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    sealed_with_a_late_span(store)
    before = store.spans("a")
    assert remove_older(store, 20.0, now_s=40.0) == 1 and names(store) == ["a"]
    assert store.spans("a") == before and held(store, "a") == ["n1", "n2", "n3"]
    assert segments(store) == [] == names(store, "sealed") and names(store, "sealed_spans") == ["a"]
    size = store.database.read("SELECT length(body) FROM spans WHERE span = '1'")[0][0]
    assert size < cold_segments.PACKED_BYTES, "long bodies are packed again"
    assert store.add([ready("a", "2", parent="1", facts=COUNTED)]) == 0, "it is known still"
    assert seal(store, 1.0, now_s=50.0) == 3 and held(store, "a") == ["n1", "n2", "n3"]
    assert remove_older(store, 20.0, now_s=60.0) == 1 and names(store) == [] == names(store, "sealed_spans")


def test_a_trace_as_old_as_its_segment_goes_with_it_from_other_segments_too(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    sealed_with_a_late_span(store)
    store.add_score("a", "s", "x", 1.0)
    assert seal(store, 1.0, now_s=40.0) == 1
    first, second = segments(store)
    store.add([ready("a", "begun", end=0, resource=(b"e" * 32, b'{"p": 1}', ""))])
    arrived(store, a=30.0)
    drop_segment(store, second)
    assert names(store) == ["b"] and names(store, "spans") == [] == names(store, "scores")
    assert names(store, "sealed") == ["b"] == names(store, "sealed_spans") and segments(store) == [first]
    assert store.database.read("SELECT count(*) FROM resources") == [(1,)], "that of the first segment"
    assert store.add([ready("a", "1", facts=COUNTED)]) == 1 and held(store, "a") == ["n1"], "it begins anew"


def test_a_segment_that_cannot_be_read_goes_without_its_younger_traces(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    sealed_with_a_late_span(store)

    def unreadable(*_: object) -> None:
        raise StoreError("damaged")

    monkeypatch.setattr(cold_segments, "_rows_in", unreadable)
    assert remove_older(store, 20.0, now_s=40.0) == 1 and segments(store) == []
    assert held(store, "a") == ["n3"]


def test_a_segment_with_younger_traces_stays_where_duckdb_is_missing_and_others_go(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    sealed_with_a_late_span(store)
    store.add([ready("c", "1"), ready("d", "1")])
    arrived(store, c=2.0, d=3.0)
    assert seal(store, 1.0, most=1, now_s=10.0) == 1
    arrived(store, d=11.0)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "duckdb", None)
        said = "^reading sealed traces needs the package 'duckdb': pip install 'firsthand.cold.'"
        with pytest.raises(MissingExtra, match=said):
            remove_beyond(store, 0)
        assert names(store) == ["a", "b", "c", "d"], "none goes before one that has been quiet longer"
        with pytest.raises(MissingExtra, match=said):
            remove_older(store, 20.0, now_s=40.0)
        assert names(store) == ["a", "b"] and len(segments(store)) == 1, "what is due beside it has gone"
        assert remove_older(store, 39.5, now_s=40.0) == 0
    assert held(store, "a") == ["n1", "n2", "n3"] and remove_older(store, 20.0, now_s=40.0) == 1
    assert names(store) == ["a"] and held(store, "a") == ["n1", "n2", "n3"]


def test_spans_of_one_id_lie_beside_each_other_when_a_segment_gives_them_back(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    store.add([ready("a", "1", name="x")])
    store.add([ready("a", "1", name="y")])
    arrived(store, a=1.0)
    assert seal(store, 1.0, now_s=10.0) == 2
    store.add([ready("a", "1", name="z")])
    drop_segment(store, segments(store)[0])
    assert [(each.span.name, each.copy) for each in store.spans("a")] == [("x", 1), ("y", 2), ("z", 0)]


def test_a_span_that_is_sent_again_after_it_was_sealed_is_counted_once(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    sent = [ready("a", "1", facts=COUNTED), ready("a", "2", parent="1", facts=COUNTED)]
    assert store.add(sent) == 2
    arrived(store, a=1.0)
    assert seal(store, 1.0, now_s=10.0) == 2
    assert store.add(sent) == 0 and (store.summary("a").num_spans, store.summary("a").prompt_tokens) == (2, 200)
    assert store.summary("a").arrived_s == 1.0 and held(store, "a") == ["n1", "n2"]
    other = [ready("a", "3", parent="1"), sent[0], ready("a", "1", name="changed"), ready("b", "1")]
    assert store.add(other) == 3, "those of other ids, contents and traces are new"
    assert held(store, "a") == ["n1", "n2", "n3", "changed"] and held(store, "b") == ["n1"]


def test_a_span_without_its_end_is_not_sealed_and_its_end_replaces_it(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    store.add([ready("a", "1", facts=COUNTED), ready("a", "2", parent="1", end=0, facts=COUNTED)])
    arrived(store, a=1.0)
    assert seal(store, 1.0, now_s=10.0) == 1 and seal(store, 1.0, now_s=10.0) == 0
    assert store.add([ready("a", "2", parent="1", facts=COUNTED)]) == 0
    assert (store.summary("a").num_spans, store.summary("a").prompt_tokens) == (2, 200)
    assert [(each.span.name, each.span.end_ns) for each in store.spans("a")] == [("n1", 20), ("n2", 20)]


def test_no_score_is_kept_of_a_trace_that_was_removed_meanwhile(store: TraceStore) -> None:
    store.add([ready("a", "1")])
    store.add_score("a", "s", "x", 1.0)
    store.add_score("gone", "s", "x", 1.0)
    assert names(store, "scores") == ["a"]
