"""A track in small: when numbers are written, what is read of them, and the rows, errors and ends of each method."""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.runs import store, system_metrics
from firsthand.runs import track as track_module
from firsthand.runs.database import checksum
from firsthand.runs.integrity import SEALED
from firsthand.runs.system_metrics import GIB, _Clock, _resident_bytes, watch_system
from firsthand.runs.track import FLUSH_S, MAX_PENDING, Artifact, Curve, TextSample, Track, start
from firsthand.system import lock


@pytest.fixture
def track(tmp_path: Path) -> Iterator[Track]:
    with store.create(tmp_path, {}, "fit", command=["fit"]) as run:
        made = Track(run)
        yield made
        made.flush()


class Item:
    """A number as a tensor has it."""

    def __init__(self, value: Any):
        self.value = value

    def __float__(self) -> float:
        raise AssertionError("a tensor that has a gradient would warn")

    def item(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def hold(track: Track) -> None:
    """Write what waits; what is logged from now on waits, however slow the machine is."""
    track.flush()
    track._written_at = time.monotonic() + 1000


def rows(track: Track, table: str, columns: str) -> list[tuple[Any, ...]]:
    return track.run.database.read(f"SELECT {columns} FROM {table} ORDER BY seq")


def test_numbers_are_written_at_once_and_then_at_most_four_times_a_second(track: Track) -> None:
    assert (track.step, track._written_at, track.has_pending) == (0, -math.inf, False)
    track.log({"loss": 2, "acc": 0.5}, step=3, at=7.0)
    assert rows(track, "metrics", "seq, name, step, value, at") == [(1, "loss", 3, 2.0, 7.0), (2, "acc", 3, 0.5, 7.0)]
    assert (track.has_pending, track._timer, track.step) == (False, None, 3)
    track.log({}, step=5)
    assert (track._timer, track.step) == (None, 5), "nothing waits"
    hold(track)
    before = time.time()
    track.log({"loss": 1.5}, step=4)
    ((name, step, value, at),) = track._pending
    assert (name, step, value, track.step) == ("loss", 4, 1.5, 4)
    assert before <= at <= time.time()
    timer = track._timer
    assert timer is not None
    assert (timer.daemon, 1000 < timer.interval <= 1000 + FLUSH_S, timer.function) == (True, True, track._flush_late)
    track.log({"loss": 1.25}, step=6)
    assert track._timer is timer, "one timer is enough"
    before_s = time.monotonic()
    track.flush()
    assert (track._timer, track.has_pending, timer.finished.is_set()) == (None, False, True)
    assert before_s <= track._written_at <= time.monotonic()
    assert rows(track, "metrics", "step, value")[2:] == [(4, 1.5), (6, 1.25)]
    track._written_at = time.monotonic() - FLUSH_S
    track.log({"loss": 1.0}, step=7)
    assert not track.has_pending
    track.run.check()


def test_very_many_numbers_are_written_without_waiting(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PENDING == 4096
    monkeypatch.setattr(track_module, "MAX_PENDING", 3)
    hold(track)
    track.log({"a": 1.0}, step=1)
    track.log({"a": 2.0}, step=2)
    assert len(track._pending) == 2
    track.log({"a": 3.0}, step=3)
    assert (track._pending, len(rows(track, "metrics", "seq"))) == ([], 3)


def test_what_cannot_be_written_stays_pending_and_the_timer_says_nothing(track: Track) -> None:
    hold(track)
    track.log({"a": 1.0}, step=1, at=5.0)
    with track.run.database.write() as connection:
        connection.execute("ALTER TABLE metrics RENAME TO hidden")
    track._flush_late()
    with pytest.raises(StoreError, match="no such table"):
        track.flush()
    assert track._pending == [("a", 1, 1.0, 5.0)]
    with track.run.database.write() as connection:
        connection.execute("ALTER TABLE hidden RENAME TO metrics")
    track._flush_late()
    assert (track._pending, rows(track, "metrics", "value, at")) == ([], [(1.0, 5.0)])


def test_texts_files_and_rewinds_come_after_the_numbers_before_them(track: Track, tmp_path: Path) -> None:
    hold(track)
    track.log({"a": 1.0}, step=1)
    track.text("answer", "first\nline", step=2)
    assert not track.has_pending
    track.text("note", "second", step=1)
    assert track.texts() == [TextSample("answer", 2, "first\nline"), TextSample("note", 1, "second")]
    assert track.texts("note") == [TextSample("note", 1, "second")]
    assert track.texts("none") == []
    inside, outside = track.run.path / "deep" / "w.bin", tmp_path / "out.bin"
    inside.parent.mkdir()
    inside.write_bytes(b"abc")
    outside.write_bytes(b"")
    hold(track)
    track.log({"a": 2.0}, step=2)
    assert track.has_pending
    kept = track.artifact(inside, step=4)
    assert kept == Artifact("w.bin", 4, Path("deep/w.bin"), hashlib.sha256(b"abc").hexdigest(), 3)
    assert not track.has_pending
    assert track.artifact(str(outside), name="named") == Artifact(
        "named", None, outside, hashlib.sha256(b"").hexdigest(), 0
    )
    assert track.artifacts() == [kept, Artifact("named", None, outside, hashlib.sha256(b"").hexdigest(), 0)]
    with pytest.raises(StoreError) as gone:
        track.artifact(tmp_path / "gone")
    assert str(gone.value) == f"the artifact {tmp_path / 'gone'} cannot be read: No such file or directory"
    hold(track)
    track.log({"a": 3.0}, step=9)
    track.text("answer", "later", step=3)
    track.rewind(2)
    track.text("answer", "anew", step=3)
    assert [(each.step, each.text) for each in track.texts()] == [(2, "first\nline"), (1, "second"), (3, "anew")]
    assert (track.step, rows(track, "rewinds", "step, after")) == (2, [(2, 3)])
    track.rewind(1)
    assert rows(track, "rewinds", "step, after")[1] == (1, 3)
    for table, count in (("metrics", 3), ("samples", 4), ("artifacts", 2), ("rewinds", 2)):
        columns = SEALED[table]
        sealed = rows(track, table, f"digest, {columns}")
        assert [digest for digest, *_ in sealed] == [checksum(*row) for _, *row in sealed]
        assert len(sealed) == count
    track.run.check()


def test_each_step_name_and_number_is_checked_and_nothing_of_a_refused_call_is_kept(track: Track) -> None:
    sentence = "give a whole number, 0 or more"
    for step in (-1, 2**62 + 1, True, 1.0, "1"):
        for use in (
            lambda step=step: track.log({"a": 1}, step=step),
            lambda step=step: track.text("a", "b", step=step),
            lambda step=step: track.rewind(step),
            lambda step=step: track.artifact(track.run.path / "run.sqlite", step=step),
        ):
            with pytest.raises(ConfigError) as refused:
                use()
            assert str(refused.value) == f"step is {step!r}: {sentence}"
    hold(track)
    track.log({"a": 1}, step=2**62)
    track.log({"a": 1}, step=0)
    with pytest.raises(ConfigError) as name:
        track.log({"good": 1.0, "": 2.0}, step=1)
    assert str(name.value) == "'' is no name: give 1 to 200 characters on one line"
    for wrong in ("x" * 201, "a\nb", "a\x7f", "a\x9f", 5):
        with pytest.raises(ConfigError, match="is no name: give 1 to 200 characters on one line"):
            track.log({wrong: 1.0}, step=1)  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="it holds half a character"):
        track.log({"\ud800": 1.0}, step=1)
    with pytest.raises(ConfigError) as text:
        track.log({"a": "1"}, step=1)  # type: ignore[dict-item]
    assert str(text.value) == "a is '1': give a number, and texts to `text`"
    for value in (None, [1.0], 10**400):
        with pytest.raises(ConfigError, match=r"^a is .*: give one number$"):
            track.log({"a": value}, step=1)  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"^a is .*: give one number$"):
        track.log({"a": Item(RuntimeError("several numbers"))}, step=1)
    assert [(name, step) for name, step, _, _ in track._pending] == [("a", 2**62), ("a", 0)]
    track.log({"item": Item(2.5)}, step=0)
    assert track._pending.pop()[:3] == ("item", 0, 2.5)
    track.log({"x" * 200: True, "\xa0é": 2}, step=1)
    track.flush()
    assert [(len(name), value) for name, value in rows(track, "metrics", "name, value")[2:]] == [(200, 1.0), (2, 2.0)]
    assert (track.texts(), rows(track, "rewinds", "seq"), track.artifacts()) == ([], [], [])


