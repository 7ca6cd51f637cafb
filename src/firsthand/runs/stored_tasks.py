"""Tasks of a run and the groups they are counted in. `Run` in `run_folder.py` is what others use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from firsthand.errors import ConfigError, StoreError
from firsthand.message import Json
from firsthand.runs.attempts import body_of, read_as
from firsthand.runs.database import Database, plain, put
from firsthand.runs.integrity import seal
from firsthand.runs.task_groups import same_problem
from firsthand.system.stored_json import changed_key
from firsthand.task import Task


def add_tasks(database: Database, run_id: str, benchmark: str, tasks: Iterable[Task]) -> None:
    """Keep the tasks; StoreError if one differs from the one kept under its id, ConfigError for keys that JSON changes."""
    with database.write() as connection:
        for task in tasks:
            for name, data in (("metadata", task.metadata), ("secret", task.secret)):
                if odd := changed_key(data):
                    raise ConfigError(
                        f"task {task.id!r} of {benchmark}: the key {name}{odd} is no text, and would be text wherever the "
                        "kept task is scored: write it as text"
                    )
            digest = put(connection, task.to_json())
            key = (plain(benchmark), plain(task.id))
            cluster = None if task.cluster is None else plain(task.cluster)
            columns = "(benchmark, task, body, cluster)"
            connection.execute(f"INSERT OR IGNORE INTO tasks {columns} VALUES (?, ?, ?, ?)", (*key, digest, cluster))
            kept = connection.execute("SELECT body FROM tasks WHERE benchmark = ? AND task = ?", key).fetchone()
            if kept[0] != digest:  # versions differ in where they keep a field, so the bytes alone do not decide
                old, new = (read_as(database, Task.from_json, each) for each in (kept[0], digest))
                if not same_problem(old, new):
                    raise another(f"task {task.id!r} of {benchmark}", run_id)
        seal(connection, "tasks", "benchmark = ? AND digest IS NULL", (plain(benchmark),))


def tasks(database: Database) -> dict[tuple[str, str], Task]:
    """The tasks by (benchmark, task id)."""
    rows = database.read("SELECT benchmark, task, body FROM tasks ORDER BY rowid")
    found = ((benchmark, read_as(database, Task.from_json, body)) for benchmark, _, body in rows)
    return {(benchmark, task.id): task for benchmark, task in found}


def task(database: Database, benchmark: str, task_id: str) -> Task | None:
    """The task of that id, or None."""
    sql = "SELECT body FROM tasks WHERE benchmark = ? AND task = ?"
    found = database.read(sql, (plain(benchmark), plain(task_id)))
    return read_as(database, Task.from_json, found[0][0]) if found else None


def benchmarks(database: Database) -> list[str]:
    """The benchmarks that have tasks, in the order they came."""
    rows = database.read("SELECT benchmark FROM tasks GROUP BY benchmark ORDER BY min(rowid)")
    return [str(benchmark) for (benchmark,) in rows]


def metadata(database: Database, benchmark: str, limit: int | None = None) -> Iterator[tuple[str, Json]]:
    """Id and metadata of each task, with the columns of a user's own data, in their order; one is in memory at a time."""
    sql = f"SELECT task, body FROM tasks WHERE benchmark = ? ORDER BY rowid LIMIT {-1 if limit is None else limit}"
    for id, body in database.read(sql, (plain(benchmark),)):
        kept = body_of(database, body)
        found, secret = kept.get("metadata"), kept.get("secret")
        columns = secret.get("columns") if isinstance(secret, dict) else None
        yield str(id), (columns if isinstance(columns, dict) else {}) | (found if isinstance(found, dict) else {})


def clusters(database: Database) -> dict[str, dict[str, str]]:
    """Benchmark -> task id -> cluster, of those tasks that belong to one."""
    found: dict[str, dict[str, str]] = {}
    for benchmark, id, cluster in database.read("SELECT benchmark, task, cluster FROM tasks WHERE cluster IS NOT NULL"):
        found.setdefault(benchmark, {})[id] = cluster
    return found


def another(what: str, run_id: str) -> StoreError:
    """The error of a task or an agent that differs from the one kept under its name."""
    return StoreError(
        f"{what} is not the one that run {run_id} already holds, so their results cannot be mixed: "
        "start a new run, or give it a name of its own"
    )
