"""Curves: envelopes and thinned curves by hand, what may be logged, and how curves are exported."""

from __future__ import annotations

import gc
import math
import shutil
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.runs import store, system_metrics
from firsthand.runs.curve_envelope import Envelope, _of_curve, envelope, state
from firsthand.runs.system_metrics import _Clock, watch_system
from firsthand.runs.track import MAX_NAME, MAX_STEP, Artifact, Curve, TextSample, Track, start
from firsthand.runs.track_export import export, export_csv, export_tensorboard

NAN, INF, AT = math.nan, math.inf, 1e9


@pytest.fixture
def track(tmp_path: Path) -> Iterator[Track]:
    with store.create(tmp_path / "home", {}, "curves") as run:
        yield Track(run)


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # NaN equals NaN here


# -- envelopes --


def test_an_envelope_has_the_extremes_of_each_column_and_the_newest_value(track: Track) -> None:
    values = {0: 5.0, 1: 2.0, 2: 7.0, 3: 4.0, 10: 3.0, 20: 1.0, 21: NAN, 30: 9.0, 31: 8.0, 32: 1.0, 33: 6.0, 34: 2.0}
    for step, value in values.items():
        track.log({"x": value}, step=step, at=AT + step)
    # 35 steps in 4 columns of 9: 0 to 8, 9 to 17, 18 to 26, and what is left
    whole = Envelope(
        (0, 8, 10, 20, 30, 33, 34), (2.0, 7.0, 3.0, NAN, 1.0, 9.0, 2.0),
        (AT, AT, AT + 10, AT + 20, AT + 30, AT + 30, AT + 34), (4.5, 4.5, 3.0, NAN, 5.2, 5.2, 2.0),
    )  # fmt: skip
    assert same(envelope(track, "x", 4), whole) and same(_of_curve(track.curve("x"), 4), whole)
    assert not track.has_pending and state(track.run.database) == (12, 0)
    assert envelope(track, "x", 4, ("at",)).means == () and envelope(track, "x", 4, ("means",)).at == ()
    assert envelope(track, "x", 4, ("means",)).steps == whole.steps
    assert same(envelope(track, "x", 4, ()).values, whole.values)
    every = envelope(track, "x", 6)
    assert (every.steps, every.at) == (tuple(values), tuple(AT + step for step in values))
    assert same(every.values, every.means)
    assert envelope(track, "none", 4) == Envelope((), (), (), ())
    assert envelope(track, "x", 5).steps == (0, 6, 10, 20, 21, 30, 33, 34), "in columns of 7 steps 20 and 21 are apart"
    track.log({"x": 8.5}, step=1, at=AT + 50)  # of two values at a step the later counts
    assert envelope(track, "x", 4).values[:2] == (4.0, 8.5) and envelope(track, "x", 4).means[:1] == (6.125,)
    track.rewind(31)
    assert state(track.run.database) == (13, 1)
    assert same(envelope(track, "x", 4).steps, (0, 7, 10, 20, 30, 31)), "32 steps in columns of 8"
    assert track.step == 31 and track.last("x") == 8.0 and track.last_step() == 31


def test_the_last_column_shows_all_of_three_values_and_a_nan_spoils_its_extremes() -> None:
    def ends(*values: float) -> Any:
        steps = tuple(range(len(values)))
        found = _of_curve(Curve("x", steps, values, steps), 1)
        return found.steps, found.values, found.at, found.means

    assert ends(1.0, 2.0) == ((0, 1), (1.0, 2.0), (0, 1), (1.0, 2.0))
    assert ends(5.0, 1.0, 3.0) == ((0, 1, 2), (5.0, 1.0, 3.0), (0, 1, 2), (5.0, 1.0, 3.0))
    assert ends(5.0, 1.0, 3.0, 4.0) == ((0, 2, 3), (1.0, 5.0, 4.0), (0, 0, 3), (3.25, 3.25, 4.0))
    assert same(ends(5.0, NAN, 3.0, 4.0)[:2], ((0, 1, 2, 3), (5.0, NAN, 3.0, 4.0)))
    neighbours = _of_curve(Curve("x", (0, 1, 4, 5, 6), (1.0, 2.0, 3.0, 4.0, 5.0), (0.0,) * 5), 2)
    assert (neighbours.steps, neighbours.values) == ((0, 3, 4, 5, 6), (1.0, 2.0, 3.0, 4.0, 5.0))


