"""Seals old traces: their spans move from SQLite into Parquet segments, immutable files that DuckDB reads. The extra
`cold`.

A segment is written beside its name, synced, renamed, and only then entered into the store in the transaction that
removes the spans there. A kill at any moment leaves the spans in exactly one of the two; a file that no row names is
removed at the next start. Reading looks at SQLite first and at segments after it, so a trace that is sealed meanwhile
is found twice, never not.

A span that was sent before its end stays in SQLite, where its end will replace it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firsthand.errors import MissingExtra, StoreError, reason_of
from firsthand.ingest.kept_resources import KeptResources
from firsthand.ingest.redaction import MAX_BODY_BYTES
from firsthand.ingest.removed_traces import remove_traces
from firsthand.ingest.sealed_spans import SealedSpans
from firsthand.ingest.trace_store import PACKED_BYTES, SEGMENTS, SPAN_COLUMNS, TraceStore
from firsthand.system.own_file import expect_own_file, expect_own_folder, is_own_folder

SEGMENT_SPANS = 50_000
"""Smaller files make queries over many slow; a trace is divided by its bytes alone."""
SEGMENT_BYTES = 128 << 20
"""Bodies of a segment, unpacked: they are packed a thousand times in SQLite, and sealing has them all in memory."""
_TYPES = {
    "seq": "BIGINT", "copy": "INTEGER", "start_ns": "BIGINT", "end_ns": "BIGINT", "prompt_tokens": "BIGINT",
    "cached_tokens": "BIGINT", "completion_tokens": "BIGINT", "cost_usd": "DOUBLE", "redactions": "INTEGER",
    "resource": "BIGINT",
}  # fmt: skip
_DAY = re.compile(r"day=[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SEGMENT = re.compile(rf"{_DAY.pattern}/[0-9]{{14}}-[0-9a-f]{{8}}\.parquet")
_LEFT = re.compile(r"(tmp_)?[0-9]{14}-[0-9a-f]{8}\.(parquet|part)|tmp[a-z0-9_]{8}\.part")
"""The names of files that `_write` makes on its way."""
_READ = tuple(name for name in SPAN_COLUMNS if name != "digest")
_COPY, _RESOURCE, _DIGEST = (SPAN_COLUMNS.index(name) for name in ("copy", "resource", "digest"))
_PUT_BACK = (
    f"INSERT OR IGNORE INTO spans ({', '.join(SPAN_COLUMNS)}) VALUES"
    f" ({', '.join(f'?{place}' for place in range(1, len(SPAN_COLUMNS) + 1))})"
)


def check_cold(purpose: str = "sealing traces into segments") -> None:
    """MissingExtra if DuckDB is not installed."""
    try:
        import duckdb  # noqa: F401
    except ImportError:
        raise MissingExtra("duckdb", "cold", purpose) from None


def seal(store: TraceStore, older_than_s: float, *, most: int = SEGMENT_SPANS, now_s: float | None = None) -> int:
    """Move the spans of traces that have been quiet for so many seconds into one segment; returns the number of spans."""
    check_cold()
    cutoff = (time.time() if now_s is None else now_s) - older_than_s
    rows = store.database.read(
        "SELECT trace, arrived_s, num_spans FROM traces WHERE arrived_s < ? AND EXISTS"
        " (SELECT 1 FROM spans WHERE spans.trace = traces.trace AND end_ns > 0) ORDER BY arrived_s LIMIT ?",
        (cutoff, most),
    )
    chosen: list[str] = []
    spans = 0
    for trace, _, count in rows:
        if chosen and spans + count > most:
            break
        chosen.append(trace)
        spans += count
    if not chosen:
        return 0
    times = {trace: arrived for trace, arrived, _ in rows}
    held = _held(store, chosen)
    if not held:
        return 0
    sealed = {row[1] for row in held}
    last_s = max(times[trace] for trace in sealed)
    day = datetime.fromtimestamp(last_s, UTC).strftime("%Y-%m-%d")
    name = f"day={day}/{int(last_s * 1000):014d}-{secrets.token_hex(4)}.parquet"
    path = store.folder / SEGMENTS / name
    _write(path, held)
    with store.database.write() as connection:
        connection.execute(
            "INSERT INTO segments VALUES (?, ?, ?, ?, ?)",
            (name, len(held), path.stat().st_size, min(times[trace] for trace in sealed), last_s),
        )
        connection.executemany("INSERT INTO sealed VALUES (?, ?)", [(trace, name) for trace in sealed])
        KeptResources(connection).seal(name, (row[_RESOURCE] for row in held))
        SealedSpans(connection).remember((row[1], row[2], row[_DIGEST]) for row in held)
        connection.executemany("DELETE FROM spans WHERE seq = ?", [(row[0],) for row in held])
    return len(held)


def seal_round(store: TraceStore, older_than_s: float, *, now_s: float | None = None) -> int:
    """Seal segment after segment, until nothing is due or SEGMENT_SPANS spans are sealed; returns their number."""
    done = 0
    while done < SEGMENT_SPANS and (sealed := seal(store, older_than_s, now_s=now_s)):
        done += sealed
    return done


def _held(store: TraceStore, traces: Sequence[str]) -> list[tuple[Any, ...]]:
    """The spans of the first traces whose bodies take SEGMENT_BYTES together; a span that takes more is alone."""
    held: list[tuple[Any, ...]] = []
    taken = 0
    for trace in traces:
        for (seq,) in store.database.read(
            "SELECT seq FROM spans WHERE trace = ? AND end_ns > 0 ORDER BY seq", (trace,)
        ):
            for row in store.database.read(f"SELECT {', '.join(SPAN_COLUMNS)} FROM spans WHERE seq = ?", (seq,)):
                taken += _unpacked_bytes(row[-1])
                if held and taken > SEGMENT_BYTES:
                    return held
                held.append(row)
    return held


def _unpacked_bytes(body: bytes) -> int:
    """The size of a body, a mebibyte in memory at a time."""
    if body[:1] == b"{":
        return len(body)
    stream, size = zlib.decompressobj(), 0
    while body and size < MAX_BODY_BYTES and (part := stream.decompress(body, 1 << 20)):
        size, body = size + len(part), stream.unconsumed_tail
    return size


def read_sealed(store: TraceStore, trace: str) -> list[tuple[Any, ...]]:
    """The spans of a trace that lie in segments, as rows of the store's columns."""
    files = [row[0] for row in store.database.read("SELECT file FROM sealed WHERE trace = ? ORDER BY file", (trace,))]
    if not files:
        return []
    found = [row for name in files for row in _rows_in(store, name, [trace])]
    return sorted(found, key=lambda row: row[0])  # a trace may be divided


