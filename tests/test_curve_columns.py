"""Envelopes of small curves, every point by hand: inside SQLite, in memory, and the column of the newest value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from firsthand.runs import store
from firsthand.runs.curve_envelope import PARTS, Envelope, _columns, _has_rewinds, _newest, _of_curve, envelope, state
from firsthand.runs.database import Database
from firsthand.runs.track import Curve, Track

CURVE = {10: 3.0, 12: 1.0, 16: 5.0, 17: 2.0, 24: 4.0, 25: 9.0, 27: -1.0, 28: 6.0}
"""In three columns each is ceil(19 / 3) = 7 steps wide: 10 to 16, 17 to 23, and the last from 24 on."""
WHOLE = Envelope(
    steps=(10, 16, 17, 24, 27, 28),
    values=(1.0, 5.0, 2.0, -1.0, 9.0, 6.0),
    at=(110.0, 110.0, 117.0, 124.0, 124.0, 128.0),
    means=(3.0, 3.0, 2.0, 4.5, 4.5, 6.0),
)
"""The least at a column's first step, the greatest at its last; before the newest value they stand one step earlier."""


def insert(database: Database, name: str, values: Mapping[int, float | None]) -> None:
    with database.write() as connection:
        for step, value in values.items():
            row = (name, step, value, 100.0 + step)
            connection.execute("INSERT INTO metrics (name, step, value, at) VALUES (?, ?, ?, ?)", row)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "run.sqlite", create=True)
    yield made
    made.close()


def in_memory(values: Mapping[int, float]) -> Curve:
    return Curve("loss", tuple(values), tuple(values.values()), tuple(100.0 + step for step in values))


def test_a_curve_in_the_file_has_the_extremes_and_the_mean_of_each_column(database: Database) -> None:
    assert (state(database), _has_rewinds(database)) == ((0, 0), False)
    insert(database, "a loss", {step: 99.0 for step in range(10, 29)})
    insert(database, "loss", CURVE)
    insert(database, "z loss", {step: -99.0 for step in range(10, 29)})
    assert state(database) == (19 + 8 + 19, 0)
    assert _columns(database, "loss", 3, PARTS) == WHOLE
    assert _columns(database, "loss", 4, PARTS) is None, "eight values are shown whole"
    assert _columns(database, "none", 3, PARTS) is None
    without = _columns(database, "loss", 3, ())
    assert without is not None
    assert (without.steps, without.values, without.at[0], without.means[:3]) == (
        WHOLE.steps, WHOLE.values, None, (None, None, None),
    )  # fmt: skip
    insert(database, "loss", {12: 7.0})
    assert _columns(database, "loss", 3, PARTS) is None, "two values stand at one step"
    with database.write() as connection:
        connection.execute("INSERT INTO rewinds (step, after, at) VALUES (12, 3, 0), (13, 4, 0)")
    assert (state(database), _has_rewinds(database)) == ((47, 2), True)


def test_rows_that_are_not_numbered_from_one_cannot_stand_for_columns(database: Database) -> None:
    insert(database, "other", {1: 0.0})
    insert(database, "loss", CURVE)
    with database.write() as connection:
        connection.execute("DELETE FROM metrics WHERE seq = 1")
    assert _columns(database, "loss", 3, PARTS) is None


def test_a_value_that_is_no_number_spoils_its_column_alone(database: Database) -> None:
    insert(database, "loss", {**CURVE, 12: None})
    found = _columns(database, "loss", 3, PARTS)
    assert found is not None
    assert (found.steps, found.at) == ((10, 17, 24, 27, 28), (110.0, 117.0, 124.0, 124.0, 128.0))
    assert (math.isnan(found.values[0]), math.isnan(found.means[0])) == (True, True)
    assert (found.values[1:], found.means[1:]) == ((2.0, -1.0, 9.0, 6.0), (2.0, 4.5, 4.5, 6.0))
    again = _of_curve(in_memory({**CURVE, 12: math.nan}), 3)
    assert (again.steps, again.values[1:], again.at) == (found.steps, found.values[1:], found.at)
    assert (math.isnan(again.values[0]), math.isnan(again.means[0])) == (True, True)


