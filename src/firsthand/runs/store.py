"""A Run: a folder that records every attempt, append-only, so that it can be resumed, replayed, compared and scored again.

    <home>/runs/2026-11-25-0148-arithmetic-k3f9/
        run.sqlite      the record: config, tasks, agents, the journal of effects, traces, scores given later, preferences
        lock            held by the processes that work on the run, released by the system when they die

Bodies (replies, traces, tasks) are stored once by content. Running an attempt again adds a row with a higher try number, and
the latest counts. Many processes and threads may use one run; what a method has written survives `kill -9` once it returns.
What is kept of attempts is in `attempts.py`, how SQLite is used in `database.py`; running is in `execute.py`.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from firsthand import __version__
from firsthand.errors import StoreError
from firsthand.message import Json
from firsthand.runs.attempts import LATEST, Attempts, filters
from firsthand.runs.database import Database, plain, put
from firsthand.runs.run_names import DATABASE, LOCK, find_run, new_run_id, run_ids
from firsthand.runs.stored_journal import StoredJournal, now
from firsthand.system.lock import held, is_held
from firsthand.task import Task
from firsthand.trace import Preference

Status = Literal["running", "done", "interrupted"]
T = TypeVar("T")


@dataclass(frozen=True)
class RunInfo:
    """What a list shows of a run. `problem` is the sentence of a run that cannot be read."""

    id: str
    path: Path
    created_at: str = ""
    status: str = "unreadable"
    command: tuple[str, ...] = ()
    config: Json = field(default_factory=dict)
    num_traces: int = 0
    num_errors: int = 0
    problem: str | None = None


class Run(Attempts):
    """An open run. Made by `create` or `open_run`."""

    def __init__(self, path: Path, database: Database):
        super().__init__(path.name, database)
        self.path = path

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    # -- about the run --

    @property
    def about(self) -> Json:
        """How the run came to be: config, command, firsthand's version, the machine."""
        about = self.database.get(self._row()[2])
        if not isinstance(about, dict):
            raise self.database.damaged("the description of the run is not an object")
        return about

    @property
    def config(self) -> Json:
        """The config, as it was given."""
        config: Json = self.about["config"]
        return config

    @property
    def created_at(self) -> str:
        """When it was made: UTC, ISO 8601."""
        return str(self._row()[0])

    @property
    def status(self) -> Status:
        """`done` if all was attempted, `running` while a process works on it, else `interrupted`."""
        if self._row()[1] == "done":
            return "done"
        return "running" if self._row()[1] == "running" and is_held(self.path / LOCK) else "interrupted"

    @property
    def info(self) -> RunInfo:
        """The run's entry in a list."""
        about = self.about
        counted = "SELECT count(*), count(error) FROM traces WHERE " + LATEST
        num_traces, num_errors = self.database.read(counted, filters(None, None))[0]
        command = tuple(map(str, about.get("command", ())))
        return RunInfo(
            self.id, self.path, self.created_at, self.status, command, about["config"], num_traces, num_errors
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark the run as running. Leaving the block normally makes it `done`, any other way `interrupted`."""
        with held(self.path / LOCK):
            self.finish("running")
            try:
                yield
            except BaseException:
                self._finish_if_possible()
                raise
            self.finish("done")

    def finish(self, status: Status) -> None:
        """Set the status. `running` means nothing once no process holds the run's lock."""
        with self.database.write() as connection:
            connection.execute("UPDATE run SET status = ?", (status,))

    # -- the journal of effects --

    def journal(self, attempt_id: str) -> StoredJournal:
        """The journal of one attempt; what an interrupted try of it recorded is found again."""
        return StoredJournal(self.database, attempt_id)

    def reply(self, request: str) -> Json | None:
        """The last reply recorded anywhere in the run to the request of this hash, or None."""
        found = self.database.read(
            "SELECT reply FROM effects WHERE request = ? ORDER BY seq DESC LIMIT 1", (plain(request),)
        )
        return self.body(found[0][0]) if found else None

    # -- tasks and agents --

    def add_tasks(self, benchmark: str, tasks: Iterable[Task]) -> None:
        """Keep the tasks, secrets included. A task that differs from the one kept under its id is a StoreError."""
        with self.database.write() as connection:
            for task in tasks:
                digest = put(connection, task.to_json())
                key = (plain(benchmark), plain(task.id))
                cluster = None if task.cluster is None else plain(task.cluster)
                connection.execute("INSERT OR IGNORE INTO tasks VALUES (?, ?, ?, ?)", (*key, digest, cluster))
                kept = connection.execute("SELECT body FROM tasks WHERE benchmark = ? AND task = ?", key).fetchone()
                self._expect_same(kept[0], digest, f"task {task.id!r} of {benchmark}")

    def tasks(self) -> dict[tuple[str, str], Task]:
        """The tasks by (benchmark, task id)."""
        rows = self.database.read("SELECT benchmark, task, body FROM tasks ORDER BY rowid")
        tasks = ((benchmark, self.read(Task.from_json, body)) for benchmark, _, body in rows)
        return {(benchmark, task.id): task for benchmark, task in tasks}

    def benchmarks(self) -> list[str]:
        """The benchmarks whose tasks are kept, in the order they came."""
        rows = self.database.read("SELECT benchmark FROM tasks GROUP BY benchmark ORDER BY min(rowid)")
        return [str(benchmark) for (benchmark,) in rows]

    def metadata(self, benchmark: str) -> Iterator[tuple[str, Json]]:
        """Id and metadata of each task of the benchmark, in their order; one task is in memory at a time."""
        sql = "SELECT task, body FROM tasks WHERE benchmark = ? ORDER BY rowid"
        for task, body in self.database.read(sql, (plain(benchmark),)):
            found = self.body(body).get("metadata")
            yield str(task), found if isinstance(found, dict) else {}

    def clusters(self) -> dict[str, dict[str, str]]:
        """Benchmark -> task id -> cluster, of those tasks that belong to one."""
        found: dict[str, dict[str, str]] = {}
        for benchmark, task, cluster in self.database.read(
            "SELECT benchmark, task, cluster FROM tasks WHERE cluster IS NOT NULL"
        ):
            found.setdefault(benchmark, {})[task] = cluster
        return found

    def add_agent(self, name: str, agent: Json) -> None:
        """Keep an agent as data. One that differs from the one kept under its name is a StoreError."""
        with self.database.write() as connection:
            digest = put(connection, agent, exact=False)
            connection.execute("INSERT OR IGNORE INTO agents VALUES (?, ?)", (plain(name), digest))
            kept = connection.execute("SELECT body FROM agents WHERE name = ?", (plain(name),)).fetchone()
            self._expect_same(kept[0], digest, f"agent {name!r}")

    def agents(self) -> dict[str, Json]:
        """The agents as data, by name."""
        rows = self.database.read("SELECT name, body FROM agents ORDER BY rowid")
        return {str(name): self.body(body) for name, body in rows}

    # -- preferences --

    def add_preference(self, preference: Preference) -> None:
        """Keep a vote or a verdict."""
        with self.database.write() as connection:
            digest = put(connection, preference.to_json())
            connection.execute(
                "INSERT INTO preferences (task, body) VALUES (?, ?)", (plain(preference.task_id), digest)
            )

    def preferences(self) -> list[Preference]:
        """All votes and verdicts, the oldest first."""
        rows = self.database.read("SELECT body FROM preferences ORDER BY seq")
        return [self.read(Preference.from_json, body) for (body,) in rows]

    # -- inside --

    def _row(self) -> tuple[Any, ...]:
        rows = self.database.read("SELECT created_at, status, about FROM run")
        if not rows:
            raise StoreError(f"{self.path} was never begun: its maker was stopped at once. Delete the folder")
        return rows[0]

    def _expect_same(self, kept: Any, given: bytes, what: str) -> None:
        if kept != given:
            raise StoreError(
                f"{what} is not the one that run {self.id} already holds, so their results cannot be mixed: "
                "start a new run, or give it a name of its own"
            )

    def _finish_if_possible(self) -> None:
        with suppress(StoreError):  # a full disk is reported already, and the lock's release says the same as this
            self.finish("interrupted")


def create(
    home: Path,
    config: Json,
    name_hint: str,
    *,
    command: Iterable[str] | None = None,
    figures: Mapping[str, str] | None = None,
) -> Run:
    """A new run under `home`. `command` is what was typed, by default this process's.

    `figures` are the benchmarks that have figures of their own, by name, each with the words it is made of.
    """
    about = {
        "config": config,
        "command": list(sys.argv if command is None else command),
        "firsthand": __version__,
        "machine": describe_machine(),
        "figures": dict(figures or {}),
    }
    path = home / "runs" / new_run_id(datetime.now(UTC), name_hint)
    try:
        path.mkdir(parents=True)
        (path / LOCK).touch()
    except OSError as error:
        if path.is_dir():  # the same four letters in the same minute
            return create(home, config, name_hint, command=command, figures=figures)
        raise StoreError(
            f"no run can be made in {home / 'runs'} ({error.strerror}): set FIRSTHAND_HOME to a folder with room"
        ) from None
    run = Run(path, Database(path / DATABASE, create=True))
    with run.database.write() as connection:
        connection.execute("INSERT INTO run VALUES (1, ?, 'running', ?)", (now(), put(connection, about, exact=False)))
    return run


def open_run(ref: str | Path, home: Path) -> Run:
    """The run that `ref` names: `last`, an id, a unique beginning of one, or the path of its folder."""
    path = find_run(str(ref), home)
    run = Run(path, Database(path / DATABASE))
    run._row()
    return run


def list_runs(home: Path) -> list[RunInfo]:
    """All runs under `home`, the newest first. One that cannot be read is listed with its problem."""
    found = [_info(home / "runs" / run_id) for run_id in run_ids(home)]
    return sorted(found, key=lambda info: (info.id[:15], info.created_at), reverse=True)


def describe_machine() -> Json:
    """What a reader of the numbers needs to know of this machine; no names of users or hosts."""
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def _info(path: Path) -> RunInfo:
    try:
        with Run(path, Database(path / DATABASE)) as run:
            return run.info
    except StoreError as error:
        return RunInfo(path.name, path, problem=str(error))
