"""A Run: a folder that records every attempt, append-only, so that it can be resumed, replayed, compared and scored again.

    <home>/runs/2026-11-25-0148-arithmetic-k3f9/
        run.sqlite      the record: config, tasks, agents, the journal of effects, traces, scores given later, preferences
        lock            held by the processes that work on the run, released by the system when they die

Bodies (replies, traces, tasks) are stored once by content. Running an attempt again adds a row with a higher try number, and
the latest counts. Many processes and threads may use one run; what a method has written survives `kill -9` once it returns.
How SQLite is used is in `database.py`; running is in `execute.py`.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from firsthand import __version__
from firsthand.context import cost_of
from firsthand.errors import StoreError, UnknownName, unknown
from firsthand.lock import held, is_held
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.runs.database import Database, plain, put
from firsthand.runs.home import DATABASE, LOCK, find_run, new_run_id, run_ids
from firsthand.runs.journal import StoredJournal, now
from firsthand.task import Task
from firsthand.trace import Preference, Score, Trace

Status = Literal["running", "done", "interrupted"]
T = TypeVar("T")
_PAGE = 200
_LATEST = (
    "NOT EXISTS (SELECT 1 FROM traces later WHERE later.attempt = traces.attempt AND later.try > traces.try)"
    " AND (:benchmark IS NULL OR benchmark = :benchmark) AND (:agent IS NULL OR agent = :agent)"
)


@dataclass(frozen=True)
class TraceRow:
    """What a list shows of a trace, read without its body."""

    id: str
    benchmark: str
    task_id: str
    agent: str
    epoch: int
    score: float | None
    """The value of the first score; None if the attempt, or the scoring of it, failed."""
    stop_reason: str
    error: str | None
    num_calls: int
    tokens: int
    cost_usd: float
    duration_s: float

    @property
    def name(self) -> str:
        """Its place, as `Run.trace` takes it: benchmark/task/agent/epoch."""
        return f"{self.benchmark}/{self.task_id}/{self.agent}/{self.epoch}"


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


class Run:
    """An open run. Made by `create` or `open_run`."""

    def __init__(self, path: Path, database: Database):
        self.path = path
        self.database = database

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    # -- about the run --

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.path.name

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
        counted = "SELECT count(*), count(error) FROM traces WHERE " + _LATEST
        num_traces, num_errors = self.database.read(counted, _filters(None, None))[0]
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
        return self._object(found[0][0]) if found else None

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
        tasks = ((benchmark, self._read(Task.from_json, body)) for benchmark, _, body in rows)
        return {(benchmark, task.id): task for benchmark, task in tasks}

    def benchmarks(self) -> list[str]:
        """The benchmarks whose tasks are kept, in the order they came."""
        rows = self.database.read("SELECT benchmark FROM tasks GROUP BY benchmark ORDER BY min(rowid)")
        return [str(benchmark) for (benchmark,) in rows]

    def metadata(self, benchmark: str) -> Iterator[tuple[str, Json]]:
        """Id and metadata of each task of the benchmark, in their order; one task is in memory at a time."""
        sql = "SELECT task, body FROM tasks WHERE benchmark = ? ORDER BY rowid"
        for task, body in self.database.read(sql, (plain(benchmark),)):
            found = self._object(body).get("metadata")
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
        return {str(name): self._object(body) for name, body in rows}

    # -- traces --

    def append(self, trace: Trace) -> None:
        """Keep a finished attempt. What in it is not JSON, such as a note of a pattern, is kept as text."""
        if not _is_tree(trace):
            raise StoreError(f"trace {trace.id} has a message whose parent does not come before it: it cannot be kept")
        key = plain(trace.id)
        usage = trace.usage
        with self.database.write() as connection:
            columns = (
                plain(trace.benchmark), plain(trace.task_id), plain(trace.agent_name), trace.epoch,
                trace.value(), plain(trace.stop_reason),
                plain(_in_a_line(trace)) if trace.error else None,
                len(trace.calls), usage.total_tokens, usage.cost_usd, trace.duration_s, trace.version,
                put(connection, trace.to_json(), exact=False),
            )  # fmt: skip
            connection.execute(
                "INSERT INTO traces (attempt, try, benchmark, task, agent, epoch, score, stop_reason, error, calls,"
                " tokens, cost_usd, duration_s, version, body)"
                " SELECT ?, coalesce(max(try), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM traces WHERE attempt = ?",
                (key, *columns, key),
            )

    def traces(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[Trace]:
        """The latest trace of each attempt, in the order they were finished; few of them are in memory at a time."""
        for trace, _ in self.tried(benchmark=benchmark, agent=agent):
            yield trace

    def tried(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[tuple[Trace, int]]:
        """The same, each with the number of its try, from 1 on."""
        for row, number, body in self._latest(benchmark, agent):
            trace = self._read(_trace_from_json, body)
            if trace.id != row.id and plain(trace.id) != row.id:
                raise self.database.damaged("a trace is not the one its row says")
            yield self._with_scores(trace, number), number

    def samples(self, benchmark: str) -> list[Trace]:
        """A scored attempt at the benchmark, and one of each score given later: what kinds of scores there are."""
        own = "SELECT attempt FROM traces WHERE benchmark = ? AND score IS NOT NULL LIMIT 1"
        later = (
            "SELECT traces.attempt FROM scores JOIN traces ON traces.attempt = scores.attempt"
            " WHERE benchmark = ? AND name = ? AND value IS NOT NULL LIMIT 1"
        )
        asked = [(own, (plain(benchmark),)), *((later, (plain(benchmark), plain(n))) for n in self.score_names())]
        attempts = dict.fromkeys(str(id) for sql, given in asked for (id,) in self.database.read(sql, given))
        return [self.tries(id)[-1] for id in attempts]

    def rows(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[TraceRow]:
        """What a list shows of the latest trace of each attempt, in the order they were finished."""
        return (row for row, _, _ in self._latest(benchmark, agent))

    def trace(self, ref: str) -> Trace:
        """The trace that `ref` names: a unique beginning of its id, or benchmark/task/agent/epoch, as far as needed."""
        rows = list(self.rows())
        wanted = plain(ref)
        names = [row.name for row in rows]
        matching = [row for row in rows if wanted in (row.id, row.name)]
        matching = matching or [row for row in rows if wanted and row.id.startswith(wanted)]
        matching = matching or [row for row in rows if wanted and row.name.startswith(wanted.rstrip("/") + "/")]
        if not matching:
            raise unknown("trace", ref, [*names, *(row.id for row in rows)], see=f"firsthand runs {self.id}")
        if len(matching) > 1:
            few = ", ".join(f"{row.name} ({row.id})" for row in matching[:3])
            raise UnknownName(f"{ref!r} names {len(matching)} traces, such as {few}: give more of it")
        return self.tries(matching[0].id)[-1]

    def tries(self, trace_id: str) -> list[Trace]:
        """All traces of one attempt, the first try first."""
        rows = self.database.read("SELECT try, body FROM traces WHERE attempt = ? ORDER BY try", (plain(trace_id),))
        return [self._with_scores(self._read(_trace_from_json, body), number) for number, body in rows]

    def done(self, *, errors: bool = True) -> set[str]:
        """The ids of the finished attempts; with `errors=False` without those whose latest try failed."""
        sql = f"SELECT attempt FROM traces WHERE {_LATEST} AND (:errors OR error IS NULL)"
        return {str(attempt) for (attempt,) in self.database.read(sql, _filters(None, None) | {"errors": errors})}

    def spent(self) -> tuple[Usage, int]:
        """What finished attempts and their judges cost, every try: tokens (as prompt tokens), money, and how many calls."""
        sql = "SELECT coalesce(sum(tokens), 0), coalesce(sum(cost_usd), 0.0), coalesce(sum(calls), 0) FROM traces"
        tokens, cost_usd, num_calls = self.database.read(sql)[0]
        judges = (
            "SELECT reply FROM effects WHERE effect LIKE 'scorer %|%' AND attempt IN (SELECT attempt FROM traces)"
            " GROUP BY attempt, effect, request"
        )
        replies = [self._object(digest) for (digest,) in self.database.read(judges)]
        usage = Usage(prompt_tokens=tokens, cost_usd=cost_usd)
        for reply in replies:
            judged = cost_of(reply)
            usage += Usage(prompt_tokens=judged.total_tokens, cost_usd=judged.cost_usd)
        return usage, num_calls + len(replies)

    # -- scores given later --

    def add_score(self, trace: Trace, number: int, name: str, scorer: str, score: Score) -> None:
        """Keep a score that the try of this number was given later, under a name; of several the last one counts.

        `scorer` says in words what gave it. Under one name there are scores of one scorer only: else it is a StoreError.
        """
        with self.database.write() as connection:
            kept = connection.execute(
                "SELECT scorer FROM scores WHERE name = ? AND scorer <> ? LIMIT 1", (plain(name), plain(scorer))
            ).fetchone()
            if kept is not None:
                raise StoreError(
                    f"run {self.id} has scores named {name!r} already, given by {kept[0]}: "
                    "give the new ones another name, as in --as NAME"
                )
            connection.execute(
                "INSERT INTO scores (attempt, try, name, scorer, value, body, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    plain(trace.id),
                    number,
                    plain(name),
                    plain(scorer),
                    None if score.failed else score.value,
                    put(connection, asdict(score), exact=False),
                    now(),
                ),
            )

    def score_names(self) -> dict[str, str]:
        """The names of scores given later, each with what gave them."""
        rows = self.database.read("SELECT name, scorer FROM scores GROUP BY name ORDER BY min(seq)")
        return {str(name): str(scorer) for name, scorer in rows}

    def scored(self, name: str) -> dict[tuple[str, int], bool]:
        """The attempts and tries that have a score of that name given later, and whether the last one is a score at all."""
        rows = self.database.read("SELECT attempt, try, value FROM scores WHERE name = ? ORDER BY seq", (plain(name),))
        return {(str(attempt), int(number)): value is not None for attempt, number, value in rows}

    def _with_scores(self, trace: Trace, number: int) -> Trace:
        """The trace with its later scores after its own."""
        rows = self.database.read(
            "SELECT name, body FROM scores WHERE attempt = ? AND try = ? ORDER BY seq", (plain(trace.id), number)
        )
        if not rows:
            return trace
        later = {str(name): self._read(lambda body: Score(**body), body) for name, body in rows}
        return trace.scored((*trace.scores, *later.values()))

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
        return [self._read(Preference.from_json, body) for (body,) in rows]

    # -- inside --

    def _row(self) -> tuple[Any, ...]:
        rows = self.database.read("SELECT created_at, status, about FROM run")
        if not rows:
            raise StoreError(f"{self.path} was never begun: its maker was stopped at once. Delete the folder")
        return rows[0]

    def _latest(self, benchmark: str | None, agent: str | None) -> Iterator[tuple[TraceRow, int, Any]]:
        """The rows page by page, so that a slow reader holds no transaction open."""
        sql = (
            "SELECT seq, try, attempt, benchmark, task, agent, epoch, score, stop_reason, error, calls, tokens, cost_usd,"
            f" duration_s, body FROM traces WHERE seq > :after AND {_LATEST} ORDER BY seq LIMIT {_PAGE}"
        )
        after = -1 << 63
        while rows := self.database.read(sql, _filters(benchmark, agent) | {"after": after}):
            for _, number, *columns, body in rows:
                yield TraceRow(*columns), number, body
            after = rows[-1][0]

    def _read(self, from_json: Callable[[Json], T], digest: Any) -> T:
        body = self._object(digest)
        try:
            return from_json(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.database.damaged(f"a record is not what was expected: {error!r}") from None

    def _object(self, digest: Any) -> Json:
        body = self.database.get(digest)
        if not isinstance(body, dict):
            raise self.database.damaged("a body is not a JSON object")
        return body

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


def _in_a_line(trace: Trace) -> str:
    """The error for a list, which is kept as plain text: of a protected task its kind alone, for a message may quote."""
    assert trace.error is not None
    return trace.error.kind if trace.protected is not None else f"{trace.error.kind}: {trace.error.message}"


def _trace_from_json(body: Json) -> Trace:
    trace = Trace.from_json(body)
    if not _is_tree(trace):
        raise ValueError("a message's parent does not come before it")
    return trace


def _is_tree(trace: Trace) -> bool:
    """Whether each message comes after its parent: in a circle, walking up to the first message would never end."""
    return all(node.parent is None or 0 <= node.parent < index for index, node in enumerate(trace.nodes))


def _filters(benchmark: str | None, agent: str | None) -> dict[str, Any]:
    return {
        "benchmark": None if benchmark is None else plain(benchmark),
        "agent": None if agent is None else plain(agent),
    }
