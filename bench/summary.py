"""How long a summary with intervals takes over a run of a million attempts on disk.

    python bench/summary.py --attempts 1000000 --agents 4 --epochs 5

The run is made as `firsthand run` would leave it, each attempt with its own trace, in a folder that is deleted at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from firsthand.runs import store
from firsthand.runs.store import Run
from firsthand.stats.run_summary import summary
from firsthand.task import Task
from firsthand.trace import Score, Trace

BENCHMARK = "synthetic"
INSERT = (
    "INSERT INTO traces (attempt, try, benchmark, task, agent, epoch, score, stop_reason, error, calls, tokens, cost_usd,"
    " duration_s, version, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def traces(num_tasks: int, num_agents: int, epochs: int) -> Iterator[Trace]:
    """Scored attempts, task by task as a run makes them; one in a thousand failed."""
    rng = random.Random(0)
    for epoch in range(epochs):
        for task in range(num_tasks):
            ease = random.Random(task).random()
            for agent in range(num_agents):
                key = hashlib.sha256(f"{epoch} {task} {agent}".encode()).hexdigest()[:16]
                scores = (Score("exact", float(rng.random() < ease)),) if rng.random() > 0.001 else ()
                agent_json = {"name": f"agent-{agent}", "model": "none", "pattern": "direct"}
                yield Trace(
                    key, BENCHMARK, f"task-{task:07d}", agent_json, epoch, 0, "2026-11-25T00:00:00", 1.5,
                    answer=str(rng.random()), scores=scores,
                )  # fmt: skip


def fill(run: Run, num_tasks: int, num_agents: int, epochs: int) -> None:
    """Write all of it in one transaction, in the rows that `Run.append` writes."""
    run.add_tasks(BENCHMARK, (Task(f"task-{number:07d}", "What?") for number in range(num_tasks)))
    for agent in range(num_agents):
        run.add_agent(f"agent-{agent}", {"name": f"agent-{agent}"})
    with run.database.write() as connection:
        for trace in traces(num_tasks, num_agents, epochs):
            body = json.dumps(trace.to_json(), separators=(",", ":")).encode()
            digest = hashlib.sha256(body).digest()
            connection.execute("INSERT OR IGNORE INTO bodies VALUES (?, ?)", (digest, zlib.compress(body, 1)))
            row = (
                trace.id, 1, trace.benchmark, trace.task_id, trace.agent_name, trace.epoch, trace.value(), "done", None,
                1, 300, 0.0, trace.duration_s, trace.version, digest,
            )  # fmt: skip
            connection.execute(INSERT, row)
    run.finish("done")


def main() -> None:
    """Make the run, time its summary in this process and as a command, print a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    num_tasks = given.attempts // (given.agents * given.epochs)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with store.create(Path(folder), {}, "summary", command=sys.argv) as run:
            fill(run, num_tasks, given.agents, given.epochs)
            path = run.path
        made = time.perf_counter() - began
        inside = [timed(path) for _ in range(given.repeats)]
        began = time.perf_counter()
        command = [sys.executable, "-m", "firsthand", "summary", str(path)]
        printed = subprocess.run(command, env={**os.environ, "FIRSTHAND_HOME": folder}, capture_output=True, text=True)
        whole = time.perf_counter() - began
        print(printed.stdout, printed.stderr, sep="")
        size_mb = (path / "run.sqlite").stat().st_size / 1e6
    print(f"{num_tasks * given.agents * given.epochs:,} attempts, {size_mb:.0f} MB on disk, made in {made:.0f} s")
    walls, cpus = zip(*inside, strict=True)
    print(
        f"summary: median {statistics.median(walls):.2f} s of {given.repeats} (best {min(walls):.2f}, first {walls[0]:.2f})"
    )
    print(f"summary, processor time: median {statistics.median(cpus):.2f} s")
    print(f"`firsthand summary`, the process and all: {whole:.2f} s")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
          f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")  # fmt: skip


def timed(path: Path) -> tuple[float, float]:
    """Seconds from the closed file to the intervals, and those of them in which this process computed."""
    began, computed = time.perf_counter(), time.process_time()
    with store.open_run(path, path.parent) as run:
        assert summary(run)
    return time.perf_counter() - began, time.process_time() - computed


if __name__ == "__main__":
    main()
