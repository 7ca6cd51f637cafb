"""Envelopes of curves: no extreme is lost, the newest values are exact, and both ways of computing one agree."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from firsthand.runs import store
from firsthand.runs.curve_envelope import PARTS, Envelope, _columns, _of_curve, envelope, state
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Track


def logged(folder: Path, values: dict[int, float]) -> Run:
    run = store.create(folder, {}, "fit")
    with run.database.write() as connection:
        for step, value in values.items():
            number = None if math.isnan(value) else value
            connection.execute(
                "INSERT INTO metrics (name, step, value, at) VALUES ('loss', ?, ?, ?)", (step, number, step / 10)
            )
    return run


def noise(steps: range) -> dict[int, float]:
    rng = random.Random(0)
    return {step: rng.gauss(0, 1) for step in steps}


SPARSE: dict[str, Callable[[], dict[int, float]]] = {
    "every step": lambda: noise(range(1000)),
    "from 7 on, every third": lambda: noise(range(7, 3000, 3)),
    "with a gap": lambda: noise(range(500)) | noise(range(40_000, 40_500)),
    "with an outlier": lambda: noise(range(1000)) | {777: 1e9},
    "with a NaN": lambda: noise(range(1000)) | {501: math.nan},
    "one more than is shown whole": lambda: noise(range(101)),
}


@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
def test_no_extreme_is_lost_and_both_ways_agree(tmp_path: Path, make: Callable[[], dict[int, float]]) -> None:
    values = make()
    with logged(tmp_path, values) as run:
        track = Track(run)
        found, slow = envelope(track, "loss", 50), _of_curve(track.curve("loss"), 50)
    for column in ("steps", "values", "at", "means"):
        assert getattr(found, column) == pytest.approx(getattr(slow, column), nan_ok=True)
    finite = [value for value in values.values() if not math.isnan(value)]
    shown = [value for value in found.values if not math.isnan(value)]
    assert len(found.steps) <= 2 * 50 + 1
    if len(finite) == len(values):
        assert (min(shown), max(shown)) == (min(finite), max(finite))
    else:
        assert any(math.isnan(value) for value in found.values)
    assert list(found.steps) == sorted(set(found.steps))
    last = max(values)
    assert (found.steps[-1], found.values[-1], found.at[-1]) == (last, values[last], last / 10)


def test_a_long_curve_among_others_never_leaves_the_file(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "fit") as run:
        track = Track(run)
        for step in range(400):
            track.log({"loss": float(step % 7), "rare": 1.0} if step % 9 == 0 else {"loss": float(step % 7)}, step=step)
        track.flush()
        found = _columns(run.database, "loss", 50, PARTS)
        assert found is not None and found == envelope(track, "loss", 50) == _of_curve(track.curve("loss"), 50)
        bare = envelope(track, "loss", 50, ())
    assert (bare.steps, bare.values, bare.at, bare.means) == (found.steps, found.values, (), ())


def test_each_column_has_the_mean_of_its_values(tmp_path: Path) -> None:
    with logged(tmp_path, {step: float(step) for step in range(1000)}) as run:
        found = envelope(Track(run), "loss", 50)
    assert found.steps[:4] == (0, 19, 20, 39) and found.values[:4] == (0, 19, 20, 39)
    assert found.means[:4] == (9.5, 9.5, 29.5, 29.5)


def test_a_short_curve_is_shown_whole(tmp_path: Path) -> None:
    values = noise(range(100))
    with logged(tmp_path, values) as run:
        found = envelope(Track(run), "loss", 50)
    assert found == Envelope(
        tuple(values), tuple(values.values()), tuple(s / 10 for s in values), tuple(values.values())
    )


def test_values_that_do_not_count_are_not_shown(tmp_path: Path) -> None:
    with logged(tmp_path, noise(range(1000))) as run:
        track = Track(run)
        track.log({"loss": 1e6}, step=300)
        track.log({"loss": 0.0}, step=300)
        assert max(envelope(track, "loss", 50).values) < 10, "of two values at a step the later counts"
    with logged(tmp_path, noise(range(1000)) | {990: 1e6}) as run:
        track = Track(run)
        track.rewind(900)
        found = envelope(track, "loss", 50)
        assert found.steps[-1] == 900 and max(found.values) < 10


def test_what_is_logged_changes_the_state(tmp_path: Path) -> None:
    with logged(tmp_path, noise(range(10))) as run:
        track, before = Track(run), state(run.database)
        track.log({"loss": 1.0}, step=11)
        track.flush()
        after = state(run.database)
        track.rewind(5)
        assert before < after < state(run.database)


def test_names_are_those_with_values_that_count(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "fit") as run:
        track = Track(run)
        assert track.names() == ()
        track.log({"b": 1, "a": 1}, step=1)
        track.log({"late": 1}, step=5)
        track.rewind(2)
        assert track.names() == ("a", "b")