def test_a_thinned_curve_has_means_at_the_last_step_of_each_part() -> None:
    curve = Curve("x", (0, 2, 4, 6, 8), (1.0, 2.0, 6.0, NAN, 5.0), (10.0, 11.0, 12.0, 13.0, 14.0))
    assert curve.thinned(5) is curve and curve.thinned(9) is curve
    assert same(curve.thinned(2), Curve("x", (4, 8), (3.0, NAN), (12.0, 14.0)))
    assert same(curve.thinned(4), Curve("x", (2, 6, 8), (1.5, NAN, 5.0), (11.0, 13.0, 14.0)))
    assert Curve("x", (0, 1), (INF, 1.0), (0.0, 1.0)).thinned(1).values == (INF,)


# -- what is logged --


def test_names_steps_and_numbers_are_refused_beyond_their_limits(track: Track) -> None:
    track.log({"n" * MAX_NAME: True, "t": "9" and 2}, step=MAX_STEP, at=AT)
    assert track.last("n" * MAX_NAME) == 1.0 and track.step == MAX_STEP
    for values, step, said in (
        ({"n" * (MAX_NAME + 1): 1}, 0, "is no name: give 1 to 200 characters on one line"),
        ({"": 1}, 0, "'' is no name"),
        ({"a\nb": 1}, 0, "is no name"),
        ({"\ud800": 1}, 0, "it holds half a character"),
        ({"x": "5"}, 0, "x is '5': give a number, and texts to `text`"),
        ({"x": [1, 2]}, 0, r"x is \[1, 2\]: give one number"),
        ({"x": 1}, MAX_STEP + 1, "give a whole number, 0 or more"),
        ({"x": 1}, -1, "step is -1: give a whole number, 0 or more"),
        ({"x": 1}, True, "step is True"),
        ({"x": 1}, 1.0, "step is 1.0"),
    ):
        with pytest.raises(ConfigError, match=said):
            track.log(values, step=step)  # type: ignore[arg-type]
    track.text("a", "one", step=3)
    track.text("b", "two", step=1)
    assert track.texts() == [TextSample("a", 3, "one"), TextSample("b", 1, "two")]
    assert track.texts("b") == track.texts()[1:]
    inside, outside = track.run.path / "sub.bin", track.run.path.parent / "other.bin"
    inside.write_bytes(b"abc")
    outside.write_bytes(b"")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    none = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    kept = [Artifact("sub.bin", 7, Path("sub.bin"), abc, 3), Artifact("named", None, outside, none, 0)]
    assert [track.artifact(inside, step=7), track.artifact(outside, name="named")] == kept == track.artifacts()
    with pytest.raises(StoreError, match="none cannot be read: No such file or directory"):
        track.artifact(track.run.path / "none")
    assert track.names() == ("n" * MAX_NAME, "t") and track.last("none") is None


@pytest.mark.slow
def test_a_track_is_one_run_until_it_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start("My model!", config={"lr": 0.5, "name": "other"}, home=tmp_path) as first:
        first.log({"b": 1, "a": NAN}, step=4)
        with pytest.raises(ConfigError, match="is being run by"):
            start("x", home=tmp_path, resume=first.run.id)
    assert first.run.id[16:-5] == "my-model"
    with store.open_run("last", tmp_path) as run:
        assert (run.config, run.status) == ({"kind": "track", "name": "other", "lr": 0.5}, "done")
    with pytest.raises(ValueError, match="stop"), start("x", home=tmp_path, resume=first.run.id) as again:
        assert again.step == 4 and again.names() == ("a", "b") and again.last("a") is None
        again.log({"b": 2}, step=5)
        raise ValueError("stop")
    with store.open_run(first.run.id, tmp_path) as run:
        assert run.status == "interrupted" and Track(run).curve("b").values == (1.0, 2.0)
        assert [curve.name for curve in Track(run).curves()] == ["a", "b"] and run.info.num_steps == 6
    monkeypatch.setenv("FIRSTHAND_TRACK_AT", str(tmp_path / "trial"))
    with start("trial", home=tmp_path) as made:
        assert made.run.path == tmp_path / "trial"


# -- exports --


