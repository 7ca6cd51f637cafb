"""Run: a folder that records every attempt, append-only, so that it can be resumed, followed, compared and scored again.

    <home>/runs/2026-11-25-0148-arithmetic-k3f9/
        run.sqlite      config, tasks, agents, the journal of effects, traces, later scores, preferences, the live feed
        lock            held by the one process that works on the run, released by the system when it dies
    <home>/runs/index.sqlite    what a list of runs shows, see `index.py`

Bodies (replies, traces, tasks) are stored once by content. An attempt at a place that was attempted before is its next try,
and the latest try counts. Many processes and threads may use one run, and one at a time makes its attempts; what a method
has written survives `kill -9` once it returns. `store.py` makes, opens and lists runs; `attempts.py` and
`stored_tasks.py` have the queries, `database.py` the way SQLite is used; `execute.py` carries a run out.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from firsthand.errors import StoreError
from firsthand.message import Json, canonical
from firsthand.model import Usage
from firsthand.preference import Preference
from firsthand.runs import attempts, later_scores, score_totals, stored_tasks
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.attempts import LATEST, TraceRow, body_of, filters, insert_trace, is_tree, read_as, read_trace
from firsthand.runs.database import Database, never_begun, plain, put
from firsthand.runs.feed import Feed
from firsthand.runs.index import Index, RunInfo
from firsthand.runs.integrity import SEALED, check_bodies, check_file, check_numbers, seal
from firsthand.runs.later_scores import with_scores
from firsthand.runs.retried_attempts import Retried, retried
from firsthand.runs.run_claims import claim_attempts, claim_scoring, expect_idle
from firsthand.runs.run_names import LOCK
from firsthand.runs.stored_journal import StoredJournal
from firsthand.runs.stored_tasks import another
from firsthand.runs.task_groups import task_groups
from firsthand.system.address_secrets import without_secrets, without_secrets_in
from firsthand.system.lock import is_held
from firsthand.task import Task
from firsthand.trace import Score, Trace

Status = Literal["running", "done", "interrupted"]
_PARTS = (
    ("config", dict),
    ("protocols", dict),
    ("reducers", dict),
    ("files", dict),
    ("scorers", dict),
    ("code", dict),
    ("command", list),
)
INDEX_S = 2.0
"""The index of runs is told of a run that goes on at most this often, or less often where that takes long."""
INDEX_SHARE = 0.005
"""At most this share of the time goes into telling the index."""


class Run:
    """An open run. Made by `create` or `open_run` of `store.py`."""

    def __init__(self, path: Path, database: Database, *, index: Index | None = None):
        self.id = path.name
        self.path = path
        self.database = database
        self.feed = Feed(database)
        self._index = index
        self._changed = False
        self._is_claimed = False
        self._is_checked = False
        self._next_index_s = 0.0

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.feed.close()
        info = None
        if self._changed and self._index is not None:
            with suppress(StoreError):
                info = self.info
        self.database.close()
        if info is not None and self._index is not None:
            self._index.keep([info])  # after the file was closed, which may have written it once more
            self._changed = False

    # -- about the run --

    @cached_property
    def about(self) -> Json:
        """The origin of the run: config, command, firsthand's version, the machine."""
        about = self.database.get(self._row()[2])
        if not isinstance(about, dict) or any(not isinstance(about.get(part, kind()), kind) for part, kind in _PARTS):
            raise self.database.damaged("the description of the run is not an object, or a part of it is another value")
        return about

    @property
    def config(self) -> Json:
        """The config, as it was given."""
        config: Json = self.about["config"]
        return config

    def reducer(self, benchmark: str, asked: str | None = None) -> str:
        """The reducer of epochs by name: as asked for now, else when the run was made, else as the benchmark declares."""
        return str(asked or self.config.get("reduce") or self.about.get("reducers", {}).get(benchmark) or "mean")

    def epochs(self) -> dict[str, int]:
        """Benchmark -> the attempts of an agent at each of its tasks, as planned, else the most that were made."""
        planned = self.config.get("epochs")
        most: dict[str, int] = {}
        for each in self.task_means():
            most[each.benchmark] = max(most.get(each.benchmark, 0), each.attempts)
        return {name: planned if type(planned) is int and planned > 0 else made for name, made in most.items()}

    @property
    def protocols(self) -> dict[str, str]:
        """Benchmark -> how it was prompted and scored, without the secrets of addresses; none before version 0.8."""
        return {str(name): without_secrets(str(text)) for name, text in self.about.get("protocols", {}).items()}

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
        counted = "SELECT count(*), count(error), coalesce(sum(tokens), 0) FROM traces WHERE " + LATEST
        num_traces, num_errors, tokens = self._sound.read(counted, filters(None, None))[0]
        planned = self._row()[3]
        return RunInfo(
            id=self.id,
            path=self.path,
            created_at=self.created_at,
            status=self.status,
            command=tuple(map(str, about.get("command", ()))),
            config=about["config"],
            num_traces=num_traces,
            num_errors=num_errors,
            num_planned=None if planned is None else int(planned),
            tokens=tokens,
            scores=self._known_scores(),
            updated_at=time.time(),
            num_steps=self.database.read("SELECT coalesce(max(step) + 1, 0) FROM metrics")[0][0],
        )

    def holds_something(self) -> bool:
        """True if the run has a finished attempt, a number, text or file that was logged, or a preference."""
        kept = ("traces", "metrics", "samples", "artifacts", "preferences")
        return any(self.database.read(f"SELECT EXISTS (SELECT 1 FROM {table})")[0][0] for table in kept)

    def _known_scores(self) -> tuple[score_totals.ScoreMean, ...]:
        """The scores that are means of attempts; the others, of a reducer or a figure, without their number."""
        means = score_totals.score_means(score_totals.totals(self._sound))
        plain_mean = {name: self._is_mean(name) for name in dict.fromkeys(each.benchmark for each in means)}
        return tuple(each if plain_mean[each.benchmark] else replace(each, mean=None) for each in means)

    def _is_mean(self, benchmark: str) -> bool:
        """True if the score of the benchmark is the mean of its tasks' attempts."""
        figures = self.about.get("figures")
        if self.reducer(benchmark) != "mean" or (isinstance(figures, dict) and benchmark in figures):
            return False
        return not attempts.has_figure(self._sound, benchmark, self.score_names())

    def plan(self, num_attempts: int) -> None:
        """Say how many attempts the run is to make, those that are done included."""
        with self.database.write() as connection:
            connection.execute("UPDATE run SET planned = ?", (num_attempts,))
            seal(connection, "run", "true")
        self.touch()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Claim the run and mark it as running. Leaving the block normally makes it `done`, any other way `interrupted`."""
        with nullcontext() if self._is_claimed else self.claimed():
            self.finish("running")
            try:
                yield
            except BaseException:
                self.feed.close()
                self._finish_if_possible()
                raise
            self.feed.close()
            self.finish("done")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Be the one that makes the run's attempts; ConfigError, which names the holder, if another process does."""
        with claim_attempts(self.path):
            self._is_claimed = True
            try:
                yield
            finally:
                self._is_claimed = False

    def expect_idle(self) -> None:
        """ConfigError, which names the holder, if a process works on the run."""
        expect_idle(self.path)

    def scoring(self, name: str) -> AbstractContextManager[None]:
        """Be the one that gives scores of this name; ConfigError, which names the holder, if another process does."""
        return claim_scoring(self.path, name)

    def check(self, *, bodies: bool = False) -> None:
        """StoreError if an index or a row of the run's file was changed, or with `bodies` a trace or a reply."""
        check_file(self.database)
        if bodies:
            check_bodies(self.database)
        self._is_checked = True

    def finish(self, status: Status) -> None:
        """Set the status. `running` means nothing once no process holds the run's lock."""
        with self.database.write() as connection:
            connection.execute("UPDATE run SET status = ?", (status,))
            seal(connection, "run", "true")
        self.touch()

    # -- attempts --

    def append(self, trace: Trace) -> None:
        """Keep a finished attempt. What in it is not JSON, such as a note of a pattern, is kept as text."""
        if not is_tree(trace):
            raise StoreError(f"trace {trace.id} has a message whose parent does not come before it: it cannot be kept")
        body = self.database.pack(trace.to_json(), exact=False)
        with self.database.write() as connection:
            insert_trace(connection, trace, body)
            self.feed.end(connection, trace)
        self.touch()

    def traces(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[Trace]:
        """The latest trace of each attempt, in the order they were finished; few of them are in memory at a time."""
        return (trace for trace, _ in self.tried(benchmark=benchmark, agent=agent))

    def tried(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[tuple[Trace, int]]:
        """The same, each with the number of its try, from 1 on."""
        for row, number, body in attempts.latest_rows(self._sound, benchmark, agent):
            trace = read_trace(self.database, body)
            if plain(trace.id) != row.id:
                raise self.database.damaged("a trace is not the one its row says")
            yield with_scores(self.database, trace, number), number

    def summaries(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[AttemptSummary]:
        """The numbers of the latest trace of each attempt, in the order they were finished, without decoding a trace.

        Scores given later come after an attempt's own. Runs made before 0.7.0 have to be decoded all the same.
        """
        return attempts.summaries(self._sound, benchmark, agent)

    def rows(self, *, benchmark: str | None = None, agent: str | None = None) -> Iterator[TraceRow]:
        """The latest trace of each attempt as it stands in a list, in the order they were finished."""
        return (row for row, _, _ in attempts.latest_rows(self._sound, benchmark, agent))

    def samples(self, benchmark: str) -> list[Trace]:
        """A scored attempt at the benchmark, and one of each score given later: what kinds of scores there are."""
        return [self.tries(place)[-1] for place in attempts.samples(self._sound, benchmark, self.score_names())]

    def trace(self, ref: str) -> Trace:
        """The trace that `ref` names; of a place with several tries the latest.

        `ref` is an id (`Trace.id`), a place (`Trace.place`), the beginning of either, or benchmark/task/agent/epoch as far
        as needed. UnknownName if it names none, or several, which it lists. No trace but that one is read.
        """
        place, number = attempts.find(self.database, ref, self.id)
        sql = "SELECT body FROM traces WHERE attempt = ? AND try = ?"
        trace = read_trace(self.database, self.database.read(sql, (place, number))[0][0])
        return with_scores(self.database, trace, number)

    def tries(self, place: str, *, last: bool = False) -> list[Trace]:
        """All traces of one place, the first try first; with `last` the latest alone, and no other is read."""
        order = "try DESC LIMIT 1" if last else "try"
        rows = self.database.read(f"SELECT try, body FROM traces WHERE attempt = ? ORDER BY {order}", (plain(place),))
        return [with_scores(self.database, read_trace(self.database, body), number) for number, body in rows]

    def done(self, *, errors: bool = True) -> set[str]:
        """The places that have a finished attempt; with `errors=False` without those whose latest try failed."""
        sql = f"SELECT attempt FROM traces WHERE {LATEST} AND (:errors OR error IS NULL)"
        return {str(attempt) for (attempt,) in self._sound.read(sql, filters(None, None) | {"errors": errors})}

    def spent(self) -> tuple[Usage, int]:
        """The cost of finished attempts and their judges, every try: tokens (as prompt tokens), money, number of calls."""
        return score_totals.spent(self._sound)

    def interrupted(self) -> dict[str, score_totals.Interrupted]:
        """The cost of attempts that have no trace yet, and of their judges, by the ids of their places."""
        return score_totals.interrupted(self._sound)

    # -- sums, computed inside SQLite --

    def totals(self, score: str | None = None) -> list[score_totals.Totals]:
        """The sums of each agent's first scores on each benchmark, or of the scores given later under a name."""
        return score_totals.totals(self._sound, score)

    def retried(self) -> dict[tuple[str, str], Retried]:
        """Benchmark and agent -> its attempts that were made again after an error; those without one are left out."""
        return retried(self._sound)

    def task_means(self) -> list[score_totals.TaskMean]:
        """The mean of each agent on each task."""
        return score_totals.task_means(self._sound)

    def pairs(self) -> list[tuple[str, str]]:
        """Each benchmark, by name, with each of its agents, in the order in which the run first met them."""
        return score_totals.pairs(self._sound)

    # -- scores given later --

    def add_score(
        self, trace: Trace, number: int, name: str, scorer: str, score: Score, preference: Preference | None = None
    ) -> None:
        """Keep a score that the try of this number was given later, under a name; of several the last one counts.

        `scorer` says in words what gave it. Under one name there are scores of one scorer only: else it is a StoreError.
        A `preference` that the score stands for is kept with it, both or neither.
        """
        with self.database.write() as connection:
            later_scores.insert_score(connection, self.id, trace, number, name, scorer, score)
            if preference is not None:
                _insert_preference(connection, preference)
        self.touch()

    def revise_score(
        self, trace: Trace, number: int, name: str, scorer: str, revised: Callable[[Score | None], Score]
    ) -> None:
        """Keep as `add_score` does what `revised` makes of the last score of that name; None is given where there is none.

        Of several that revise a score at once, in any process, each is given that of the one before.
        """
        with self.database.write() as connection:
            score = revised(later_scores.last_score(self.database, trace.place, number, name))
            later_scores.insert_score(connection, self.id, trace, number, name, scorer, score)
        self.touch()

    def score_names(self) -> dict[str, str]:
        """The names of scores given later, each with the scorer that gave them, in words."""
        return later_scores.score_names(self._sound)

    def scored(self, name: str, scorer: str | None = None) -> dict[tuple[str, int], bool]:
        """The places and tries that were given a score of that name later -> True if the last one did not fail.

        With `scorer` without those whose last one is of another version of the scorer's file.
        """
        return later_scores.scored(self._sound, name, scorer)

    # -- the journal of effects --

    def journal(self, place: str) -> StoredJournal:
        """The journal of the attempt at a place; what an interrupted try recorded is found again."""
        return StoredJournal(self.database, place)

    def reply(self, request: str) -> Json | None:
        """The last reply recorded anywhere in the run to the request of this hash, or None."""
        found = self.database.read(
            "SELECT reply FROM effects WHERE request = ? ORDER BY seq DESC LIMIT 1", (plain(request),)
        )
        return body_of(self.database, found[0][0]) if found else None

    def replied_at(self, request: str) -> list[tuple[str, str]]:
        """The places and effects at which the request of this hash was recorded, the oldest first."""
        rows = self.database.read(
            "SELECT attempt, effect FROM effects WHERE request = ? GROUP BY attempt, effect ORDER BY min(seq)",
            (plain(request),),
        )
        return [(str(place), str(effect)) for place, effect in rows]

    def reply_at(self, place: str, effect: str, request: str) -> Json | None:
        """The last reply recorded to that request at an effect of the attempt at a place, or None."""
        found = self.database.read(
            "SELECT reply FROM effects WHERE attempt = ? AND effect = ? AND request = ? ORDER BY seq DESC LIMIT 1",
            (plain(place), plain(effect), plain(request)),
        )
        return body_of(self.database, found[0][0]) if found else None

    def failed_at(self, place: str, effect: str, request: str) -> str | None:
        """The error that the call of that request ended with at an effect of the latest try at a place, or None."""
        calls = (call for trace in self.tries(place, last=True) for call in trace.calls)
        return next((call.error for call in calls if (call.id, call.request) == (effect, request)), None)

    # -- tasks and agents --

    def add_tasks(self, benchmark: str, tasks: Iterable[Task]) -> None:
        """Keep the tasks, secrets included. A task that differs from the one kept under its id is a StoreError."""
        stored_tasks.add_tasks(self.database, self.id, benchmark, tasks)

    def tasks(self) -> dict[tuple[str, str], Task]:
        """The tasks by (benchmark, task id)."""
        return stored_tasks.tasks(self.database)

    def task(self, benchmark: str, task_id: str) -> Task | None:
        """The task of that id, or None if the run does not hold it."""
        return stored_tasks.task(self.database, benchmark, task_id)

    def benchmarks(self) -> list[str]:
        """The benchmarks whose tasks are kept, in the order they came."""
        return stored_tasks.benchmarks(self.database)

    def metadata(self, benchmark: str, limit: int | None = None) -> Iterator[tuple[str, Json]]:
        """Id and metadata of each task of the benchmark, in their order, or of the first ones; one is in memory at a time.

        The columns of a user's own data count as metadata, though agents may not see them.
        """
        return stored_tasks.metadata(self.database, benchmark, limit)

    def clusters(self, strata: str | None = None) -> dict[str, dict[str, str]]:
        """Benchmark -> task id -> cluster, of those tasks that belong to one; `TaskGroups` where there are strata too.

        `strata` names a key of the tasks' metadata, or a column of own data, that tells them; without it `Task.stratum`
        does. ConfigError if no task has that key.
        """
        return task_groups(stored_tasks.clusters(self._sound), self, strata)

    def add_agent(self, name: str, agent: Json) -> None:
        """Keep an agent as data. One that differs from the one kept under its name is a StoreError.

        Runs of version 0.21 keep passwords of addresses, for which variables stand now: that is no difference.
        """
        with self.database.write() as connection:
            digest = put(connection, agent, exact=False)
            connection.execute("INSERT OR IGNORE INTO agents VALUES (?, ?)", (plain(name), digest))
            kept = connection.execute("SELECT body FROM agents WHERE name = ?", (plain(name),)).fetchone()
            if kept[0] != digest and _without_secrets(body_of(self.database, kept[0])) != _without_secrets(agent):
                raise another(f"agent {name!r}", self.id)

    def agents(self) -> dict[str, Json]:
        """The agents as data, by name."""
        rows = self.database.read("SELECT name, body FROM agents ORDER BY rowid")
        return {str(name): body_of(self.database, body) for name, body in rows}

    # -- preferences --

    def add_preference(self, preference: Preference) -> None:
        """Keep a vote or a verdict."""
        with self.database.write() as connection:
            _insert_preference(connection, preference)

    def preferences(self) -> list[Preference]:
        """All votes and verdicts, the oldest first."""
        rows = self.database.read("SELECT body FROM preferences ORDER BY seq")
        return [read_as(self.database, Preference.from_json, body) for (body,) in rows]

    # -- inside --

    def _row(self) -> tuple[Any, ...]:
        row = f"created_at, status, about, planned, digest IS NULL OR digest = checksum({SEALED['run']})"
        rows = self.database.read(f"SELECT {row} FROM run")
        if not rows:
            raise never_begun(self.path)
        if not rows[0][-1]:
            raise self.database.damaged("the row that describes the run has been changed")
        return rows[0]

    @property
    def _sound(self) -> Database:
        """The file, to read numbers from: checked once, see `integrity.py`."""
        if not self._is_checked:
            check_numbers(self.database)
            self._is_checked = True
        return self.database

    def _finish_if_possible(self) -> None:
        with suppress(StoreError):  # a full disk is reported already, and the lock's release says the same as this
            self.finish("interrupted")

    def touch(self) -> None:
        """Tell the index of runs, unless it was told a moment ago."""
        self._changed = True
        began = time.monotonic()
        if self._index is None or began < self._next_index_s:
            return
        with suppress(StoreError):
            self._index.keep([self.info])
        took_s = time.monotonic() - began
        self._next_index_s = began + took_s + max(INDEX_S, took_s / INDEX_SHARE)


def _insert_preference(connection: sqlite3.Connection, preference: Preference) -> None:
    digest = put(connection, preference.to_json())
    connection.execute("INSERT INTO preferences (task, body) VALUES (?, ?)", (plain(preference.task_id), digest))


def _without_secrets(body: Json) -> str:
    """An agent as data without the secrets of addresses, to compare."""
    return canonical(without_secrets_in(body))
