"""Imports curves of other trackers as runs: TensorBoard, W&B offline folders, MLflow's file store, trackio's databases.

Values, steps and times stay as they were logged; values that MLflow was given without a step are numbered by time. Nothing
of what is read is executed. What cannot be kept is logged: steps below 0, all but the last value of a step, deleted runs.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

from firsthand.errors import ConfigError, DataError, reason_of
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.event_files import LoggedValue, number_of, read_events
from firsthand.runs.logged_values import LoggedValues
from firsthand.runs.track import MAX_NAME, MAX_PENDING, MAX_STEP, Track
from firsthand.runs.wandb_files import MAX_VALUES as MAX_ITEM
from firsthand.runs.wandb_files import read_wandb
from firsthand.system.bounded_sqlite import connect_bounded
from firsthand.system.given_folder import files_below, leads_out
from firsthand.system.json_values import values_in
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.sqlite_journal import forged_journal

logger = logging.getLogger("firsthand")
MAX_RUNS = 1000
MAX_TEXT = 1 << 28
MAX_VALUE = 2000
"""The most characters of a parameter, and of a line of a metric."""
_DELETED = re.compile(r"^lifecycle_stage: *['\"]?deleted\b", re.MULTILINE)
_TRASH = ".trash"
"""The folder of the experiments that are deleted in MLflow."""
_STEPS = 1_000_000
"""SQLite's own steps that a query on a small database takes at most; each byte of it allows more."""
_AT_ONCE = 250
"""Rows of one query."""
YEAR_9999_S = 253_370_764_800.0
"""Later times, and what is no number, are left out: no calendar here goes further."""
FoundT = TypeVar("FoundT")


@dataclass(frozen=True)
class TrackedRun:
    """A run of another tracker."""

    name: str
    source: str
    """tensorboard, wandb, mlflow or trackio."""
    config: Json
    values: Iterable[LoggedValue]


def import_runs(path: Path, home: Path) -> list[tuple[str, int]]:
    """Imports all runs under a file or folder; returns the ids of the new runs, each with the number of values it keeps.

    DataError if there is none, or one is damaged; the runs before it stay.
    """
    made = []
    for found in tracked_runs(path):
        values = LoggedValues(found.name, found.values)
        given = len(values)
        values[:] = [each for each in values if each.step >= 0]
        below = given - len(values)
        values.sort(key=lambda each: each.step)
        if not values:
            if below:
                logger.warning("%s is left out: all of its %d values have steps below 0", found.name[:60], below)
            continue
        if values[-1].step > MAX_STEP:  # before a run is made
            raise DataError(
                f"{found.name[:60]!r} has the step {str(values[-1].step)[:40]}: steps up to {MAX_STEP} are kept"
            )
        about = {"kind": "track", "name": found.name, "imported": found.source, **{"settings": found.config}}
        with store.create(home, about, found.name[:40] or found.source) as run:
            track, kept = Track(run), 0
            for step, same in groupby(values, key=lambda each: each.step):
                names: set[str] = set()
                while some := list(islice(same, MAX_PENDING)):
                    names |= _log(track, step, some)
                kept += len(names)
            track.flush()
            run.finish("done")
            made.append((run.id, kept))
            if kept < given:
                logger.warning(
                    "%s: %d of %d values are left out: %d with a step below 0, and %d that another of the same step follows",
                    found.name[:60], given - kept, given, below, given - below - kept,
                )  # fmt: skip
        if len(made) >= MAX_RUNS:
            break
    if not made:
        raise DataError(
            f"{path} holds no runs with numbers: an event file of TensorBoard, an offline-run folder of W&B, mlruns of "
            "MLflow or a database of trackio was expected"
        )
    return made


def _log(track: Track, step: int, values: Iterable[LoggedValue]) -> set[str]:
    """Log values of one step, of two with one name the later, with one call for each time; returns their names."""
    by_time: dict[float | None, dict[str, float]] = {}
    last = {_named(each.name): each for each in values}
    for name, each in last.items():
        by_time.setdefault(each.at if 0 < each.at < YEAR_9999_S else None, {})[name] = each.value
    for at, numbers in by_time.items():
        track.log(numbers, step=step, at=at)
    return set(last)