def _rows_in(store: TraceStore, name: str, traces: Sequence[str]) -> list[tuple[Any, ...]]:
    """The spans of some traces that lie in one segment, as rows of _READ in the order of their arrival."""
    check_cold("reading sealed traces")
    import duckdb

    if (path := _path(store, name)) is None:
        raise store.database.damaged("it names a file that is no segment")
    expect_own_folder(path.parent)
    expect_own_file(path)
    try:
        with duckdb.connect() as connection:
            wanted = ", ".join("?" * len(traces))
            sql = f"SELECT {', '.join(_READ)}, packed FROM read_parquet(?) WHERE trace IN ({wanted}) ORDER BY seq"
            rows = connection.execute(sql, [str(path), *traces]).fetchall()
    except duckdb.Error as error:
        raise StoreError(
            f"the segment {path} cannot be read ({str(error).splitlines()[0][:200]}): restore it from a copy"
        ) from None
    return [(*row[: len(_READ) - 1], _bytes(row[-2], row[-1])) for row in rows]


def remove_orphans(store: TraceStore) -> int:
    """Remove files that were written and never entered, as a kill leaves them; returns their number."""
    known = {row[0] for row in store.database.read("SELECT file FROM segments")}
    folder = store.folder / SEGMENTS
    removed = 0
    for day in folder.glob("day=*"):
        if not _DAY.fullmatch(day.name) or not is_own_folder(day):
            continue
        for path in day.iterdir():
            is_ours = _LEFT.fullmatch(path.name) and path.is_file() and not path.is_symlink()
            if is_ours and f"{day.name}/{path.name}" not in known:
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def _path(store: TraceStore, name: object) -> Path | None:
    """The file of a segment by its row, which may come from anyone; None for a name that `seal` does not give."""
    return store.folder / SEGMENTS / name if isinstance(name, str) and _SEGMENT.fullmatch(name) else None


