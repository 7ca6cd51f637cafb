"""Attempts are found by an index of the run's file, and runs by an index of the data home, opening nothing else."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import make_run
from firsthand import cli
from firsthand.errors import UnknownName
from firsthand.runs import attempts, index, run_folder
from firsthand.runs.execute import execute
from firsthand.runs.index import INDEX, Index, RunInfo
from firsthand.runs.run_names import DATABASE
from firsthand.runs.score_totals import ScoreMean
from firsthand.runs.store import Run, create, list_runs, open_run
from firsthand.trace import Failure, Score, Trace, new_trace_id

OPENED: list[str] = []
"""The files that SQLite has been asked to open in this process."""
sys.addaudithook(lambda event, values: OPENED.append(str(values[0])) if event == "sqlite3.connect" else None)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The runs that are opened in the block."""
    found: list[str] = []
    before = len(OPENED)
    yield found
    found += [name for name in OPENED[before:] if DATABASE in name]


def add(run: Run, task: int, epoch: int = 0, agent: str = "ada", id: str = "", **changes: Any) -> Trace:
    key = f"{abs(hash((agent, task, epoch))):016x}"[:16]
    trace = Trace(id or new_trace_id(), "sums", f"t/{task}", {"name": agent}, epoch, 0, "", 1.0, place=key,
                  scores=(Score("exact", float(task % 2)),))  # fmt: skip
    run.append(replace(trace, **changes))
    return replace(trace, **changes)


# -- attempts --


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with create(tmp_path, {}, "lookup") as run:
        yield run


def test_an_attempt_is_found_by_id_place_name_or_beginning(run: Run) -> None:
    first, again = add(run, 1, id="01aaaa1"), add(run, 1, id="01aaaa2")
    other = add(run, 2, id="01bbbb", place="ffff0000")
    assert run.trace("01aaaa1") == first and run.trace("01aaaa2") == again  # each try by its id
    assert run.trace(first.place) == again == run.trace(first.place[:10])  # the latest of its place
    assert run.trace("01b") == other == run.trace("ffff") == run.trace("sums/t/2/ada/0") == run.trace("sums/t/2/")
    assert run.trace("sums/t/1") == again
    with pytest.raises(UnknownName, match=r"'01a' names 2 attempts, such as sums/t/1/ada/0 \(01aaaa1\), .*01aaaa2"):
        run.trace("01a")
    with pytest.raises(UnknownName, match="'sums/t' names 2 attempts"):
        run.trace("sums/t")
    with pytest.raises(UnknownName, match="no attempt 'sums/t/3'"):
        run.trace("sums/t/3")
    with pytest.raises(UnknownName, match="no attempt ''"):
        run.trace("")
    many = [add(run, number, id=f"02{number:04d}") for number in range(10, 60)]
    with pytest.raises(UnknownName, match="'02' names 20 or more attempts"):
        run.trace("02")
    assert run.trace("020059") == many[-1]


@pytest.mark.slow
def test_lookups_are_searches_in_an_index_and_read_no_body_but_one(run: Run) -> None:
    made = [add(run, number) for number in range(300)]
    values = {"ref": "x", "end": "y", "folder": "x/", "folder_end": "y"}
    for conditions in attempts.LOOKUPS:
        for condition in conditions:
            plan = run.database.read(f"EXPLAIN QUERY PLAN {attempts.match_sql(condition)}", values)
            steps = [str(row[3]) for row in plan]
            assert steps[0].startswith("SEARCH traces USING") and not any("SCAN" in step for step in steps), steps
    with run.database.write() as connection:  # all other bodies may be gone
        (kept,) = connection.execute("SELECT body FROM traces WHERE id = ?", (made[7].id,)).fetchone()
        connection.execute("DELETE FROM bodies WHERE sha256 <> ?", (kept,))
    assert run.trace(made[7].id) == made[7] == run.trace(made[7].place) == run.trace("sums/t/7")


# -- runs --


def some_runs(home: Path, count: int = 4) -> list[Run]:
    made = []
    for number in range(count):
        with create(home, {"benchmarks": ["sums"], "model": ["m"], "pattern": ["cot", "react"]}, f"n{number}") as run:
            run.plan(3)
            with run.working():
                for task in range(number):
                    add(run, task)
            made.append(run)
    return made


@pytest.mark.slow
def test_listing_runs_opens_none_of_them(tmp_path: Path) -> None:
    made = some_runs(tmp_path)
    with opened() as files:
        infos = {info.id: info for info in list_runs(tmp_path)}
    assert files == [] and list(infos) != [] and infos.keys() == {run.id for run in made}
    info = infos[made[3].id]
    with open_run(made[3].path, tmp_path) as again:
        assert replace(again.info, updated_at=info.updated_at) == info
    assert (info.status, info.num_traces, info.num_planned, info.num_errors) == ("done", 3, 3, 0)
    assert (info.benchmarks, info.models, info.patterns) == (("sums",), ("m",), ("cot", "react"))
    assert info.scores == (ScoreMean("sums", "ada", 1 / 3, 3),)