def test_a_curve_in_memory_is_thinned_to_the_same_columns() -> None:
    curve = in_memory(CURVE)
    assert _of_curve(curve, 3) == WHOLE
    assert _of_curve(curve, 4) == Envelope(curve.steps, curve.values, curve.at, curve.values)
    assert _of_curve(Curve("none", (), (), ()), 3) == Envelope((), (), (), ())
    gap = in_memory({0: 1.0, 1: 2.0, 99: 5.0, 100: 4.0, 101: 3.0})  # nothing between: two columns of 51 steps
    assert _of_curve(gap, 2) == Envelope(
        (0, 50, 99, 100, 101), (1.0, 2.0, 5.0, 4.0, 3.0), (100.0, 100.0, 199.0, 200.0, 201.0), (1.5, 1.5, 5.0, 4.0, 3.0)
    )


def test_the_last_column_keeps_three_values_and_of_more_the_extremes_and_the_newest() -> None:
    assert _newest([5], [2.0], [0.5]) == [(5, 2.0, 0.5, 2.0)]
    assert _newest([5, 7, 9], [2.0, 8.0, 4.0], [0.5, 0.75, 1.0]) == [
        (5, 2.0, 0.5, 2.0), (7, 8.0, 0.75, 8.0), (9, 4.0, 1.0, 4.0),
    ]  # fmt: skip
    assert _newest([5, 7, 9, 12], [2.0, 8.0, 0.0, 6.0], [0.5, 0.75, 1.0, 1.5]) == [
        (5, 0.0, 0.5, 4.0), (11, 8.0, 0.5, 4.0), (12, 6.0, 1.5, 6.0),
    ]  # fmt: skip
    torn = _newest([5, 7, 9, 12], [2.0, 8.0, math.nan, 6.0], [0.5, 0.75, 1.0, 1.5])
    assert [(step, at) for step, _, at, _ in torn] == [(5, 0.5), (7, 0.75), (9, 1.0), (12, 1.5)]
    assert [value for _, value, _, _ in torn[:2] + torn[3:]] == [2.0, 8.0, 6.0]


def test_an_envelope_has_the_parts_that_are_asked_for_and_what_is_pending_and_counts(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "fit", command=["fit"]) as run:
        track = Track(run)
        for step, value in CURVE.items():
            track.log({"loss": value}, step=step, at=100.0 + step)
        assert track.has_pending
        assert envelope(track, "loss", 3, ()) == Envelope(WHOLE.steps, WHOLE.values, (), ())
        assert not track.has_pending
        assert envelope(track, "loss", 3) == WHOLE
        assert envelope(track, "loss", 3, ("at",)) == Envelope(WHOLE.steps, WHOLE.values, WHOLE.at, ())
        assert envelope(track, "loss", 3, ("means",)) == Envelope(WHOLE.steps, WHOLE.values, (), WHOLE.means)
        assert envelope(track, "loss", 4).values == tuple(CURVE.values())
        track.log({"loss": 7.0}, step=12, at=200.0)
        assert envelope(track, "loss", 3).values[:2] == (3.0, 7.0), "the later value at a step counts"
        track.rewind(24)
        assert envelope(track, "loss", 2) == Envelope(  # of 10 to 17 and of 18 to 25
            (10, 17, 24), (2.0, 7.0, 4.0), (110.0, 110.0, 124.0), (4.25, 4.25, 4.0)
        )


def test_a_newest_value_that_begins_a_column_stands_in_it_alone(database: Database) -> None:
    values = {20: 3.0, 21: 1.0, 22: 5.0, 24: 2.0, 25: 8.0, 27: 5.0, 28: 4.0, 29: 7.0, 30: 0.0, 31: 9.0, 32: -2.0}
    alone = Envelope(  # four columns of ceil(13 / 4) = 4 steps: from 20, 24 and 28 on, and 32 itself
        (20, 23, 24, 27, 28, 31, 32), (1.0, 5.0, 2.0, 8.0, 0.0, 9.0, -2.0),
        (120.0, 120.0, 124.0, 124.0, 128.0, 128.0, 132.0), (3.0, 3.0, 5.0, 5.0, 5.0, 5.0, -2.0),
    )  # fmt: skip
    assert _of_curve(in_memory(values), 4) == alone
    insert(database, "loss", values)
    assert _columns(database, "loss", 4, PARTS) == alone
