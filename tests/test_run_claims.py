"""One process at a time makes a run's attempts, or gives it scores of one name; another is told who does."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, StoreError
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.rescore import rescore
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.execute import execute
from firsthand.runs.run_names import LOCK
from firsthand.runs.store import create, open_run
from firsthand.system.lock import holder, is_held
from firsthand.task import Task
from firsthand.trace import Score

FORK = multiprocessing.get_context("fork")
TASKS = [Task(f"t{number}", "?") for number in range(12)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def until(true: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def note(file: Path, text: str) -> None:
    with file.open("a") as out:
        out.write(text + "\n")


def experiment(home: Path) -> Experiment:
    """Attempts that leave a line each, and wait until three other processes have been refused."""

    async def noting(task: Any, ctx: Any) -> str:
        await asyncio.to_thread(
            until, lambda: (home / "refused").exists() and (home / "refused").read_text().count("\n") == 3
        )
        note(home / "effects", task.id)
        return "1"

    agent = Agent("noting", Scripted({"": "1"}), noting)
    return Experiment([agent], Benchmark("b", lambda seed: TASKS, scorers=()), concurrency=4)


def resume(home: Path, run_id: str, start: Any) -> None:
    start.wait(30)
    try:
        experiment(home).resume(run_id)
    except ConfigError as error:
        note(home / "refused", str(error))
        os._exit(3)
    os._exit(0)


@pytest.mark.slow
def test_of_processes_that_resume_one_run_at_once_one_does_and_the_others_are_told_which(home: Path) -> None:
    run_id, start = experiment(home).create().id, FORK.Barrier(4)
    children = [FORK.Process(target=resume, args=(home, run_id, start)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert sorted(child.exitcode or 0 for child in children) == [0, 3, 3, 3]
    (winner,) = [child.pid for child in children if child.exitcode == 0]
    assert sorted((home / "effects").read_text().split()) == sorted(task.id for task in TASKS)
    told = (home / "refused").read_text().splitlines()
    assert len(told) == 3 and all(f"{run_id} is being run by process {winner} on " in line for line in told)
    with open_run(run_id, home) as run:
        assert run.database.read("SELECT count(*), max(try) FROM traces") == [(len(TASKS), 1)]
        assert run.status == "done" and sorted(path.name for path in run.path.glob("lock*")) == [LOCK]


@pytest.mark.slow
def test_what_is_missing_is_looked_up_by_the_holder_only(home: Path) -> None:
    """One that looked before the holder's last attempt was kept would make it once more."""
    run, bench = create(home, {}, "claims"), Benchmark("b", lambda seed: TASKS[:1], scorers=())
    made: list[str] = []

    async def noting(task: Any, ctx: Any) -> str:
        made.append(task.id)
        return "1"

    places = [Place(Agent("noting", Scripted({"": "1"}), noting), bench, TASKS[0], 0)]

    async def both() -> None:
        with open_run(run.id, home) as second:
            assert second.done() == set()
            await execute(run, places)
            await execute(second, places)

    asyncio.run(both())
    assert made == ["t0"]
    with run.claimed(), open_run(run.id, home) as other:
        with pytest.raises(ConfigError, match=f"is being run by process {os.getpid()} on "):
            asyncio.run(execute(other, places))
        assert other.benchmarks() == ["b"] and made == ["t0"]
        with run.working():  # by the holder itself
            assert run.status == "running"


def hold(path: Path, ready: Any) -> None:
    with open_run(str(path), path.parent.parent) as run, run.working():
        ready.set()
        signal.pause()


@pytest.mark.slow
def test_a_killed_holder_holds_nothing(home: Path) -> None:
    run, ready = create(home, {}, "killed"), FORK.Event()
    child = FORK.Process(target=hold, args=(run.path, ready))
    child.start()
    assert ready.wait(30)
    with pytest.raises(ConfigError, match=f"process {child.pid} on "):
        run.expect_idle()
    child.kill()
    child.join()
    run.expect_idle()
    assert run.status == "interrupted"
    with run.working():
        assert f"process {os.getpid()} on" in holder(run.path / LOCK)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", '{"pid": []}', "[" * 4000 + "\xff"])
def test_a_note_that_cannot_be_read_is_a_holder_without_a_name(home: Path, text: str) -> None:
    with create(home, {}, "note") as run, run.claimed():
        (run.path / f"{LOCK}.holder").write_bytes(text.encode("latin-1"))
        with open_run(run.id, home) as other, pytest.raises(ConfigError, match="another process, which left no note"):
            other.expect_idle()


@pytest.mark.slow
def test_a_lock_kept_by_the_child_of_a_process_that_ended_says_so(home: Path) -> None:
    run = create(home, {}, "child")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with run.claimed():
        note_file = run.path / f"{LOCK}.holder"
        note_file.write_text(json.dumps(json.loads(note_file.read_text()) | {"pid": ended.pid}))
        with pytest.raises(ConfigError, match=f"a process begun by process {ended.pid} .* which has ended itself"):
            run.expect_idle()


def test_those_that_look_whether_a_lock_is_held_do_not_see_each_other(home: Path) -> None:
    import fcntl

    lock = create(home, {}, "look").path / LOCK
    with lock.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not is_held(lock)


def test_a_lock_that_cannot_be_had_is_a_sentence(home: Path) -> None:
    run = create(home, {}, "no lock")
    (run.path / LOCK).unlink()
    (run.path / LOCK).mkdir()
    with pytest.raises(StoreError, match="cannot be written"), run.working():
        pass


@pytest.mark.slow
def test_two_scorings_under_one_name_are_one_and_under_two_names_two(home: Path) -> None:
    run = experiment(home).create()
    note(home / "refused", "\n\n")
    experiment(home).resume(run)
    given: list[str] = []

    async def slow(task: Task, trace: Any) -> Score:
        given.append(trace.task_id)
        if len(given) == 1:
            with open_run(run.id, home) as other:
                with pytest.raises(ConfigError, match=f"scores named 'mine' by process {os.getpid()} on "):
                    await rescore(other, exact_zero, name="mine")
                assert (await rescore(other, exact_zero, name="theirs")).scored == len(TASKS)
        return Score("mine", 1.0)

    async def exact_zero(task: Task, trace: Any) -> Score:
        return Score("zero", 0.0)

    assert asyncio.run(rescore(run, slow, name="mine", concurrency=1)).scored == len(given) == len(TASKS)
    assert run.database.read("SELECT name, count(*) FROM scores GROUP BY name") == [("mine", 12), ("theirs", 12)]
