"""Data sets of tasks that were collected from attempts and received traces, to be put to any model again.

A data set is a document of the store: its tasks with their secrets, each with the attempt that it came from. Protected tasks
are refused, as their text must not be published.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from firsthand.chat_messages import messages_of, written
from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Json, canonical
from firsthand.runs.run_folder import Run
from firsthand.scorers.reference_answers import right_answer
from firsthand.studio.studio_store import StudioStore
from firsthand.task import Task
from firsthand.trace import Trace

COLLECTION = "data-set"
RECEIVED = "traces"
"""The benchmark name of tasks that were made of received traces; their place is the id of the trace."""
MAX_TASKS = 2000


@dataclass(frozen=True)
class CollectedTask:
    """A task with its origin."""

    task: Task
    benchmark: str
    run: str
    place: str
    answer: str
    """The answer of the attempt."""
    score: float | None

    @property
    def key(self) -> str:
        """16 hexadecimal digits that tell it from the other tasks of its data set, also from those of its id."""
        said = [each.to_json() for each in self.task.conversation]
        return _key(self.benchmark, self.task.id, self.task.prompt, *([canonical(said)] if said else []))


@dataclass(frozen=True)
class TaskCollection:
    """A named list of tasks."""

    name: str
    tasks: tuple[CollectedTask, ...]
    version: int

    def to_put(self) -> list[Task]:
        """The tasks as a run of the data set puts them: an id that several have is followed by each task's key."""
        counts = Counter(each.task.id for each in self.tasks)
        return [
            each.task if counts[each.task.id] == 1 else replace(each.task, id=f"{each.task.id} {each.key}")
            for each in self.tasks
        ]


class TaskCollections:
    """The data sets of a store."""

    def __init__(self, store: StudioStore):
        self.store = store

    def all(self) -> list[TaskCollection]:
        """All data sets by name."""
        return [_read(item.key, item.body, item.version) for item in self.store.items(COLLECTION)]

    def get(self, name: str) -> TaskCollection:
        """The data set of that name; UnknownName if there is none."""
        item = self.store.get(COLLECTION, name)
        if item is None:
            raise UnknownName(f"no data set {name[:60]!r}")
        return _read(item.key, item.body, item.version)

    def add(self, name: str, run: Run, traces: Iterable[Trace]) -> int:
        """Adds the tasks of attempts, making the data set if there is none; returns how many are new.

        A task that is in it already, by benchmark, id, conversation and text, stays as it is; one that a version before 0.27
        collected, without its conversation, is replaced. ConfigError for a protected task, one that the run does not hold,
        or a data set that would be too large.
        """
        rows = []
        for trace in traces:
            task = run.task(trace.benchmark, trace.task_id)
            if task is None:
                raise ConfigError(
                    f"run {run.id} does not hold the task {trace.task_id[:60]!r}, so it cannot be collected"
                )
            if task.protected is not None:
                raise ConfigError(f"the task {task.id[:60]!r} is protected ({task.protected}): it is not collected")
            rows.append(
                {**_plain(task.to_json()), "benchmark": trace.benchmark, "run": run.id, "place": trace.place,
                 "answer": (trace.answer or "")[:2000], "score": trace.value()}
            )  # fmt: skip
        return self._put(name, rows)

    def add_received(self, name: str, rows: Iterable[Json]) -> int:
        """Adds tasks made of received traces by `task_row`, with their recorded answers as the expected ones, as `add` does.

        ConfigError for a trace without a question.
        """
        found = []
        for row in rows:
            if not row["question"].strip():
                raise ConfigError(f"trace {row['id'][:40]} has no question, so no task can be made of it")
            told = {key: row[key] for key in ("system", "history", "cluster") if row[key]}
            said = messages_of(row.get("conversation", []), f"trace {row['id'][:40]}")
            task = Task(
                row["id"], row["question"], conversation=said, hint="", metadata=told, secret={"answer": row["answer"]}
            )
            found.append(
                {**_plain(task.to_json()), "benchmark": RECEIVED, "run": "", "place": row["id"],
                 "answer": row["answer"][:2000], "score": None}
            )  # fmt: skip
        return self._put(name, found)

    def _put(self, name: str, rows: Iterable[Json]) -> int:
        if "/" in name:
            raise ConfigError(f"{name[:60]!r} is no name of a data set: leave the slash out")
        with self.store.exclusive(f"{COLLECTION} {name}"):  # of two who add at once, each adds to the other's
            item = self.store.get(COLLECTION, name)
            body: Json = {"tasks": []} if item is None else item.body
            before = len(body["tasks"])
            known = {_row_key(each): place for place, each in enumerate(body["tasks"])}
            partial = {key: place for key, place in known.items() if _is_partial(body["tasks"][place])}
            for row in rows:
                key = _row_key(row)
                if (place := partial.pop(_key(row["benchmark"], row["id"], row["prompt"]), None)) is not None:
                    body["tasks"][place] = row
                elif key not in known:
                    body["tasks"].append(row)
                known.setdefault(key, len(body["tasks"]))
            if len(body["tasks"]) > MAX_TASKS:
                raise ConfigError(
                    f"the data set would have {len(body['tasks']):,} tasks: at most {MAX_TASKS:,} are kept"
                )
            self.store.put(COLLECTION, name, body, version=0 if item is None else item.version)
        return len(body["tasks"]) - before

    def remove(self, name: str, benchmark: str, task_id: str, key: str = "") -> None:
        """Takes a task out; the data set goes with its last one. `key` tells which, where several have that id.

        UnknownName if there is no such data set, ConfigError if several tasks have the id and no key is given.
        """
        with self.store.exclusive(f"{COLLECTION} {name}"):
            item = self.store.get(COLLECTION, name)
            if item is None:
                raise UnknownName(f"no data set {name[:60]!r}")
            alike = [each for each in item.body["tasks"] if (each["benchmark"], each["id"]) == (benchmark, task_id)]
            gone = [each for each in alike if key in ("", _row_key(each))]
            if len(gone) > 1:
                raise ConfigError(
                    f"{len(gone)} tasks of {name[:60]!r} have the id {task_id[:60]!r}: open the data set again and remove "
                    "one"
                )
            left = [each for each in item.body["tasks"] if each not in gone]
            if left:
                self.store.put(COLLECTION, name, {"tasks": left}, version=item.version)
            else:
                self.store.remove(COLLECTION, name, version=item.version)