def test_a_rewind_leaves_behind_what_was_logged_before_it_at_later_steps(track: Track) -> None:
    for step in (1, 2, 3, 5):
        track.log({"b": step / 2}, step=step, at=100.0 + step)
    track.log({"gone": 1.0, "z": math.nan}, step=4, at=104.0)
    track.rewind(3)
    assert track.curve("b") == Curve("b", (1, 2, 3), (0.5, 1.0, 1.5), (101.0, 102.0, 103.0))
    assert (track.names(), track.last_step(), track.last("gone")) == (("b",), 3, None)
    hold(track)
    track.log({"b": 8.0}, step=4, at=204.0)
    track.log({"b": 9.0}, step=2, at=202.0)
    track.log({"z": math.nan, "a": 1.0}, step=2, at=205.0)
    assert track.has_pending
    assert track.curve("b") == Curve("b", (1, 2, 3, 4), (0.5, 9.0, 1.5, 8.0), (101.0, 202.0, 103.0, 204.0))
    assert not track.has_pending, "what is read was written before"
    assert (track.names(), track.last_step()) == (("a", "b", "z"), 4)
    assert (track.last("b"), track.last("a"), track.last("z"), track.last("none")) == (8.0, 1.0, None, None)
    assert math.isnan(track.curve("z").values[0])
    assert [curve.name for curve in track.curves()] == ["a", "b", "z"]
    assert track.curve("none") == Curve("none", (), (), ())
    track.log({"b": 7.0}, step=4)
    assert track.last("b") == 7.0
    assert Track(track.run).step == 4
    track.rewind(0)
    assert (track.names(), track.last_step()) == ((), None)
    assert Track(track.run).step == 0


