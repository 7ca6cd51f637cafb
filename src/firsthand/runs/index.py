"""The index of a data home's runs, `runs/index.sqlite`: runs are listed from it without opening each file.

Whoever writes a run keeps its entry, at most every few seconds. An entry holds the sizes and times of the run's file, so a
run that was changed, copied in or deleted by hand is noticed when runs are listed, and its entry is made again from the run.
The index is never the source of truth: one that is missing or damaged is built anew, and one that cannot be written is
done without.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from firsthand.errors import StoreError
from firsthand.message import Json
from firsthand.runs.database import Database, Schema
from firsthand.runs.run_names import DATABASE, LOCK, run_ids
from firsthand.runs.score_totals import ScoreMean
from firsthand.system.lock import is_held

INDEX = "index.sqlite"
RECENT_S = 10.0
"""The entry of a run that a process works on is believed for so long after it was kept."""
SCHEMA = Schema(
    "an index of runs",
    0x66737469,  # "fsti"
    (
        """
        CREATE TABLE runs (id TEXT NOT NULL PRIMARY KEY, files TEXT NOT NULL, updated_at REAL NOT NULL,
            created_at TEXT NOT NULL, status TEXT NOT NULL, done INTEGER NOT NULL, planned INTEGER,
            errors INTEGER NOT NULL, tokens INTEGER NOT NULL, scores TEXT NOT NULL, about TEXT NOT NULL);
        """,
        "ALTER TABLE runs ADD COLUMN digest INTEGER",
        "DELETE FROM runs; ALTER TABLE runs ADD COLUMN steps INTEGER NOT NULL DEFAULT 0",
        "DELETE FROM runs",  # scores were means of attempts whatever the run's table had
        "DELETE FROM runs",  # and an attempt that nobody rated was a 0 in the mean of ratings
    ),
)
_COLUMNS = "id, files, updated_at, created_at, status, done, planned, errors, tokens, scores, about, steps"


@dataclass(frozen=True)
class RunInfo:
    """A run in a list. `problem` is the sentence of a run that cannot be read."""

    id: str
    path: Path
    created_at: str = ""
    status: str = "unreadable"
    command: tuple[str, ...] = ()
    config: Json = field(default_factory=dict)
    num_traces: int = 0
    """Attempts that are done, failed ones included."""
    num_errors: int = 0
    problem: str | None = None
    num_planned: int | None = None
    """Attempts that the run is to make; None where it does not say so."""
    tokens: int = 0
    """Tokens of all finished attempts."""
    scores: tuple[ScoreMean, ...] = ()
    """The score of each agent on each benchmark, as far as it is known, see `ScoreMean.mean`."""
    updated_at: float = 0.0
    """When this was known: seconds since 1970."""
    num_steps: int = 0
    """Steps of its metrics, see `track.py`; 0 if it has none."""

    @property
    def lacks_scores(self) -> bool:
        """True if a score is not known, for it is no mean of attempts."""
        return any(each.mean is None for each in self.scores)

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The benchmarks as they were named."""
        return self._named("benchmarks")

    @property
    def models(self) -> tuple[str, ...]:
        """The models as they were named."""
        return self._named("model")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns as they were named."""
        return self._named("pattern")

    def _named(self, key: str) -> tuple[str, ...]:
        found = self.config.get(key)
        return tuple(map(str, found)) if isinstance(found, list | tuple) else () if found is None else (str(found),)


@dataclass(frozen=True)
class Entry:
    """A run in the index."""

    info: RunInfo
    files: str
    """As `files_of` gave it."""

    def current(self) -> RunInfo | None:
        """The run's info, or None if it has to be asked anew."""
        working = self.info.status == "running" and is_held(self.info.path / LOCK)
        if working and time.time() - self.info.updated_at < RECENT_S:
            return self.info
        if files_of(self.info.path) != self.files:
            return None
        return self.info if working or self.info.status != "running" else replace(self.info, status="interrupted")