def as_lines(collection: TaskCollection) -> str:
    """The tasks as JSONL with prompt and target, as a benchmark of one's own reads them.

    The messages before a prompt are under `conversation`, for the benchmark's key of that name. The target of several
    accepted answers is the first, and all are under `answers`; of a task without one it is null.
    """
    return "".join(
        json.dumps(
            {
                "id": put.id,
                **({"conversation": said} if (said := _said(put)) else {}),
                "prompt": put.question,
                **_targets(put),
                "from": {"run": each.run, "attempt": each.place},
            },
            ensure_ascii=True,
        )
        + "\n"
        for each, put in zip(collection.tasks, collection.to_put(), strict=True)
    )


def _said(task: Task) -> list[Json]:
    return [body for each in task.conversation for body in written(each)]


def _targets(task: Task) -> Json:
    secret = task.secret
    answer = secret.get("answer")
    found: Json = {"target": right_answer(task) if answer is None else answer}
    return found | ({"answers": secret["answers"]} if "answers" in secret else {})


def _read(name: str, body: Json, version: int) -> TaskCollection:
    return TaskCollection(name, tuple(map(_collected, body["tasks"])), version)


def _collected(row: Json) -> CollectedTask:
    origin = {name: row[name] for name in ("benchmark", "run", "place", "answer", "score")}
    return CollectedTask(Task.from_json({name: row[name] for name in row.keys() - origin}), **origin)


def _is_partial(row: Json) -> bool:
    """True for a task that was collected before 0.27, which kept prompt, choices, hint, secret and metadata alone."""
    return "sampling" not in row


def _row_key(row: Json) -> str:
    return _collected(row).key


def _key(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _plain(body: Json) -> Json:
    """An object as JSON can hold it: what JSON has no form for, as text."""
    found: Json = json.loads(json.dumps(body, default=str))
    return found