def test_a_thinned_curve_has_means_of_neighbours_at_their_last_step() -> None:
    curve = Curve("a", (1, 2, 4, 8, 16), (1.0, 3.0, 6.0, math.inf, 5.0), (0.1, 0.2, 0.3, 0.4, 0.5))
    assert curve.thinned(5) is curve
    assert curve.thinned(4) == Curve("a", (2, 8, 16), (2.0, math.inf, 5.0), (0.2, 0.4, 0.5))
    assert curve.thinned(2) == Curve("a", (4, 16), (10 / 3, math.inf), (0.3, 0.5))
    assert Curve("a", (), (), ()).thinned(3) == Curve("a", (), (), ())
    for values in ((math.nan, 1.0), (math.inf, -math.inf)):
        assert math.isnan(Curve("a", (1, 2), values, (0.0, 0.0)).thinned(1).values[0])
    assert Curve("a", (1, 2, 3), (-math.inf, 1.0, 2.0), (0.0, 0.0, 0.0)).thinned(2).values == (-math.inf, 2.0)


@pytest.mark.slow
def test_a_track_begins_a_run_or_goes_on_with_one_and_ends_as_its_block_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "own"))
    monkeypatch.delenv("FIRSTHAND_TRACK_AT", raising=False)
    monkeypatch.setattr(lock, "PATIENCE_S", 0.0)
    with start("my model", config={"lr": 0.5, "kind": "mine"}) as track:
        run = track.run
        assert run.path.parent == tmp_path / "own" / "runs"
        assert "-my-model-" in run.id
        assert (run.config, run.status) == ({"kind": "mine", "name": "my model", "lr": 0.5}, "running")
        with pytest.raises(ConfigError, match="is being run by process"):
            start("again", resume=run.id)
        track.log({"a": 1.0}, step=6)
        track.log({"a": 2.0}, step=7)
    home = tmp_path / "own"
    with pytest.raises(KeyError), start("other", home=home, resume=run.id) as more:
        assert (more.run.id, more.step, more.last("a"), more.run.status) == (run.id, 7, 2.0, "running")
        more.log({"a": 3.0}, step=8)
        more.log({"a": 4.0}, step=9)
        raise KeyError
    with store.open_run(run.id, home) as found:
        assert (found.status, found.info.num_steps, found.database.read("SELECT count(*) FROM metrics")) == (
            "interrupted", 10, [(4,)],
        )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_TRACK_AT", "")
    with start("nowhere named") as unnamed:
        assert unnamed.run.path.parent == home / "runs"
    monkeypatch.setenv("FIRSTHAND_TRACK_AT", str(tmp_path / "trial"))
    trial = start("t")
    assert (trial.run.path, trial.run.config) == (tmp_path / "trial", {"kind": "track", "name": "t"})
    monkeypatch.setattr(sys, "last_value", ValueError("ended the program"), raising=False)
    trial._finish_at_exit()
    assert trial.run.status == "interrupted"
    monkeypatch.delattr(sys, "last_value")
    for end in ("finish", "at exit"):
        monkeypatch.setenv("FIRSTHAND_TRACK_AT", str(tmp_path / end))
        full = start("f")
        hold(full)
        full.log({"a": 1.0}, step=1)
        with full.run.database.write() as connection:
            connection.execute("ALTER TABLE metrics RENAME TO hidden")
        if end == "finish":
            with pytest.raises(StoreError, match="no such table"):
                full.finish()
        else:
            full._finish_at_exit()
        full.run.expect_idle()
    with store.open_run(tmp_path / "trial", home):
        again = start("ignored", resume=tmp_path / "trial")
        again._finish_at_exit()
        assert again.run.status == "done"
        again.run.close()
    trial.run.close()