def tracked_runs(path: Path) -> Iterator[TrackedRun]:
    """The runs that a file or folder holds, in a fixed order; ConfigError if it is not there, DataError if unreadable."""
    return _readable(path, _runs_of(path))


def _readable(path: Path, found: Iterable[FoundT]) -> Iterator[FoundT]:
    """Yield what a reader finds in a tracker's files; DataError if a file cannot be read."""
    try:
        yield from found
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read as the log of a tracker ({reason_of(error)}): give files that you may "
            "read"
        ) from None


def _runs_of(path: Path) -> Iterator[TrackedRun]:
    if not path.exists():
        raise ConfigError(f"{path} is not there: give a file or folder of a tracker")
    files = [path] if path.is_file() else _once(files_below(path))
    events: dict[Path, list[Path]] = {}
    for file in files:
        if "tfevents" in file.name:
            events.setdefault(file.parent, []).append(file)
        elif file.suffix == ".wandb":
            run = read_wandb(file)
            yield TrackedRun(run.name or file.parent.name, "wandb", run.config, run.values)
        elif file.suffix == ".db":
            yield from _trackio(file)
        elif file.name == "meta.yaml" and (file.parent / "metrics").is_dir():
            if _TRASH in file.relative_to(path).parts or _DELETED.search(_beginning(file)):
                logger.warning("%s is left out: it is deleted in MLflow", file.parent)
            else:
                yield _mlflow(file.parent)
    for folder, found in events.items():
        name = "-".join(folder.relative_to(path).parts) if path.is_dir() and folder != path else folder.name
        yield TrackedRun(
            name, "tensorboard", {}, (value for file in found for value in _readable(file, read_events(file)))
        )


def _mlflow(folder: Path) -> TrackedRun:
    """A run of MLflow's file store: `metrics/NAME` has lines of time in ms, value and step; `params/NAME` a value."""
    values = LoggedValues(folder.name)
    root, params, tags = (_own_folder(folder, name) for name in ("metrics", "params", "tags"))
    for file in _once(files_below(root)):
        name, start = "/".join(file.relative_to(root).parts), len(values)
        for number, line in enumerate(_lines(file), 1):
            parts = line.split()
            try:
                at, value = float(parts[0]) / 1000, float(parts[1])
                step = int(parts[2]) if len(parts) > 2 else number - 1
            except (ValueError, IndexError):
                raise DataError(
                    f"{file}, line {number}: time, value and step were expected, not {line[:60]!r}"
                ) from None
            values.append(LoggedValue(name, step, value, at))
        if all(each.step == 0 for each in values[start:]):  # logged without a step, for which MLflow writes 0
            by_time = sorted(values[start:], key=lambda each: each.at)
            values[start:] = [replace(each, step=step) for step, each in enumerate(by_time)]
    config = {"/".join(file.relative_to(params).parts): _beginning(file) for file in files_below(params)}
    named = [_beginning(file).strip() for file in files_below(tags, "mlflow.runName") if file.parent == tags]
    return TrackedRun(named[0] if named else folder.name, "mlflow", config, values)


def _own_folder(folder: Path, name: str) -> Path:
    """A folder of a run, there or not; DataError if a link leads out: what is yours would be listed and imported."""
    path = folder / name
    if leads_out(path, folder):
        raise DataError(
            f"{path} is a link to {os.path.realpath(path)}, outside of the run's folder, and is not followed: put a copy in "
            "its place"
        )
    return path


def _once(files: Iterable[Path]) -> list[Path]:
    """The files, each by its first name alone: links within a folder would have one read thousands of times."""
    first: dict[Path, Path] = {}
    for file in files:
        first.setdefault(file.resolve(), file)
    return list(first.values())


