"""Envelopes of long curves: the smallest and the largest value in each of a few hundred columns, computed inside SQLite.

A plot is a few hundred pixels wide, so the extremes of each pixel column draw the same picture as all values, outliers
included, and a curve of 50,000 values never leaves the file.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from firsthand.runs.database import Database
from firsthand.runs.track import Curve, Track

PARTS = ("at", "means")
_Point = tuple[int, float, float, float]
"""Step, value, time and mean."""


@dataclass(frozen=True)
class Envelope:
    """A curve thinned to columns of equal width in steps."""

    steps: tuple[int, ...]
    """Growing; two for each column that has several values."""
    values: tuple[float, ...]
    """The smallest and the largest value of a column; NaN where a value in it is NaN."""
    at: tuple[float, ...]
    """When the first value of the column was logged: seconds since 1970."""
    means: tuple[float, ...]
    """The mean of the column's values, for smoothing."""


def envelope(track: Track, name: str, columns: int, parts: Collection[str] = PARTS) -> Envelope:
    """The envelope of a metric in at most so many columns; all its values if it has no more than two for each.

    Of the `parts`, those that are not asked for are empty, which takes a sixth less time. The newest value is exact. Where
    values were logged twice at one step or left behind by a rewind, the curve is read whole and the values that count are
    used.
    """
    if track.has_pending:
        track.flush()
    database = track.run.database
    found = None if _has_rewinds(database) else _columns(database, name, columns, parts)
    if found is None:
        found = _of_curve(track.curve(name), columns)
    return replace(found, **{part: () for part in PARTS if part not in parts})


def state(database: Database) -> tuple[int, int]:
    """Tells whether anything was logged since: the last number and the last rewind."""
    rows = database.read(
        "SELECT (SELECT coalesce(max(seq), 0) FROM metrics), (SELECT coalesce(max(seq), 0) FROM rewinds)"
    )
    return int(rows[0][0]), int(rows[0][1])


def _has_rewinds(database: Database) -> bool:
    return bool(database.read("SELECT EXISTS (SELECT 1 FROM rewinds)")[0][0])


_RANGE = (
    "SELECT (SELECT step FROM metrics WHERE name = ?1 ORDER BY step LIMIT 1),"
    " (SELECT step FROM metrics WHERE name = ?1 ORDER BY step DESC LIMIT 1),"
    " (SELECT count(DISTINCT step) FROM metrics WHERE name = ?1)"
)
_FIRST = "(SELECT {} FROM metrics WHERE name = ?1 AND step >= ?2 + (c.seq - 1) * ?3 ORDER BY step LIMIT 1)"
_COLUMNS = (
    f"SELECT {_FIRST.format('step')}, {{at}}, min(m.value), max(m.value), {{mean}}, count(*), count(m.value),"
    " ?2 + c.seq * ?3 - 1"
    " FROM metrics AS c CROSS JOIN metrics AS m"
    " WHERE c.seq BETWEEN 1 AND ?4 AND m.name = ?1 AND m.step >= ?2 + (c.seq - 1) * ?3 AND m.step < ?2 + c.seq * ?3"
    " GROUP BY c.seq"
)
"""The numbers of the first rows stand for those of the columns: each is then a range of the index, and nothing is sorted."""


def _columns(database: Database, name: str, columns: int, parts: Collection[str]) -> Envelope | None:
    """The envelope by one query over the columns; None if it has few values, or two at one step.

    One statement without sorting, for SQLite then computes outside the interpreter's lock, and without its own for memory:
    curves of several runs in several threads.
    """
    low, high, distinct = database.read(_RANGE, (name,))[0]
    if distinct <= 2 * columns:
        return None
    width = max(1, math.ceil((high - low + 1) / columns))
    whole = (high - low) // width  # columns before the last one, whose newest value is exact
    points: list[_Point] = []
    counted = 0
    sql = _COLUMNS.format(
        at=_FIRST.format("at") if "at" in parts else "NULL", mean="avg(m.value)" if "means" in parts else "NULL"
    )
    for first, at, least, most, mean, total, known, end in database.read(sql, (name, low, width, whole)):
        counted += total
        if known < total:
            points.append((first, math.nan, at, math.nan))
        elif total == 1:
            points.append((first, least, at, mean))
        else:
            points.append((first, least, at, mean))
            points.append((end, most, at, mean))
    tail = database.read(
        "SELECT step, value, at FROM metrics WHERE name = ? AND step >= ? ORDER BY step, seq",
        (name, low + whole * width),
    )
    if counted + len(tail) != distinct:  # two values at one step, or rows that are not numbered from 1
        return None
    steps, values, at = zip(*tail, strict=True)
    points += _newest(steps, [math.nan if value is None else value for value in values], at)
    return Envelope(*(tuple(column) for column in zip(*points, strict=True)))


def _of_curve(curve: Curve, columns: int) -> Envelope:
    """The envelope of a curve that is in memory."""
    size = len(curve.steps)
    if size <= 2 * columns:
        return Envelope(curve.steps, curve.values, curve.at, curve.values)
    low, high = curve.steps[0], curve.steps[-1]
    width = max(1, math.ceil((high - low + 1) / columns))
    points: list[_Point] = []
    position = 0
    while position < size:
        start = low + (curve.steps[position] - low) // width * width
        if start + width > high:
            points += _newest(curve.steps[position:], curve.values[position:], curve.at[position:])
            break
        end = bisect_left(curve.steps, start + width, position)
        values, first, at = curve.values[position:end], curve.steps[position], curve.at[position]
        if any(math.isnan(value) for value in values):
            points.append((first, math.nan, at, math.nan))
        elif len(values) == 1:
            points.append((first, values[0], at, values[0]))
        else:
            mean = math.fsum(values) / len(values)
            points += [(first, min(values), at, mean), (start + width - 1, max(values), at, mean)]
        position = end
    return Envelope(*(tuple(column) for column in zip(*points, strict=True)))


def _newest(steps: Sequence[int], values: Sequence[float], at: Sequence[float]) -> list[_Point]:
    """The last column: its extremes, and its last value as it was logged; all its values if there are three or fewer."""
    if len(steps) <= 3 or any(math.isnan(value) for value in values):
        return [(step, value, when, value) for step, value, when in zip(steps, values, at, strict=True)]
    mean = math.fsum(values) / len(values)
    return [
        (steps[0], min(values), at[0], mean),
        (steps[-1] - 1, max(values), at[0], mean),
        (steps[-1], values[-1], at[-1], values[-1]),
    ]