def test_curves_are_written_as_csv(track: Track, tmp_path: Path) -> None:
    track.log({"=b": 0.1, "a": NAN}, step=1, at=AT + 0.0004)
    track.log({"a": INF}, step=2, at=AT + 1.5)
    assert export(track, "csv", tmp_path / "c.csv") == 3
    assert (tmp_path / "c.csv").read_bytes() == (
        b"metric,step,value,time\r\n'=b,1,0.1,1000000000.000\r\na,1,nan,1000000000.000\r\na,2,inf,1000000001.500\r\n"
    )
    for form, target, error, said in (
        ("xls", "d", ConfigError, "'xls' is no format: give one of csv, tensorboard, wandb"),
        ("csv", "c.csv", ConfigError, "c.csv is there already: give a new name"),
        ("csv", "none/c.csv", StoreError, "c.csv cannot be written: No such file or directory"),
    ):
        with pytest.raises(error, match=said):
            export(track, form, tmp_path / target)


def test_a_folder_or_file_that_is_there_is_left_as_it_is(track: Track, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    track.log({"loss": 0.5}, step=1, at=AT)
    track.log({"loss": 0.25, "acc": 1.0}, step=2, at=AT)
    folder, file = tmp_path / "new" / "events", tmp_path / "c.csv"
    assert export_tensorboard(track, folder) == 3 == export_csv(track, file)
    (events,) = folder.iterdir()
    before = events.read_bytes(), file.read_bytes()
    (tmp_path / "empty").mkdir()
    for taken in (folder, tmp_path / "empty", file):
        with pytest.raises(FileExistsError):
            export_tensorboard(track, taken)
    with pytest.raises(FileExistsError):
        export_csv(track, file)
    assert list(folder.iterdir()) == [events] and list((tmp_path / "empty").iterdir()) == []
    assert (events.read_bytes(), file.read_bytes()) == before
    for form, taken in (("tensorboard", folder), ("tensorboard", file), ("wandb", tmp_path / "empty")):
        with pytest.raises(ConfigError, match=f"{taken.name} is there already: give a new name"):
            export(track, form, taken)
    with store.create(tmp_path / "home", {}, "none") as bare:
        assert export(Track(bare), "tensorboard", tmp_path / "bare") == 0
        assert export(Track(bare), "csv", tmp_path / "bare.csv") == 0
    assert (tmp_path / "bare").is_dir() and (tmp_path / "bare.csv").read_bytes() == b"metric,step,value,time\r\n"


def test_what_a_process_uses_is_logged_at_both_ends_of_a_block(track: Track) -> None:
    track.log({"loss": 1.0}, step=3)
    with watch_system(track, every_s=60.0):
        track.log({"loss": 0.5}, step=5)
    curves = {curve.name: curve for curve in track.curves()}
    assert sorted(curves) == ["loss", "system/cores", "system/disk_free_gib", "system/memory_gib"]
    assert all(curve.steps == (3, 5) for curve in curves.values())
    assert 0.01 < curves["system/memory_gib"].values[1] < 100
    assert curves["system/disk_free_gib"].values[0] == pytest.approx(
        shutil.disk_usage(track.run.path).free / 2**30, rel=0.2
    )
    clock = _Clock()
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    assert 0 < clock.cores() <= 4 and clock.cores() >= 0


def test_memory_and_disk_are_told_in_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, folders = SimpleNamespace(total=2**40, used=2**39, free=5 * 2**29), list[Path]()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: folders.append(folder) or used)
    monkeypatch.setattr(system_metrics, "_resident_bytes", lambda: 3.0 * 2**28)
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True,
                                                 memory_allocated=lambda: 2**31))  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", torch)
    clock = SimpleNamespace(cores=lambda: 1.5)
    assert system_metrics.system_metrics(tmp_path, clock) == {  # type: ignore[arg-type]
        "system/cores": 1.5, "system/memory_gib": 0.75, "system/disk_free_gib": 2.5, "system/gpu_memory_gib": 2.0,
    }  # fmt: skip
    assert folders == [tmp_path]


@pytest.mark.slow
def test_a_track_that_was_finished_is_let_go(tmp_path: Path) -> None:
    kept = []
    for error in (None, ValueError("gone"), KeyboardInterrupt()):
        track = start("model", home=tmp_path)
        track.log({"loss": 0.5}, step=1)
        track.finish(error)
        assert track.run.status == ("done" if error is None else "interrupted")
        track.run.close()
        kept.append(weakref.ref(track))
        del track
    with start("model", home=tmp_path) as track:
        kept.append(weakref.ref(track))
        del track
    gc.collect()
    assert [each() for each in kept] == [None] * 4, "nothing of it is left for the end of the program"
