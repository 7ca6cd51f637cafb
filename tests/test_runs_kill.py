"""`kill -9` at any instant: nothing that was acknowledged is lost, and the run opens and goes on."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.runs.database import Database
from firsthand.runs.run_names import DATABASE
from firsthand.runs.store import Run, create, open_run
from firsthand.trace import Trace
from thorough import repetitions


def work_forever(path: Path, acknowledged: Path, round_number: int) -> None:
    """Open the run and write until killed; what was acknowledged goes straight to the other file."""
    file = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    run = Run(path, Database(path / DATABASE))
    for number in range(1_000_000):
        attempt = f"{round_number}-{number}"
        run.journal(attempt).record(":0", "request", reply_to(attempt))
        os.write(file, f"reply {attempt}\n".encode())
        run.append(Trace(attempt, "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=attempt))
        os.write(file, f"trace {attempt}\n".encode())


def reply_to(attempt: str) -> dict[str, Any]:
    return {"attempt": attempt, "text": attempt * 200}


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [12, pytest.param(repetitions(150, 20), marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path, num_kills: int) -> None:
    rng = random.Random(7)
    path = create(tmp_path, {}, "kill").path
    acknowledged = tmp_path / "acknowledged"
    num_checked = 0
    for round_number in range(num_kills):
        child = multiprocessing.get_context("fork").Process(
            target=work_forever, args=(path, acknowledged, round_number)
        )
        child.start()
        before = acknowledged.stat().st_size if acknowledged.exists() else 0
        while (
            not acknowledged.exists() or acknowledged.stat().st_size <= before
        ):  # it has begun, however slow the machine
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.1))
        child.kill()
        child.join()
        assert child.exitcode == -9
        with open_run(str(path), tmp_path) as run:
            num_checked = check_all_stored(run, acknowledged, start=num_checked)
    with open_run(str(path), tmp_path) as run:
        assert check_all_stored(run, acknowledged, start=0) == num_checked > num_kills
        assert run.database.read("PRAGMA integrity_check") == [("ok",)]


def check_all_stored(run: Run, acknowledged: Path, start: int) -> int:
    """Check what was acknowledged, from line `start` on; the number of lines."""
    told = acknowledged.read_text().split("\n")[:-1] if acknowledged.exists() else []
    for line in told[start:]:
        kind, attempt = line.split()
        if kind == "reply":
            assert run.journal(attempt).find(":0", "request") == reply_to(attempt)
        else:
            assert [trace.answer for trace in run.tries(attempt)] == [attempt]
    return len(told)