def drop_segment(store: TraceStore, name: str) -> None:
    """Remove a segment and its traces. One that has received spans since is as young as they are: its spans go back into
    SQLite, unless the segment cannot be read. A file that is not ours stays. MissingExtra, and nothing is removed, if there
    are such traces and DuckDB is not installed.
    """
    with store.database.write() as connection:
        found = connection.execute(
            "SELECT trace, coalesce(arrived_s > last_s, 0) FROM sealed LEFT JOIN traces USING (trace)"
            " LEFT JOIN segments USING (file) WHERE file = ?",
            (name,),
        ).fetchall()
        younger = [trace for trace, is_younger in found if is_younger]
        remove_traces(connection, (trace for trace, is_younger in found if not is_younger))
        if younger:
            with suppress(StoreError):  # those spans are lost already
                _put_back(connection, _rows_in(store, name, younger))
        connection.execute("DELETE FROM sealed WHERE file = ?", (name,))
        connection.execute("DELETE FROM segments WHERE file = ?", (name,))
        KeptResources(connection).drop(name)
    path = _path(store, name)
    if path is None or not is_own_folder(path.parent):
        return
    path.unlink(missing_ok=True)
    with suppress(OSError):  # other segments of the day
        path.parent.rmdir()


def _put_back(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert sealed spans again. They have no digest: that they were sealed is remembered."""
    for row in rows:
        *columns, body = row
        taken = "SELECT coalesce(max(copy) + 1, 0) FROM spans WHERE trace = ? AND span = ?"
        columns[_COPY] = max(columns[_COPY], connection.execute(taken, row[1:3]).fetchone()[0])
        packed = zlib.compress(body, 1) if len(body) > PACKED_BYTES else body
        connection.execute(_PUT_BACK, (*columns, b"", packed))


def _write(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write rows as a Parquet file that is there whole or not at all."""
    import duckdb

    expect_own_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    expect_own_file(part)
    columns = {name: _TYPES.get(name, "VARCHAR") for name in _READ} | {"packed": "VARCHAR"}
    largest = 1 << 20
    with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=path.parent, suffix=".part", delete=False) as lines:
        for row in rows:
            body = dict(zip(SPAN_COLUMNS, row, strict=True))
            del body["digest"]
            body["body"], body["packed"] = _texts(body["body"])
            line = json.dumps(body, ensure_ascii=True)
            largest = max(largest, len(line) + 1)
            lines.write(line + "\n")
    try:
        with duckdb.connect() as connection:
            types = "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items()) + "}"
            source = f"read_json(?, format='newline_delimited', columns={types}, maximum_object_size={2 * largest})"
            connection.execute("SET threads = 1")
            connection.execute("SET preserve_insertion_order = true")
            target = str(part).replace("'", "''")
            connection.execute(
                f"COPY (SELECT * FROM {source} ORDER BY trace, seq) TO '{target}' (FORMAT parquet, COMPRESSION zstd,"
                " ROW_GROUP_SIZE 5000)",
                [lines.name],
            )
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (duckdb.Error, OSError) as error:
        part.unlink(missing_ok=True)
        raise StoreError(
            f"the segment {path} cannot be written ({reason_of(error).splitlines()[0][:200]}): make room"
        ) from None
    finally:
        Path(lines.name).unlink(missing_ok=True)


def _texts(body: bytes) -> tuple[str | None, str | None]:
    """A body as text, or in base64 where it is not UTF-8."""
    raw = body if body[:1] == b"{" else zlib.decompressobj().decompress(body, MAX_BODY_BYTES)
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        return None, base64.b64encode(raw).decode("ascii")


def _bytes(body: str | None, packed: str | None) -> bytes:
    return body.encode("utf-8") if body is not None else base64.b64decode(packed or "")
