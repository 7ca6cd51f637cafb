"""Segments of sealed spans, and what goes by age and by size, each on a small case."""

from __future__ import annotations

import base64
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.ingest import cold_segments, retention
from firsthand.ingest.cold_segments import _bytes, _texts, _write, drop_segment, read_sealed, remove_orphans, seal
from firsthand.ingest.retention import _count, _pages, _remove_hot, give_back, remove_beyond, remove_older, used_bytes
from firsthand.ingest.trace_store import SPAN_COLUMNS, TraceStore
from received_spans import arrived, names, ready


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


# -- segments --


def test_bodies_are_texts_or_base64_in_a_segment(tmp_path: Path) -> None:
    lone = b'{"a":"\xed\xa0\x80"}'
    assert _texts(b'{"a": "\xc3\xa9"}') == ('{"a": "é"}', None) and _texts(zlib.compress(b'{"b": 1}')) == (
        '{"b": 1}',
        None,
    )
    assert _texts(lone) == (None, base64.b64encode(lone).decode()) == _texts(zlib.compress(lone))
    assert _bytes("é", None) == b"\xc3\xa9" and _bytes(None, base64.b64encode(lone).decode()) == lone
    assert _bytes("", "eA==") == b"" and _bytes(None, None) == b""


@pytest.mark.slow
def test_a_segment_holds_the_rows_of_its_traces_and_goes_with_them(tmp_path: Path) -> None:
    store = TraceStore(tmp_path / "it's", create=True)
    store.add(
        [
            ready("b", "1", body=b'{"a":"\xed\xa0\x80"}', error="é"),
            ready("a", "1", body=zlib.compress(b"{}")),
            ready("b", "2"),
        ]
    )
    columns = ", ".join(SPAN_COLUMNS)
    rows = store.database.read(f"SELECT {columns} FROM spans ORDER BY seq")
    folder = store.folder / "segments"
    _write(folder / "day=2026-01-01" / "00000000000001-00000001.parquet", rows)
    assert [path.name for path in (folder / "day=2026-01-01").iterdir()] == ["00000000000001-00000001.parquet"], (
        "nothing else is left"
    )
    with store.database.write() as connection:
        connection.executemany(
            "INSERT INTO sealed VALUES (?, ?)",
            [
                ("b", "day=2026-01-01/00000000000001-00000001.parquet"),
                ("c", "day=2026-01-01/00000000000001-00000002.parquet"),
            ],
        )
        connection.execute(
            "INSERT INTO segments VALUES ('day=2026-01-01/00000000000001-00000001.parquet', 3, 1000, 1, 9e9)"
        )
    import duckdb

    with duckdb.connect() as connection:
        file = str(folder / "day=2026-01-01" / "00000000000001-00000001.parquet")
        lying = connection.execute(
            "SELECT trace, seq, copy, start_ns, cost_usd, packed IS NULL FROM read_parquet(?)", [file]
        )
        assert lying.fetchall() == [("a", 2, 0, 10, 0.0, True), ("b", 1, 0, 10, 0.0, False), ("b", 3, 0, 10, 0.0, True)]
    digestless = [(*row[:-2], row[-1]) for row in rows]
    assert read_sealed(store, "b") == [digestless[0], digestless[2]] and read_sealed(store, "a") == []
    with pytest.raises(
        StoreError, match=r"the segment .*00000002\.parquet cannot be read \(.*\): restore it from a copy"
    ):
        read_sealed(store, "c")
    size, pages, free = _pages(store)
    assert size == 16384 and used_bytes(store) == size * (pages - free) + 1000
    for name in ("00000000000001-00000003.parquet", "tmpabcd1234.part", "four.txt"):
        (folder / "day=2026-01-01" / name).write_text("")
    assert remove_orphans(store) == 2 and remove_orphans(store) == 0
    assert sorted(path.name for path in (folder / "day=2026-01-01").iterdir()) == [
        "00000000000001-00000001.parquet",
        "four.txt",
    ]
    store.add_score("b", "s", "x", 1.0)
    with store.database.write() as connection:
        connection.execute("DELETE FROM spans WHERE trace = 'b'")
        connection.execute("INSERT INTO sealed VALUES ('a', 'day=2026-01-01/00000000000001-00000001.parquet')")
    drop_segment(store, "day=2026-01-01/00000000000001-00000001.parquet")
    assert (names(store), names(store, "sealed"), names(store, "scores"), names(store, "spans")) == (
        [],
        ["c"],
        [],
        [],
    )
    assert store.database.read("SELECT count(*) FROM segments") == [(0,)]
    assert [path.name for path in (folder / "day=2026-01-01").iterdir()] == ["four.txt"]
    (folder / "day=2026-01-01" / "four.txt").unlink()
    drop_segment(store, "day=2026-01-01/00000000000001-00000004.parquet")
    assert not (folder / "day=2026-01-01").exists()
    store.close()