def test_what_a_process_uses_is_logged_at_both_ends_and_in_between(track: Track) -> None:
    track.step = 5
    with watch_system(track, every_s=60):
        assert [step for (step,) in rows(track, "metrics", "step")] == [5] * 3
        track.step = 8
    track.flush()
    found = rows(track, "metrics", "step, name, value")
    names = ["system/cores", "system/memory_gib", "system/disk_free_gib"]
    assert [(step, name) for step, name, _ in found if "gpu" not in name] == [
        *((5, name) for name in names), *((8, name) for name in names),
    ]  # fmt: skip
    free = shutil.disk_usage(track.run.path).free / GIB
    assert abs(found[2][2] - free) < free / 10 + 1
    memory = found[1][2] * GIB
    assert 2**23 < memory < 2**36
    assert abs(memory - _resident_bytes()) < memory / 2
    hold(track)
    with watch_system(track, every_s=0.001):
        until = time.monotonic() + 30
        while len(track._pending) < 6 and time.monotonic() < until:
            time.sleep(0.001)
    assert len(track._pending) >= 9, "once before, once or more meanwhile, once after"
    assert track.last_step() == 8
    track._written_at = -math.inf
    with track.run.database.write() as connection:
        connection.execute("ALTER TABLE metrics RENAME TO hidden")
    with pytest.raises(ZeroDivisionError), watch_system(track):  # a full disk is reported by the loop itself
        raise ZeroDivisionError
    with track.run.database.write() as connection:
        connection.execute("ALTER TABLE hidden RENAME TO metrics")
    track.flush()
    hold(track)
    with pytest.raises(KeyError), watch_system(track, every_s=60):
        track.step = 11
        raise KeyError
    assert [(step, name) for name, step, _, _ in track._pending if "gpu" not in name] == [
        *((8, name) for name in names), *((11, name) for name in names),
    ]  # fmt: skip
    assert "system-metrics" not in {thread.name for thread in threading.enumerate()}