@pytest.mark.slow
def test_a_missing_index_is_made_and_a_run_copied_in_changed_or_deleted_is_noticed(tmp_path: Path) -> None:
    one, two, three, four = some_runs(tmp_path)
    (tmp_path / "runs" / INDEX).unlink()
    with opened() as files:
        assert len(list_runs(tmp_path)) == 4
    assert len(files) == 4
    with opened() as files:
        assert len(list_runs(tmp_path)) == 4
    assert files == []
    shutil.copytree(two.path, tmp_path / "runs" / "2020-01-01-0000-copied-aaaa")
    shutil.rmtree(one.path)
    with sqlite3.connect(three.path / DATABASE) as connection:
        connection.execute("DELETE FROM traces")
    connection.close()
    with opened() as files:
        infos = {info.id: info for info in list_runs(tmp_path)}
    assert {Path(name.split("?")[0]).parent.name for name in files} == {"2020-01-01-0000-copied-aaaa", three.id}
    assert infos.keys() == {two.id, three.id, four.id, "2020-01-01-0000-copied-aaaa"}
    assert infos[three.id].num_traces == 0 and infos["2020-01-01-0000-copied-aaaa"].num_traces == 1
    assert Index(tmp_path / "runs").entries().keys() == infos.keys()
    shutil.rmtree(two.path)  # and none is new
    assert {info.id for info in list_runs(tmp_path)} == infos.keys() - {two.id}
    assert Index(tmp_path / "runs").entries().keys() == infos.keys() - {two.id}


def ruin(path: Path, how: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(how)
    connection.close()


DAMAGES = [
    "UPDATE runs SET scores = '{'",
    "UPDATE runs SET about = '[]'",
    'UPDATE runs SET about = \'{"command": [], "config": 3}\'',
    "UPDATE runs SET scores = '[{\"agent\": 1}]'",
    "UPDATE runs SET done = 'many'",
    "UPDATE runs SET id = '../..' WHERE rowid = (SELECT min(rowid) FROM runs)",
    "PRAGMA application_id = 5",
    "PRAGMA user_version = 99",
    "CREATE TRIGGER evil AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
    "DROP TABLE runs",
]


@pytest.mark.slow
@pytest.mark.parametrize("how", [*DAMAGES, "garbage", "empty"])
def test_a_damaged_index_is_made_anew_with_one_warning(tmp_path: Path, how: str, capsys: Any, monkeypatch: Any) -> None:
    some_runs(tmp_path)
    path = tmp_path / "runs" / INDEX
    expected = [replace(info, updated_at=0.0) for info in list_runs(tmp_path)]
    if how in ("garbage", "empty"):
        path.write_bytes(b"x" * 5000 if how == "garbage" else b"")
    else:
        ruin(path, how)
    warnings: list[str] = []
    assert [replace(info, updated_at=0.0) for info in list_runs(tmp_path, warnings.append)] == expected
    assert len(warnings) == 1 and str(path) in warnings[0] and "\n" not in warnings[0]
    with opened() as files:
        assert len(list_runs(tmp_path, warnings.append)) == len(expected) and len(warnings) == 1
    assert files == []


@pytest.mark.slow
def test_an_index_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    made = some_runs(tmp_path)
    path = tmp_path / "runs" / INDEX
    path.unlink()
    path.mkdir()
    assert {info.id for info in list_runs(tmp_path)} == {run.id for run in made}
    with open_run(made[0].path, tmp_path) as run:
        add(run, 9)
        assert len(run.done()) == 1


@pytest.mark.slow
def test_a_run_that_goes_on_is_listed_from_the_index_too(tmp_path: Path, monkeypatch: Any) -> None:

    monkeypatch.setattr(run_folder, "INDEX_S", 0.0)
    monkeypatch.setattr(run_folder, "INDEX_SHARE", 1e9)
    with create(tmp_path, {}, "live") as run, run.working():
        for task in range(3):
            add(run, task)
            with opened() as files:
                (info,) = list_runs(tmp_path)
            assert files == [] and (info.status, info.num_traces) == ("running", task + 1)
        monkeypatch.setattr(run_folder, "INDEX_S", 60.0)
        add(run, 3)
        add(run, 4)
        assert list_runs(tmp_path)[0].num_traces == 4  # told at most so often
        monkeypatch.setattr(index, "RECENT_S", 0.0)
        assert list_runs(tmp_path)[0].num_traces == 5  # an entry that is not recent is asked for anew
    assert list_runs(tmp_path)[0].status == "done"


@pytest.mark.slow
def test_the_index_is_told_of_each_change_at_once_or_when_the_run_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "INDEX_SHARE", 1e9)
    kept = Index(tmp_path / "runs")
    for seconds in (0.0, 3600.0):
        monkeypatch.setattr(run_folder, "INDEX_S", seconds)
        run = create(tmp_path, {}, "told")
        first = add(run, 1)

        def failed(task: int, run: Run = run) -> None:
            add(run, task, scores=(), error=Failure("E", "gone"))

        def finished(run: Run = run) -> None:
            with run.claimed():
                run.finish("done")

        fields = []
        for change in (
            lambda run=run: run.plan(7), lambda: failed(2), lambda run=run: add(run, 3, agent="bob"),
            lambda run=run, first=first: run.add_score(first, 1, "late", "by", Score("late", 0.25)), finished,
        ):  # fmt: skip
            before = kept.entries()[run.id].info
            change()
            after = kept.entries()[run.id].info
            fields.append([name for name in vars(after) if vars(after)[name] != vars(before)[name]])
            assert seconds or replace(after, updated_at=0.0) == replace(run.info, updated_at=0.0)
        assert fields == ([[]] * 5 if seconds else [
            ["num_planned", "updated_at"], ["num_traces", "num_errors", "scores", "updated_at"],
            ["num_traces", "scores", "updated_at"], ["updated_at"], ["status", "updated_at"],
        ])  # fmt: skip
        whole = replace(run.info, updated_at=0.0)
        run.close()
        closed = kept.entries()[run.id]
        assert replace(closed.info, updated_at=0.0) == whole and closed.current() == closed.info
        run.close()
        with open_run(run.path, tmp_path) as again:
            assert again.info.num_planned == 7
        assert kept.entries()[run.id] == closed, "a run that was only read tells nothing"


