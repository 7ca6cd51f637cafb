"""A run made, opened, listed, described and removed: each thing that is written of it, and what is left of a failure."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import __version__
from firsthand.errors import ConfigError, StoreError
from firsthand.message import canonical
from firsthand.model import Usage
from firsthand.runs import database as database_module
from firsthand.runs import removal, store
from firsthand.runs.database import Database
from firsthand.runs.feed import Started
from firsthand.runs.index import SCHEMA, Entry, Index, RunInfo, _entry, _row, files_of, listed
from firsthand.runs.removal import remove_run
from firsthand.runs.run_names import DATABASE, LOCK, MAKING
from firsthand.runs.score_totals import ScoreMean
from firsthand.runs.store import _seal_of_config, create, describe_machine, list_runs, open_run
from firsthand.runs.stored_journal import now
from firsthand.system.home_seal import seal_of
from firsthand.system.lock import held
from firsthand.system.source_commit import source_commit
from firsthand.trace import Call
from made_traces import trace


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "own"))
    return tmp_path / "home"


def test_a_new_run_tells_its_config_command_code_and_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = now()
    with create(
        home, {"seed": 3, "file": Path("a/b")}, "Sums & more", command=iter(["firsthand", "run"]),
        figures={"b": "f.py:x"}, protocols={"p": "zero-shot"}, reducers={"r": "max"}, files={"tool": {"t.py": "0a"}},
    ) as run:  # fmt: skip
        assert run.about == {
            "config": {"seed": 3, "file": "a/b"},
            "config_seal": seal_of(canonical({"seed": 3, "file": "a/b"}), "run"),
            "command": ["firsthand", "run"],
            "firsthand": __version__,
            "commit": source_commit(),
            "machine": describe_machine(),
            "figures": {"b": "f.py:x"},
            "figures_seal": seal_of(canonical({"b": "f.py:x"}), "figures"),
            "protocols": {"p": "zero-shot"},
            "reducers": {"r": "max"},
            "files": {"tool": {"t.py": "0a"}},
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{4}-sums-more-[a-z2-9]{4}", run.id)
        assert run.path == home / "runs" / run.id
        assert {DATABASE, LOCK} <= {file.name for file in run.path.iterdir()}
        assert before <= run.created_at <= now()
        row = run.database.read("SELECT id, status, planned, digest IS NOT NULL FROM run")
        assert (row, run.status) == ([(1, "running", None, 1)], "interrupted")
        assert run.config == {"seed": 3, "file": "a/b"}
        assert run.protocols == {"p": "zero-shot"}
        assert [run.reducer(name) for name in ("r", "b")] == ["max", "mean"]
        assert run.reducer("r", "mode") == "mode"
        run.check(bodies=True)
        assert Index(home / "runs").entries().keys() == {run.id}, "the list knows it at once"
    monkeypatch.setattr(sys, "argv", ["firsthand", "run", "sums"])
    with create(home, {"reduce": "median"}, "") as plain:
        assert plain.id[15:-4] == "-run-"
        about = plain.about
        assert (about["command"], about["figures"], about["figures_seal"]) == (["firsthand", "run", "sums"], {}, "")
        assert (about["protocols"], about["reducers"], plain.protocols) == ({}, {}, {})
        assert (plain.reducer("r"), plain.reducer("r", "max")) == ("median", "max")


def test_a_description_of_the_machine_has_versions_and_no_names() -> None:
    assert describe_machine() == {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def test_a_run_may_be_made_in_a_folder_with_other_files_and_not_over_another(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    with create(home, {}, "fit", command=["x"], at=folder) as run:
        assert (run.path, run.id) == (folder, "model")
    assert not home.exists(), "it is in no list"
    (folder / "weights").write_text("w")
    with pytest.raises(StoreError) as again:
        create(home, {}, "fit", at=folder)
    assert str(again.value) == f"{folder} holds a run already: open it, or give another folder"
    for file in folder.glob(f"{DATABASE}*"):
        file.unlink()
    create(home, {"n": 2}, "fit", at=folder).close()
    assert (folder / "weights").read_text() == "w"
    with open_run(folder, home) as found:
        assert (found.config, found._index) == ({"n": 2}, None)


@pytest.mark.slow
def test_a_name_that_is_taken_gives_way_to_another_with_all_that_was_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(["2026-01-01-0000-a-aaaa", "2026-01-01-0000-a-aaaa", "2026-01-01-0000-a-bbbb"])
    asked: list[tuple[str, str]] = []

    def next_id(at: Any, hint: str) -> str:
        asked.append((at.tzname(), hint))
        return next(ids)

    monkeypatch.setattr(store, "new_run_id", next_id)
    create(home, {"n": 1}, "a").close()
    given: dict[str, Any] = {"figures": {"f": "1"}, "protocols": {"p": "2"}, "reducers": {"r": "3"}}
    with create(home, {"n": 2}, "a", command=["c"], **given) as run:
        assert run.id == "2026-01-01-0000-a-bbbb"
        assert {key: run.about[key] for key in ("config", "command", *given)} == {
            "config": {"n": 2}, "command": ["c"], **given,
        }  # fmt: skip
    assert asked == [("UTC", "a")] * 3
    with open_run("2026-01-01-0000-a-aaaa", home) as first:
        assert first.config == {"n": 1}


def test_nothing_is_left_of_a_run_that_could_not_be_made(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(why: str, folder: Path, **where: Any) -> None:
        with pytest.raises(StoreError) as error:
            create(home, {}, "x", **where)
        assert str(error.value) == (
            f"no run can be made in {folder} ({why}), and nothing of it is left: make room there, or set FIRSTHAND_HOME "
            "to a folder with room"
        )

    home.mkdir()
    (home / "runs").write_text("a file")
    refused("Not a directory", home / "runs")
    refused("File exists", home / "runs", at=home / "runs")
    (home / "runs").unlink()
    folder = tmp_path / "at"
    folder.mkdir()
    (folder / "other").write_text("stays")
    for name in (DATABASE, LOCK):
        (folder / name).symlink_to(tmp_path / "file")
        with pytest.raises(StoreError, match=f"{name} is a link"):
            create(home, {}, "x", at=folder)
        assert {file.name for file in folder.iterdir()} == {"other", name, MAKING} and not (tmp_path / "file").exists()
        (folder / name).unlink()
    monkeypatch.setattr(database_module, "MAX_BODY_BYTES", 2500)
    with pytest.raises(StoreError, match=r"^a body of \d+ bytes is too large"):
        create(home, {"x": "x" * 3000}, "x")
    assert list((home / "runs").iterdir()) == []
    with pytest.raises(StoreError, match="is too large"):
        create(home, {"x": "x" * 3000}, "x", at=folder)
    assert {file.name for file in folder.iterdir()} == {"other", LOCK, MAKING}


def test_a_seal_is_of_the_config_as_it_will_be_read(home: Path) -> None:
    assert _seal_of_config({"b": (1, 2), "a": Path("x")}) == seal_of('{"a":"x","b":[1,2]}', "run")
    circle: dict[str, Any] = {}
    circle["self"] = circle
    assert _seal_of_config(circle) == ""
    assert _seal_of_config({("a", "b"): 1}) == ""  # type: ignore[dict-item]


def test_a_run_is_opened_with_the_index_of_its_folder_only_below_this_home(home: Path, tmp_path: Path) -> None:
    with create(home, {}, "a") as run:
        id = run.id
    with open_run("last", home) as found:
        assert found._index is not None
        assert (found.id, found._index.folder.resolve()) == (id, (home / "runs").resolve())
    (tmp_path / "link").symlink_to(home)
    with open_run(tmp_path / "link" / "runs" / id, home) as found:
        assert found._index is not None, "the same folder by another name"
    with open_run(id, tmp_path / "link") as found:
        assert found._index is not None
    with open_run(home / "runs" / id, tmp_path / "another") as found:
        assert (found.id, found._index) == (id, None)
    empty = home / "runs" / "2026-01-01-0000-a-aaaa"
    empty.mkdir()
    Database(empty / DATABASE, create=True).close()
    with pytest.raises(StoreError) as never:
        open_run(empty.name, home)
    assert str(never.value) == (
        f"{empty} was never begun, so it cannot be resumed: its maker was stopped at once. Delete the folder"
    )


@pytest.mark.slow
def test_runs_are_listed_by_minute_and_then_by_the_time_they_were_made(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id, made in (
        ("2026-01-02-0000-a-aaaa", "2025-01-01T00:00:00"),
        ("2026-01-01-0000-b-aaaa", "2026-01-01T00:00:10"),
        ("2026-01-01-0000-a-aaaa", "2026-01-01T00:00:20"),
    ):
        monkeypatch.setattr(store, "new_run_id", lambda at, hint, id=id: id)
        monkeypatch.setattr(store, "now", lambda made=made: made)
        create(home, {"n": id[-6]}, "x", command=["c", 1]).close()  # type: ignore[list-item]
    broken = home / "runs" / "2026-01-03-0000-z-aaaa"
    broken.mkdir()
    (broken / DATABASE).write_text("no database at all, but long enough to be looked at" * 30)
    told: list[str] = []
    found = list_runs(home, told.append)
    assert [info.id[5:] for info in found] == [
        "01-03-0000-z-aaaa", "01-02-0000-a-aaaa", "01-01-0000-a-aaaa", "01-01-0000-b-aaaa",
    ]  # fmt: skip
    assert (found[0].status, found[0].path, found[0].config) == ("unreadable", broken, {})
    assert "is not a SQLite file" in str(found[0].problem)
    assert (found[1].status, found[1].command, found[1].config) == ("interrupted", ("c", "1"), {"n": "a"})
    assert (found[1].problem, told) == (None, [])
    (home / "runs" / "index.sqlite").write_bytes(b"damaged" * 100)
    assert [info.id for info in list_runs(home, told.append)] == [info.id for info in found]
    assert len(told) == 1


@pytest.mark.slow
def test_the_entry_of_a_run_counts_latest_attempts_and_steps(home: Path) -> None:
    with create(home, {"model": "m"}, "a", command=["c"]) as run:
        call = Call("0:1", "generate", None, 0.0, 1.0, "r", Usage(7, 2, 3, 0.5))
        run.add_agent("a", {})
        run.append(trace("1", "t1", None, calls=(call,)))
        run.append(trace("2", "t1", 0.25, calls=(call, call)))
        run.append(trace("3", "t2", 1.0))
        run.append(trace("4", "t3", None, calls=(call,)))
        run.plan(9)
        with run.database.write() as connection:
            connection.execute("INSERT INTO metrics (name, step, value, at) VALUES ('l', 4, 1.0, 0), ('l', 2, 1.0, 0)")
        before = time.time()
        info = run.info
        assert before <= info.updated_at <= time.time()
        assert replace(info, updated_at=0.0) == RunInfo(
            run.id, run.path, run.created_at, "interrupted", ("c",), {"model": "m"}, 3, 1, None, 9, 30,
            (ScoreMean("b", "a", 1.25 / 3, 3),), 0.0, 5,
        )  # fmt: skip
        run.append(trace("5", "t3", 0.5, calls=(call,)))
        run.append(trace("6", "t3", None, calls=(call, call, call)))
        again = run.info  # of the third task its last try alone counts, with 10 tokens a call
        assert (again.num_traces, again.num_errors, again.tokens) == (3, 1, 2 * 10 + 3 * 10)
    with create(home, {}, "empty", command=[]) as empty:
        assert (empty.about["command"], empty.info.command) == ([], ())
        assert (empty.info.num_steps, empty.info.tokens, empty.info.num_planned) == (0, 0, None)
        with empty.database.write() as connection:
            connection.execute("INSERT INTO metrics (name, step, value, at) VALUES ('l', 0, 1.0, 0)")
        assert empty.info.num_steps == 1, "step 0 is a step"


def test_a_run_is_running_while_it_is_worked_on_and_then_as_the_block_was_left(home: Path) -> None:
    with create(home, {}, "a") as run:
        run.finish("interrupted")
        with run.working():
            assert (run.status, run.database.read("SELECT status FROM run")) == ("running", [("running",)])
            assert run._is_claimed
            with pytest.raises(ConfigError, match=re.escape(f"{run.id} is being run by process {os.getpid()} on ")):
                run.expect_idle()
            run.feed.add("p", Started("b", "t", "a", 0))
            assert run.feed._pending.keys() == {"p"}
        assert (run.status, run._is_claimed, run.feed._pending) == ("done", False, {})
        run.expect_idle()
        for error in (ValueError("x"), KeyboardInterrupt()):
            with pytest.raises(type(error)), run.working():
                run.feed.add("p", Started("b", "t", "a", 0))
                raise error
            assert (run.status, run._is_claimed, run.feed._pending) == ("interrupted", False, {})
        with run.claimed():
            with run.working():  # the claim is kept, for it is the caller's
                assert run.status == "running"
            assert run._is_claimed
            run.finish("running")
            assert run.status == "running"
        assert run.status == "interrupted", "nobody holds it any more"
        run.check()


def test_the_index_is_told_of_changes_now_and_then_and_of_the_last_when_the_run_is_closed(home: Path) -> None:
    index = Index(home / "runs")
    began_s = time.monotonic()
    with create(home, {}, "a") as run:
        took_s = time.monotonic() - began_s
        assert began_s + 2.0 <= run._next_index_s <= began_s + took_s * 203 + 2.0
        run._next_index_s = time.monotonic() + 1000
        run.append(trace("1"))
        assert index.entries()[run.id].info.num_traces == 0, "it was told a moment ago"
        run._next_index_s = 0.0
        run.append(trace("2", "t2"))
        assert index.entries()[run.id].info.num_traces == 2
        run.append(trace("3", "t3"))
    kept = index.entries()[run.id]
    assert (kept.info.num_traces, kept.files) == (3, files_of(run.path))
    assert not run._changed
    with open_run(run.id, home) as reader:
        assert reader.info.num_traces == 3
    assert index.entries()[run.id] == kept, "who reads only tells nothing"


def test_the_index_believes_a_run_that_is_worked_on_for_ten_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "r1"
    folder.mkdir()
    (folder / DATABASE).write_text("abc")
    (folder / f"{DATABASE}-wal").write_text("")
    stat = (folder / DATABASE).stat()
    assert files_of(folder) == f"3@{stat.st_mtime_ns}"
    (folder / f"{DATABASE}-wal").write_text("log")
    wal = (folder / f"{DATABASE}-wal").stat()
    whole = f"3@{stat.st_mtime_ns} 3@{wal.st_mtime_ns}"
    assert (files_of(folder), files_of(tmp_path / "none")) == (whole, "")
    fresh = RunInfo("r1", folder, status="running", updated_at=time.time())
    old = replace(fresh, updated_at=time.time() - 11)
    with held(folder / LOCK):
        assert Entry(fresh, "changed").current() == fresh
        assert Entry(old, "changed").current() is None
        assert Entry(old, whole).current() == old
        assert Entry(replace(fresh, status="done"), "changed").current() is None
    assert Entry(fresh, "changed").current() is None
    assert Entry(fresh, whole).current() == replace(fresh, status="interrupted")
    assert Entry(replace(fresh, status="done"), whole).current() == replace(fresh, status="done")


def test_an_entry_is_a_row_of_the_index_and_comes_back_from_it(tmp_path: Path) -> None:
    info = RunInfo(
        "r1", tmp_path / "r1", "2026-01-01", "done", ("a", "b"), {"model": ["m", 2]}, 5, 1, None, 8, 70,
        (ScoreMean("b", "x", 0.5, 2),), 12.5, 3,
    )  # fmt: skip
    scores = '[{"benchmark": "b", "agent": "x", "mean": 0.5, "tasks": 2}]'
    about = '{"command": ["a", "b"], "config": {"model": ["m", 2]}}'
    row = ("r1", "files", 12.5, "2026-01-01", "done", 5, 8, 1, 70, scores, about, 3)
    assert _row(info, "files") == row
    assert _entry(tmp_path, *row) == Entry(info, "files")
    for planned in (None, 0, 1):
        assert _entry(tmp_path, *row[:6], planned, *row[7:]) == Entry(replace(info, num_planned=planned), "files")
    assert (info.models, info.benchmarks, replace(info, config={"model": "m"}).models) == (("m", "2"), (), ("m",))
    for wrong in (json.dumps({"command": [], "config": []}), json.dumps({"command": []})):
        with pytest.raises((ValueError, KeyError)):
            _entry(tmp_path, *row[:10], wrong, 3)
    with pytest.raises(ValueError, match="not one of ours"):
        _entry(tmp_path, "../r1", *row[1:])
    Index(tmp_path / "none").keep([info])
    assert not (tmp_path / "none").exists()
    index, told = Index(tmp_path), list[str]()
    index.keep([info, replace(info, id="r2")])
    index.keep([])
    with closing(Database(index.path, schema=SCHEMA)) as kept, kept.write() as connection:
        connection.execute("UPDATE runs SET digest = NULL WHERE id = 'r2'")
    assert (list(index.entries(told.append)), told) == (["r1"], [])
    with closing(Database(index.path, schema=SCHEMA)) as kept, kept.write() as connection:
        connection.execute("UPDATE runs SET done = 6 WHERE id = 'r1'")
    assert index.entries(told.append) == {}
    assert told == [f"the index of runs {index.path} cannot be read and is made anew: an entry has been changed"]
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("index")] == []


def test_runs_that_the_index_does_not_know_are_asked_and_those_that_are_gone_are_dropped(tmp_path: Path) -> None:
    home, asked = tmp_path, list[str]()
    for id in ("r1", "r2", "r3"):
        (home / "runs" / id).mkdir(parents=True)
        (home / "runs" / id / DATABASE).write_text(id)

    def ask(path: Path) -> RunInfo:
        asked.append(path.name)
        return RunInfo(path.name, path, status="done", tokens=len(asked), problem="bad" if path.name == "r3" else None)

    first = listed(home, ask)
    assert ([info.id for info in first], asked) == (["r1", "r2", "r3"], ["r1", "r2", "r3"])
    (home / "runs" / "r1" / DATABASE).unlink()
    (home / "runs" / "r2" / DATABASE).write_text("changed")
    again = listed(home, ask)
    assert ([(info.id, info.tokens) for info in again], asked[3:]) == ([("r2", 4), ("r3", 5)], ["r2", "r3"])
    assert Index(home / "runs").entries().keys() == {"r2"}, "one that cannot be read is asked every time"
    assert [info.tokens for info in listed(home, ask)] == [4, 6]


def test_a_run_is_removed_whole_or_kept_with_the_reason(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(home, {}, "a") as run:
        pass
    half = run.path.with_name(".removed-before")
    half.mkdir()
    (half / DATABASE).write_text("half")
    other = run.path.with_name("other")
    other.mkdir()
    link = run.path.with_name("link")
    link.symlink_to(run.path)
    for path in (other, link):
        with pytest.raises(StoreError) as kept:
            remove_run(path)
        assert str(kept.value) == f"{path} is not the folder of a run, and is kept"
    with held(run.path / LOCK), pytest.raises(StoreError) as busy:
        remove_run(run.path)
    assert str(busy.value) == (
        f"{run.id} is being worked on by another process, which left no note of itself: wait until it ends, or end it first"
    )
    taken = run.path.with_name(".removed-taken")
    taken.mkdir()
    (taken / "file").write_text("x")
    with monkeypatch.context() as patched, pytest.raises(StoreError) as refused:
        patched.setattr(removal.secrets, "token_hex", lambda size: "taken")
        remove_run(run.path)
    assert str(refused.value) == f"{run.path} cannot be removed: Directory not empty"
    assert (run.path / DATABASE).is_file() and (taken / "file").read_text() == "x"
    link.unlink()
    remove_run(run.path)
    assert {path.name for path in run.path.parent.iterdir()} == {"other", "index.sqlite"}


def test_an_index_that_is_slow_to_tell_is_told_less_often(home: Path) -> None:
    class Slow(Index):
        def keep(self, infos: Any, gone: Any = ()) -> None:
            time.sleep(0.015)
            told.append([info.id for info in infos])

    told: list[list[str]] = []
    with create(home, {}, "a") as run:
        run._index, run._next_index_s = Slow(home / "runs"), 0.0
        began_s = time.monotonic()
        run.touch()
        assert told == [[run.id]] and run._next_index_s >= began_s + 0.015 + 0.015 / 0.005
        run.touch()
        assert len(told) == 1
