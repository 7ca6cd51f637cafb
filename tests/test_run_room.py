"""A run that met a full disk, at its creation or later, can be resumed, or left nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import StoreError
from firsthand.experiment.experiment import Experiment
from firsthand.providers.scripted import Scripted
from firsthand.runs.run_names import DATABASE
from firsthand.runs.store import create, list_runs, open_run
from firsthand.task import Task

NUM_TASKS = 12


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def experiment(home: Path) -> Experiment:
    """Attempts with effects of 3 kB that do not compress, each of which leaves a line outside."""

    async def noisy(task: Any, ctx: Any) -> str:
        ctx = await ctx.say(task.prompt).generate()
        with (home / "effects").open("a") as out:
            out.write(f"{task.id}\n")
        return str(ctx.text)

    noise = Random(5)
    tasks = [Task(f"t{number}", noise.randbytes(1500).hex()) for number in range(NUM_TASKS)]
    agent = Agent("noisy", Scripted({"": "1"}), noisy)
    return Experiment([agent], Benchmark("b", lambda seed: tasks, scorers=()), concurrency=1)


def run_with_little_room(made: Experiment, limit_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    try:
        made.run()
    except StoreError:
        os._exit(3)
    os._exit(0)


def left_after(home: Path, limit_bytes: int) -> int | None:
    """Run with files no longer than the limit; how many attempts were kept, None if no run was."""
    child = multiprocessing.get_context("fork").Process(
        target=run_with_little_room, args=(experiment(home), limit_bytes)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 3
    runs = list_runs(home)
    assert all(info.problem is None for info in runs) and len(runs) <= 1
    return runs[0].num_traces if runs else None


@pytest.mark.slow
def test_a_run_that_met_a_full_disk_is_resumed_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    for limit_bytes in [0, 4096, 97_000, 112_000, 150_000, 200_000, 260_000, 330_000, 400_000]:
        home = tmp_path / str(limit_bytes)
        home.mkdir()
        monkeypatch.setenv("FIRSTHAND_HOME", str(home))
        kept.append(left_after(home, limit_bytes))
        assert kept[-1] is not None or list((home / "runs").glob("*")) == []
        if kept[-1] is not None:
            with experiment(home).resume("last") as run:
                assert run.status == "done" and len(run.done()) == NUM_TASKS
                assert run.database.read("PRAGMA integrity_check") == [("ok",)]
    assert None in kept and 0 in kept and any(kept)


@pytest.mark.parametrize("size", [0, 1, 4095])
def test_a_run_whose_maker_was_killed_at_once_says_that_it_cannot_be_resumed(home: Path, size: int) -> None:
    with create(home, {}, "killed") as run:
        content = (run.path / DATABASE).read_bytes()
    for name in (DATABASE, f"{DATABASE}-wal"):
        (run.path / name).write_bytes(b"")
    with pytest.raises(StoreError, match=r"was never begun, so it cannot be resumed: .* Delete the folder"):
        open_run(run.id, home)
    assert [info.status for info in list_runs(home)] == ["unreadable"]
    if size:
        (run.path / DATABASE).write_bytes(content[:size])
        with pytest.raises(StoreError):
            open_run(run.id, home)


def test_no_room_for_another_file_is_a_sentence(home: Path) -> None:
    mount = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=4m,nr_inodes=3",
        "tmpfs",
        str(home),
    ]  # for it, runs, and the run's folder
    if os.getuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        with pytest.raises(StoreError, match=r"No space left on device\), and nothing of it is left"):
            create(home, {}, "full")
        assert list((home / "runs").iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)