def test_a_run_that_cannot_be_read_any_more_is_closed_and_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "told")
    before = Index(tmp_path / "runs").entries()
    add(run, 1)
    with run.database.write() as connection:
        connection.execute("ALTER TABLE traces RENAME TO hidden")
    run._next_index_s = 0.0
    run.touch()
    run.close()
    assert Index(tmp_path / "runs").entries() == before != {}
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        run.database._connection.execute("SELECT 1")


def test_of_scores_given_later_alone_a_list_has_the_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "INDEX_S", 0.0)
    monkeypatch.setattr(run_folder, "INDEX_SHARE", 1e9)
    with create(tmp_path, {}, "later") as run:
        made = add(run, 1, scores=())
        assert Index(tmp_path / "runs").entries()[run.id].info.scores == ()
        run.add_score(made, 1, "late", "by", Score("late", 0.25))
        assert Index(tmp_path / "runs").entries()[run.id].info.scores == (ScoreMean("sums", "ada", 0.25, 1),)


def begin_and_wait(home: Path, ready: Any) -> None:
    with create(home, {}, "killed") as run, run.working():
        add(run, 1)
        add(run, 2)
        ready.set()
        time.sleep(60)


@pytest.mark.slow
def test_a_run_that_was_killed_is_listed_as_interrupted_with_what_it_holds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    child = context.Process(target=begin_and_wait, args=(tmp_path, ready))
    child.start()
    assert ready.wait(60)
    assert list_runs(tmp_path)[0].status == "running"
    child.kill()
    child.join()
    (info,) = list_runs(tmp_path)
    assert (info.status, info.num_traces) == ("interrupted", 2)
    with opened() as files:
        assert list_runs(tmp_path) == [info]
    assert files == []


def test_a_run_elsewhere_leaves_no_index_beside_it(tmp_path: Path) -> None:
    (run, *_) = some_runs(tmp_path, 1)
    shutil.copytree(run.path, tmp_path / "elsewhere" / run.id)
    with open_run(tmp_path / "elsewhere" / run.id, tmp_path) as copy:
        add(copy, 1)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [run.id]


@pytest.mark.slow
def test_the_command_shows_what_is_left_and_says_once_that_the_index_is_damaged(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    some_runs(tmp_path, 2)
    (tmp_path / "runs" / INDEX).write_bytes(b"nonsense" * 500)
    assert cli.main(["runs"]) == 0
    out, err = capsys.readouterr()
    assert "1/3" in out and err.count("made anew") == 1
    assert cli.main(["runs"]) == 0 and capsys.readouterr().err == ""


def test_execute_says_how_many_attempts_there_are_to_be(tmp_path: Path) -> None:
    with create(tmp_path, {}, "planned") as run:
        asyncio.run(execute(run, make_run.places()[:5]))
        assert run.info.num_planned == 5 == run.info.num_traces
        assert isinstance(run.info, RunInfo)