def test_cores_are_those_used_since_the_last_look() -> None:
    clock = _Clock()
    clock._before = time.monotonic() - 10_000.0, time.process_time() - 25_000.0
    assert 2.4 < clock.cores() < 2.6
    now = clock._before
    assert 0 <= time.monotonic() - now[0] < 1000
    clock._before = time.monotonic() + 1000.0, time.process_time() - 1.0
    assert clock.cores() == 0.0


def test_memory_of_a_gpu_is_that_of_the_torch_which_the_loop_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"system/cores", "system/memory_gib", "system/disk_free_gib"}
    for available, used, more in ((True, True, {"system/gpu_memory_gib"}), (True, False, set()), (False, True, set())):
        cuda = SimpleNamespace(
            is_available=lambda value=available: value, is_initialized=lambda value=used: value,
            memory_allocated=lambda: 3 * 2**29,
        )  # fmt: skip
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        found = system_metrics.system_metrics(tmp_path, _Clock())
        assert set(found) == plain | more
        assert found.get("system/gpu_memory_gib", 1.5) == 1.5
    monkeypatch.delitem(sys.modules, "torch")
    assert set(system_metrics.system_metrics(tmp_path, _Clock())) == plain


def test_without_a_list_of_pages_the_most_memory_so_far_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "Path", lambda name: Path("/nowhere") / name.strip("/"))
    monkeypatch.setattr(sys, "platform", "linux")
    kilobytes = _resident_bytes()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert kilobytes / 1024 <= _resident_bytes() < 2 * kilobytes / 1024
    assert 2**23 < kilobytes < 2**36


def test_a_time_a_step_and_a_value_of_0_are_kept_as_they_were_given(track: Track) -> None:
    track.log({"loss": 0, "acc": -0.5}, step=0, at=0.0)
    hold(track)
    track.log({"loss": 0.25}, step=0, at=-1.5)
    assert rows(track, "metrics", "name, step, value, at") == [("loss", 0, 0.0, 0.0), ("acc", 0, -0.5, 0.0)]
    assert track._pending == [("loss", 0, 0.25, -1.5)]
    assert track.last("acc") == -0.5 and track.last("loss") == 0.25, "what waits is written before it is read"
    track.log({"loss": 0.0}, step=1, at=2.0)
    assert (track.last("loss"), track.last("none"), track.last_step()) == (0.0, None, 1)
    assert track.curve("loss") == Curve("loss", (0, 1), (0.25, 0.0), (-1.5, 2.0))
    track.text("said", "", step=0)
    assert track.texts() == track.texts("said") == [TextSample("said", 0, "")] and track.texts("") == []
    with Track(track.run) as again:
        assert again.step == 1
        again.rewind(0)
        assert (again.step, again.last_step(), again.names()) == (0, 0, ("acc", "loss"))


def test_a_file_in_the_runs_folder_is_kept_relative_to_it_however_it_is_named(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = track.run.path
    (folder / "w.bin").write_bytes(b"abc")
    (tmp_path / "other.bin").write_bytes(b"xy")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    sums = [hashlib.sha256(body).hexdigest() for body in (b"abc", b"xy")]
    relative, linked = folder.relative_to(tmp_path) / "w.bin", Path("link") / "w.bin"
    kept = [track.artifact(path, step=0) for path in (relative, linked, tmp_path / "link" / "w.bin")]
    assert kept == [Artifact("w.bin", 0, Path("w.bin"), sums[0], 3)] * 3
    assert track.artifact("other.bin") == Artifact("other.bin", None, Path("other.bin"), sums[1], 2)
    assert track.artifacts() == [*kept, Artifact("other.bin", None, Path("other.bin"), sums[1], 2)]
    assert rows(track, "artifacts", "step") == [(0,), (0,), (0,), (None,)]
