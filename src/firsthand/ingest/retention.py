"""Removes old traces: by age, and by the size of the store. Whole traces go, the longest quiet first."""

from __future__ import annotations

import re
import time

from firsthand.errors import ConfigError, MissingExtra
from firsthand.ingest.cold_segments import drop_segment
from firsthand.ingest.removed_traces import remove_traces
from firsthand.ingest.trace_store import TraceStore

_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_UNITS_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_PART = 200
_SPAN_BYTES = 2048
"""The room of a span besides its body, with its place in indexes: more than it takes, so that too few traces are removed at
once, and never too many.
"""
_FREE_BYTES = 32 << 20


def age_of(text: str, name: str = "keep") -> float:
    """The seconds of an age such as 30d, 12h or 2w; ConfigError for anything else."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower())
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"{name} is {text!r}: give a number with m, h, d or w, as in 30d")
    return float(int(found[1]) * _UNITS_S[found[2]])


def size_of(text: str, name: str = "keep_size") -> int:
    """The bytes of a size such as 500MB or 10GB; ConfigError for anything else."""
    found = re.fullmatch(r"(\d{1,6})(KB|MB|GB|TB)", text.strip().upper())
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"{name} is {text!r}: give a number with KB, MB, GB or TB, as in 10GB")
    return int(found[1]) * _UNITS_BYTES[found[2]]


def used_bytes(store: TraceStore) -> int:
    """Bytes of the spans that are kept: the used pages of the SQLite file, and the segments."""
    size, pages, free = _pages(store)
    segments = store.database.read("SELECT coalesce(sum(bytes), 0) FROM segments")[0][0]
    return int(size * (pages - free) + segments)


def remove_older(store: TraceStore, age_s: float, *, now_s: float | None = None) -> int:
    """Remove traces whose last span arrived longer ago; returns their number.

    MissingExtra, once all others are removed, if a segment stays that only DuckDB can read, which is not installed.
    """
    cutoff = (time.time() if now_s is None else now_s) - age_s
    removed, missing = 0, None
    for (name,) in store.database.read("SELECT file FROM segments WHERE last_s < ?", (cutoff,)):
        before = _count(store)
        try:
            drop_segment(store, name)
        except MissingExtra as error:
            missing = error
        removed += before - _count(store)
    while count := _remove_hot(store, cutoff):
        removed += count
    with store.database.write() as connection:
        connection.execute("DELETE FROM alerts WHERE at_s < ?", (cutoff,))
    if missing is not None:
        raise missing
    return removed


def remove_beyond(store: TraceStore, most_bytes: int) -> int:
    """Remove the traces that have been quiet longest until the rest takes at most so many bytes; returns their number.

    MissingExtra, before younger ones are removed, at a segment that only DuckDB can read, which is not installed.
    """
    removed = 0
    while used_bytes(store) > most_bytes:
        oldest = store.database.read("SELECT file, last_s FROM segments ORDER BY last_s, file LIMIT 1")
        file, cutoff = oldest[0] if oldest else ("", float("inf"))
        if count := _remove_hot(store, cutoff, used_bytes(store) - most_bytes):
            removed += count
        elif oldest:
            before = _count(store)
            drop_segment(store, file)
            removed += before - _count(store)
        else:
            break
    return removed


def give_back(store: TraceStore) -> bool:
    """Give the room of what was removed back to the disk, where it is more than half of the file; True if it did."""
    size, pages, free = _pages(store)
    if free * 2 < pages or free * size < _FREE_BYTES:
        return False
    store.database.read("VACUUM")
    store.database.read("PRAGMA wal_checkpoint(TRUNCATE)")
    return True


def _remove_hot(store: TraceStore, cutoff: float, wanted_bytes: float = float("inf")) -> int:
    """Remove some of the traces of which no segment holds anything, no more than free these bytes; returns how many."""
    with store.database.write() as connection:
        rows = connection.execute(
            "SELECT trace FROM traces WHERE arrived_s < ? AND NOT EXISTS"
            " (SELECT 1 FROM sealed WHERE sealed.trace = traces.trace) ORDER BY arrived_s LIMIT ?",
            (cutoff, _PART),
        ).fetchall()
        chosen: list[str] = []
        for (trace,) in rows:
            if wanted_bytes <= 0:
                break
            chosen.append(trace)
            sql = f"SELECT coalesce(sum(length(body) + {_SPAN_BYTES}), 0) FROM spans WHERE trace = ?"
            wanted_bytes -= connection.execute(sql, (trace,)).fetchone()[0]
        remove_traces(connection, chosen)
    return len(chosen)


def _pages(store: TraceStore) -> tuple[int, int, int]:
    """Bytes of a page, number of pages, and how many of them are free."""
    size, pages, free = (
        store.database.read(f"PRAGMA {each}")[0][0] for each in ("page_size", "page_count", "freelist_count")
    )
    return int(size), int(pages), int(free)


def _count(store: TraceStore) -> int:
    return int(store.database.read("SELECT count(1) FROM traces")[0][0])