def _trackio(file: Path) -> Iterator[TrackedRun]:
    """The runs of a project's SQLite file; nothing if it is another's."""
    if forged_journal(file):
        raise DataError(f"a journal beside {file} is not its own: remove it")
    try:
        with closing(connect_bounded(file.resolve(), "ro", steps=_STEPS)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT)
            size = sum(each.stat().st_size for each in (file, Path(f"{file}-wal")) if each.is_file())
            made = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
            tables = {name for name, sql in made if str(sql).startswith("CREATE TABLE ")}  # a virtual one runs queries
            if "metrics" not in tables:
                return
            columns = {row[1] for row in connection.execute("PRAGMA table_info(metrics)")}
            if not {"id", "timestamp", "run_name", "step", "metrics"} <= columns:
                return
            key = "run_id" if "run_id" in columns else "run_name"
            kept = {row[1] for row in connection.execute("PRAGMA table_info(configs)")}  # what is computed is not in it
            has_configs = "configs" in tables and {key, "config"} <= kept
            configs = dict(connection.execute(f"SELECT {key}, config FROM configs")) if has_configs else {}
            rows, names = _rows_of_runs(connection, key, file, size)
            left = size
            for run in sorted(rows, key=lambda each: min(rows[each])):
                values = LoggedValues(f"{file.stem}-{names[run]}")
                numbers = sorted(rows[run])
                for start in range(0, len(numbers), _AT_ONCE):
                    some = numbers[start : start + _AT_ONCE]
                    marks = ", ".join("?" * len(some))
                    for row in connection.execute(
                        f"SELECT step, timestamp, metrics FROM metrics WHERE rowid IN ({marks})", some
                    ):
                        left = _left(left, row, file)
                        values.extend(_trackio_row(file, *row))
                values.sort(key=lambda each: each.step)
                yield TrackedRun(f"{file.stem}-{names[run]}", "trackio", _object(configs.get(run)), values)
    except sqlite3.Error as error:
        raise DataError(f"{file} cannot be read as a database: {error}") from None


def _rows_of_runs(
    connection: sqlite3.Connection, key: str, file: Path, size: int
) -> tuple[dict[object, array[int]], dict[object, str]]:
    """The numbers of each run's rows, and its name.

    They are grouped here: SQLite would write the texts that it sorts to the disk, each as often as a forged file has it.
    """
    rows: dict[object, array[int]] = {}
    names: dict[object, str] = {}
    left = size
    columns = key if key == "run_name" else f"{key}, run_name"
    for number, run, *given in connection.execute(f"SELECT rowid, {columns} FROM metrics"):
        left = _left(left, (run, *given), file)
        name = str((given or [run])[0])
        rows.setdefault(run, array("q")).append(number)
        names[run] = max(names.get(run, name), name)
    return rows, names


def _left(left: int, row: tuple[object, ...], file: Path) -> int:
    """Returns how many bytes the texts of a database may still have; DataError if none."""
    left -= sum(len(each) for each in row if isinstance(each, str | bytes))
    if left < 0:
        raise DataError(f"{file} is damaged: its rows have more text than the file")
    return left


def _trackio_row(file: Path, step: object, at: object, body: object) -> Iterator[LoggedValue]:
    if not isinstance(step, int) or step < 0:
        raise DataError(f"{file}: a step is {step!r:.40}: a whole number was expected")
    try:
        seconds = datetime.fromisoformat(str(at)).timestamp()
    except (ValueError, OverflowError):
        seconds = 0.0
    special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    for name, value in _object(body).items():
        number = special.get(value) if isinstance(value, str) else value
        if isinstance(number, int | float):
            yield LoggedValue(name, step, number_of(number), seconds)


def _object(text: object) -> Json:
    try:
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        found = json.loads(raw) if isinstance(raw, bytes) and values_in(raw, MAX_ITEM) <= MAX_ITEM else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=4096)
def _named(name: str) -> str:
    """The name as a Track takes it: one line, of bounded length."""
    plain = "".join(c if c.isprintable() else " " for c in name).encode("utf-8", "replace").decode()
    return plain[:MAX_NAME] or "unnamed"


def _beginning(file: Path) -> str:
    with io.TextIOWrapper(open_ordinary(file), encoding="utf-8", errors="replace") as text:
        return text.read(MAX_VALUE)


def _lines(file: Path) -> Iterator[str]:
    """The lines of a file, one at a time; DataError if one is longer than any that MLflow writes."""
    with io.TextIOWrapper(open_ordinary(file), encoding="utf-8", errors="replace") as text:
        while line := text.readline(MAX_VALUE):
            if len(line) == MAX_VALUE:
                raise DataError(f"{file} has a line of more than {MAX_VALUE:,} characters: it is no metric")
            yield line