class Index:
    """The index in a folder of runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / INDEX

    def entries(self, on_problem: Callable[[str], None] = lambda text: None) -> dict[str, Entry]:
        """The entries by run; none where there is no index. A damaged one is removed, and `on_problem` is told once."""
        if not self.path.exists():
            return {}
        try:
            with closing(Database(self.path, schema=SCHEMA)) as database:
                rows = database.read(f"SELECT {_COLUMNS} FROM runs WHERE digest IS NOT NULL")
                if database.read(f"SELECT count(*) FROM runs WHERE digest <> checksum({_COLUMNS})") != [(0,)]:
                    raise ValueError("an entry has been changed")
            return {entry.info.id: entry for entry in (_entry(self.folder, *row) for row in rows)}
        except (StoreError, KeyError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            on_problem(f"the index of runs {self.path} cannot be read and is made anew: {error}")
            self._remove()
            return {}

    def keep(self, infos: Iterable[RunInfo], gone: Iterable[str] = ()) -> None:
        """Write the entries of these runs, as they are now, and drop those that are gone. What cannot be written is not."""
        rows = [_row(info, files_of(info.path)) for info in infos if info.problem is None]
        dropped = [(id,) for id in gone]
        if not rows and not dropped:
            return
        marks = ", ".join("?" * len(_COLUMNS.split(",")))
        with (
            suppress(StoreError, OSError),
            closing(Database(self.path, create=True, schema=SCHEMA)) as database,
            database.write() as connection,
        ):
            connection.executemany("DELETE FROM runs WHERE id = ?", dropped)
            connection.executemany(f"INSERT OR REPLACE INTO runs ({_COLUMNS}) VALUES ({marks})", rows)
            sealed = f"UPDATE runs SET digest = checksum({_COLUMNS}) WHERE id = ?"
            connection.executemany(sealed, [row[:1] for row in rows])

    def _remove(self) -> None:
        for name in (f"{INDEX}-journal", INDEX, f"{INDEX}-wal", f"{INDEX}-shm"):
            with suppress(OSError):
                (self.folder / name).unlink()


def listed(
    home: Path,
    ask: Callable[[Path], RunInfo],
    on_problem: Callable[[str], None] = lambda text: None,
    score: Callable[[Path], tuple[ScoreMean, ...] | None] | None = None,
) -> list[RunInfo]:
    """All runs under `home`, in no order, from the index; runs that it does not know are asked, and kept in it.

    `score` computes the scores that are no means of attempts; None if it cannot. Those of a run that goes on are not kept.
    """
    index = Index(home / "runs")
    entries, ids = index.entries(on_problem), run_ids(home)
    known = {id: info for id in ids if id in entries and (info := entries[id].current()) is not None}
    asked = {id: ask(home / "runs" / id) for id in ids if id not in known}
    found = known | asked
    scored = {} if score is None else {id: score(info.path) for id, info in found.items() if info.lacks_scores}
    at_rest = {id for id, scores in scored.items() if scores is not None and found[id].status != "running"}
    full = found | {id: replace(found[id], scores=scores or ()) for id, scores in scored.items()}
    kept = [(full if id in at_rest else found)[id] for id in ids if id in asked or id in at_rest]
    index.keep(kept, entries.keys() - set(ids))
    return [full[id] for id in ids]


def files_of(path: Path) -> str:
    """Sizes and times of a run's files, by which a change is noticed; an empty WAL is none."""
    found = []
    for name in (DATABASE, f"{DATABASE}-wal"):
        with suppress(OSError):
            stat = (path / name).stat()
            found += [f"{stat.st_size}@{stat.st_mtime_ns}"] if stat.st_size else []
    return " ".join(found)


def _row(info: RunInfo, files: str) -> tuple[Any, ...]:
    scores = json.dumps([asdict(each) for each in info.scores])
    about = json.dumps({"command": info.command, "config": info.config}, default=str)
    return (
        info.id, files, info.updated_at, info.created_at, info.status, info.num_traces, info.num_planned, info.num_errors,
        info.tokens, scores, about, info.num_steps,
    )  # fmt: skip


def _entry(
    folder: Path, id: str, files: str, updated_at: float, created_at: str, status: str, done: int, planned: int | None,
    errors: int, tokens: int, scores: str, about: str, steps: int,
) -> Entry:  # fmt: skip
    described: Mapping[str, Any] = json.loads(about)
    if not isinstance(described["config"], dict) or "/" in id:
        raise ValueError("an entry is not one of ours")
    return Entry(
        RunInfo(
            id=str(id),
            path=folder / id,
            created_at=str(created_at),
            status=str(status),
            command=tuple(map(str, described["command"])),
            config=described["config"],
            num_traces=int(done),
            num_errors=int(errors),
            num_planned=None if planned is None else int(planned),
            tokens=int(tokens),
            scores=tuple(ScoreMean(**each) for each in json.loads(scores)),
            updated_at=float(updated_at),
            num_steps=int(steps),
        ),
        str(files),
    )