@pytest.mark.slow
def test_a_segment_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    row = (
        1,
        "t",
        "s",
        0,
        "",
        "n",
        "span",
        "",
        1,
        2,
        None,
        "",
        0,
        0,
        0,
        0.0,
        0,
        1,
        b"d",
        zlib.compress(b"\x01" * 5_700_000, 1),
    )
    _write(tmp_path / "large.parquet", [(*row[:-1], b"{}"), row])  # a line of 34 megabytes, for \x01 is written \u0001
    assert [path.name for path in tmp_path.iterdir()] == ["large.parquet"]
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError, match=r"the segment .*there cannot be written \(Is a directory\): make room"):
        _write(tmp_path / "there", [(*row[:-1], b"{}")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.parquet", "there"], "nothing beside it is left"


def test_whole_traces_are_sealed_while_they_fit(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "duckdb", None)
        assert read_sealed(store, "a") == [], "a trace of which nothing is sealed needs no extra"
    store.add([ready(trace, str(number)) for trace, count in (("a", 2), ("b", 2), ("c", 1)) for number in range(count)])
    arrived(store, a=30.5, b=10.25, c=50.0)
    assert seal(store, 10.0, now_s=20.25) == 0, "one that has been quiet for exactly so long is not older"
    assert seal(store, 10.0, most=4, now_s=61.0) == 4, "the third is old enough and does not fit"
    (row,) = store.database.read("SELECT file, num_spans, first_s, last_s FROM segments")
    assert row[1:] == (4, 10.25, 30.5) and row[0].startswith("day=1970-01-01/00000000030500-")
    assert store.database.read("SELECT trace, file FROM sealed ORDER BY trace") == [("a", row[0]), ("b", row[0])]
    assert names(store, "spans") == ["c"] and names(store) == ["a", "b", "c"]
    assert [each[:3] for each in read_sealed(store, "b")] == [(3, "b", "0"), (4, "b", "1")]
    assert seal(store, 10.0, now_s=60.0) == 0 and seal(store, 9.9, now_s=60.0) == 1


# -- age and size --


def test_old_traces_go_in_parts_with_all_that_belongs_to_them(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PART", 2)
    store.add([ready(trace, "1") for trace in "abcde"])
    arrived(store, a=30.0, b=10.0, c=20.0, d=5.0, e=40.0)
    for trace in "ab":
        store.add_score(trace, "s", "x", 1.0)
    with store.database.write() as connection:
        connection.execute("INSERT INTO sealed VALUES ('d', 'f')")
        connection.executemany("INSERT INTO alerts VALUES (NULL, 'r', 1, 's', ?, 'yes')", [(29.9,), (30.0,)])
    assert (
        _remove_hot(store, 35.0) == 2
        and names(store) == names(store, "spans") == ["a", "d", "e"]
        and _count(store) == 3
    )
    assert names(store, "scores") == ["a"] and _remove_hot(store, 30.0) == 0
    assert remove_older(store, 10.0, now_s=40.5) == 1 and names(store) == ["d", "e"]
    assert store.database.read("SELECT at_s FROM alerts") == [] and names(store, "scores") == []
    assert remove_beyond(store, used_bytes(store)) == 0 and remove_beyond(store, 0) == 1 and names(store) == ["d"]


def test_room_is_given_back_where_more_than_half_is_free(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_FREE_BYTES", 16384 * 20)
    store.add([ready("t", str(number), body=b"{" + bytes(16_000)) for number in range(60)])
    assert give_back(store) is False
    size, before, _ = _pages(store)
    with store.database.write() as connection:
        connection.execute("DELETE FROM spans WHERE seq > 35")
    assert _pages(store)[2] >= 20 and give_back(store) is False, "less than half of the file"
    with store.database.write() as connection:
        connection.execute("DELETE FROM spans")
    monkeypatch.setattr(retention, "_FREE_BYTES", _pages(store)[2] * size + 1)
    assert give_back(store) is False
    monkeypatch.setattr(retention, "_FREE_BYTES", _pages(store)[2] * size)
    assert give_back(store) is True and _pages(store)[2] == 0 and _pages(store)[1] < before / 2
    assert (store.folder / "traces.sqlite").stat().st_size == size * _pages(store)[1]
    assert give_back(store) is False


def test_of_a_segment_and_a_trace_of_one_age_the_segment_goes_first(store: TraceStore) -> None:
    store.add([ready(trace, "1") for trace in "ab"])
    arrived(store, a=9.0, b=9.0)
    with store.database.write() as connection:
        connection.execute("DELETE FROM spans WHERE trace = 'a'")
        connection.execute("INSERT INTO sealed VALUES ('a', 'day=2026-01-01/f.parquet')")
        connection.execute("INSERT INTO segments VALUES ('day=2026-01-01/f.parquet', 1, 5000000, 9, 9)")
    assert remove_beyond(store, used_bytes(store) - 5_000_000) == 1 and names(store) == names(store, "spans") == ["b"]


@pytest.mark.slow
def test_a_segment_ends_at_its_bytes_unpacked_and_a_trace_goes_on_in_the_next(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zlib.compress(b'{"a": "' + b"a" * 5_000_000 + b'"}')
    assert cold_segments._unpacked_bytes(packed) == 5_000_009 and cold_segments._unpacked_bytes(b"{}") == 2
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    monkeypatch.setattr(cold_segments, "SEGMENT_BYTES", 300)
    body = zlib.compress(b'{"a": "' + b"a" * 141 + b'"}')  # 150 bytes
    long = zlib.compress(b'{"a": "' + b"a" * 400 + b'"}')
    store.add([ready("a", str(n), body=body) for n in range(3)] + [ready("b", "9", body=long)])
    arrived(store, a=1, b=2)
    assert cold_segments.seal(store, 1.0, now_s=9) == 2, "two of 150 bytes are 300"
    assert cold_segments.seal_round(store, 1.0, now_s=9) == 2 and names(store, "spans") == []
    assert [row[0] for row in read_sealed(store, "a")] == [1, 2, 3] and len(read_sealed(store, "b")) == 1
    assert len(store.database.read("SELECT file FROM segments")) == 3
