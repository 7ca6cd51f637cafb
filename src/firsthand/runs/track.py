"""Track: numbers, texts and files by step, of training or any other loop, in a run's own file.

    track = start("my-model", config={"lr": 3e-4})
    track.log({"loss": loss}, step=step)

Numbers are written in groups, at most every FLUSH_S seconds; `flush` writes what is pending, and a checkpoint flushes before
it is saved, so a killed process loses none that came before its last checkpoint. A loop that goes on from a checkpoint calls
`rewind`: what was logged at later steps stays in the file and is no part of the curves and texts. Of two values at one step
the later counts. Any thread may log.
"""

from __future__ import annotations

import atexit
import hashlib
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, SupportsFloat

from firsthand.errors import ConfigError, StoreError
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.database import put
from firsthand.runs.integrity import SEALED, seal
from firsthand.runs.run_folder import Run
from firsthand.system.address_secrets import without_secrets_in
from firsthand.system.home import data_home
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.secret_names import is_password_name, is_secret_name

FOLDER_VARIABLE = "FIRSTHAND_TRACK_AT"
"""The environment variable that names the folder of the run that `start` makes, as a sweep sets it for each trial."""
FLUSH_S = 0.25
"""Numbers are written at most this often."""
MAX_PENDING = 4096
"""Numbers that wait at most before they are written."""
MAX_NAME = 200
HIDDEN = "[redacted]"
"""Stands in a run for the value of a setting whose name is a secret's, such as `api_key`."""
MAX_STEP = 2**62
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
_LIVE = "NOT EXISTS (SELECT 1 FROM rewinds WHERE rewinds.after >= {0}.seq AND rewinds.step < {0}.step)"
"""True of a metric that no later `rewind` has left behind."""
_LIVE_TEXT = "NOT EXISTS (SELECT 1 FROM rewinds WHERE rewinds.at >= samples.at AND rewinds.step < samples.step)"
"""The same of a text, by the clock: texts are counted for themselves."""
_Pending = tuple[str, int, float, float]
"""Name, step, value and time."""


class Metrics(Protocol):
    """Takes numbers by step, as `Track` does."""

    def log(self, values: Mapping[str, SupportsFloat], *, step: int) -> None:
        """Keep these numbers."""
        ...


@dataclass(frozen=True)
class Curve:
    """The values of one metric, by step in growing order."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    """NaN where it was logged as such."""
    at: tuple[float, ...]
    """When each was logged: seconds since 1970."""

    def thinned(self, points: int) -> Curve:
        """The curve in at most so many points: means of neighbours, at their last step. A NaN among them is NaN."""
        size = math.ceil(len(self.steps) / points)
        if size <= 1:
            return self
        parts = [slice(start, start + size) for start in range(0, len(self.steps), size)]
        return Curve(
            self.name,
            tuple(self.steps[part][-1] for part in parts),
            tuple(_mean(self.values[part]) for part in parts),
            tuple(self.at[part][-1] for part in parts),
        )


@dataclass(frozen=True)
class Artifact:
    """A file that a run made."""

    name: str
    step: int | None
    path: Path
    """Relative to the run's folder, if it lies there."""
    sha256: str
    bytes: int


@dataclass(frozen=True)
class TextSample:
    """A text that was logged, such as a model's answer in the middle of training."""

    name: str
    step: int
    text: str


class Track:
    """The metrics, texts and artifacts of one run. `start` makes one with a run of its own."""

    def __init__(self, run: Run):
        self.run = run
        self._lock = threading.RLock()
        self._pending: list[_Pending] = []
        self._written_at = float("-inf")
        self._timer: threading.Timer | None = None
        self._claim = ExitStack()
        self.step = self.last_step() or 0
        """The step that was logged last."""

    def __enter__(self) -> Track:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.finish(error)

    # -- writing --

    def log(self, values: Mapping[str, SupportsFloat], *, step: int, at: float | None = None) -> None:
        """Keep numbers of one step: anything that `float` takes. ConfigError for a name or value that cannot be kept.

        `at` is when they were logged, in seconds since 1970; without it, now.
        """
        _check_step(step)
        now = time.time() if at is None else at
        rows = [(_checked(name), step, _number(name, value), now) for name, value in values.items()]
        with self._lock:
            self._pending += rows
            self.step = step
            since = time.monotonic() - self._written_at
            if since >= FLUSH_S or len(self._pending) >= MAX_PENDING:
                self.flush()
            elif self._timer is None and rows:
                self._timer = threading.Timer(FLUSH_S - since, self._flush_late)
                self._timer.daemon = True
                self._timer.start()

    def text(self, name: str, text: str, *, step: int) -> None:
        """Keep a text of one step."""
        _check_step(step)
        with self._lock:
            self.flush()
            with self.run.database.write() as connection:
                body = put(connection, text)
                _insert(connection, "samples", (_checked(name), step, body, time.time()))

    def artifact(self, path: Path | str, *, name: str = "", step: int | None = None) -> Artifact:
        """Keep name, size and SHA-256 of a file, which stays where it is. StoreError if it cannot be read."""
        path = Path(path)
        if step is not None:
            _check_step(step)
        try:
            with open_ordinary(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise StoreError(f"the artifact {path} cannot be read: {error.strerror or error}") from None
        with suppress(ValueError):
            path = path.resolve().relative_to(self.run.path.resolve())
        kept = Artifact(_checked(name or path.name), step, path, digest, size)
        with self._lock:
            self.flush()
            with self.run.database.write() as connection:
                _insert(connection, "artifacts", (kept.name, step, str(path), digest, size, time.time()))
        return kept

    def rewind(self, step: int) -> None:
        """Say that the loop goes on after `step`: numbers and texts of later steps count no more."""
        _check_step(step)
        with self._lock:
            self.flush()
            with self.run.database.write() as connection:
                last = connection.execute("SELECT coalesce(max(seq), 0) FROM metrics").fetchone()[0]
                _insert(connection, "rewinds", (step, last, time.time()))
            self.step = step

    def flush(self) -> None:
        """Write the numbers that are pending. A full disk is a StoreError, and they stay pending."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._pending:
                with self.run.database.write() as connection:
                    last = connection.execute("SELECT coalesce(max(seq), 0) FROM metrics").fetchone()[0]
                    columns = SEALED["metrics"].partition(", ")[2]
                    connection.executemany(f"INSERT INTO metrics ({columns}) VALUES (?, ?, ?, ?)", self._pending)
                    seal(connection, "metrics", "seq > ?", (last,))
                self._pending = []
            self._written_at = time.monotonic()
        self.run.touch()

    def _flush_late(self) -> None:
        with suppress(StoreError):  # the next `log` says it
            self.flush()

    def finish(self, error: BaseException | None = None) -> None:
        """Write what is pending, mark the run as `done`, or as `interrupted` after an error, and close its file."""
        atexit.unregister(self._finish_at_exit)
        try:
            self.flush()
        finally:
            kind = type(error) if error is not None else None
            self._claim.__exit__(kind, error, error.__traceback__ if error is not None else None)
            self.run.close()

    def _finish_at_exit(self) -> None:
        """At the end of a program that never called `finish`; an error that ended it has left itself in `sys`."""
        with suppress(StoreError):
            self.finish(getattr(sys, "last_value", None))

    # -- reading --

    def names(self) -> tuple[str, ...]:
        """The names of the metrics that have values, sorted."""
        self._settle()
        found: list[str] = []
        live = f"SELECT 1 FROM metrics WHERE name = ? AND {_LIVE.format('metrics')} LIMIT 1"
        following, last = "SELECT min(name) FROM metrics WHERE name > ?", ""
        while (name := self.run.database.read(following, (last,))[0][0]) is not None:  # a search for each, no scan
            last = name
            if self.run.database.read(live, (name,)):
                found.append(name)
        return tuple(found)

    def curve(self, name: str) -> Curve:
        """The values of a metric; empty if it has none."""
        self._settle()
        rows = self.run.database.read(
            f"SELECT step, value, at FROM metrics WHERE name = ? AND {_LIVE.format('metrics')} ORDER BY step, seq",
            (name,),
        )
        latest = {step: (math.nan if value is None else value, at) for step, value, at in rows}
        return Curve(
            name, tuple(latest), tuple(value for value, _ in latest.values()), tuple(at for _, at in latest.values())
        )

    def last(self, name: str) -> float | None:
        """The value of a metric at its highest step; None if it has none, or it is NaN."""
        self._settle()
        rows = self.run.database.read(
            f"SELECT value FROM metrics WHERE name = ? AND {_LIVE.format('metrics')} ORDER BY step DESC, seq DESC LIMIT 1",
            (name,),
        )
        return None if not rows or rows[0][0] is None else float(rows[0][0])

    def curves(self, names: Sequence[str] = ()) -> Iterator[Curve]:
        """The curves of these metrics; by default of all, by name."""
        return map(self.curve, names or self.names())

    def texts(self, name: str | None = None) -> list[TextSample]:
        """The texts that were logged, without those that a rewind left behind, in order; of one name if it is given."""
        rows = self.run.database.read(
            f"SELECT name, step, body FROM samples WHERE (? IS NULL OR name = ?) AND {_LIVE_TEXT} ORDER BY seq",
            (name, name),
        )
        return [TextSample(name, step, str(self.run.database.get(body))) for name, step, body in rows]

    def artifacts(self) -> list[Artifact]:
        """The files that were kept, in that order."""
        rows = self.run.database.read("SELECT name, step, path, sha256, bytes FROM artifacts ORDER BY seq")
        return [Artifact(name, step, Path(path), digest, size) for name, step, path, digest, size in rows]

    @property
    def has_pending(self) -> bool:
        """True if numbers wait to be written."""
        return bool(self._pending)

    def _settle(self) -> None:
        """Write what is pending before it is read. A run that is only read is never written."""
        if self._pending:
            self.flush()

    def last_step(self) -> int | None:
        """The highest step with a value; None without one."""
        latest = f"SELECT step FROM metrics WHERE name = ? AND {_LIVE.format('metrics')} ORDER BY step DESC LIMIT 1"
        return max((int(self.run.database.read(latest, (name,))[0][0]) for name in self.names()), default=None)


def start(
    name: str, *, config: Json | None = None, home: Path | None = None, resume: Path | str | None = None
) -> Track:
    """A Track in a new run named after `name`, or in the run `resume`; the run is this process's until `finish`.

    A value of `config` under the name of a secret, such as `api_key`, is kept as `[redacted]`.
    A program that ends without `finish` finishes it. The environment variable FOLDER_VARIABLE names another folder for a new
    run. ConfigError, which names the holder, if another process has the run.
    """
    place = home or data_home()
    if resume is None:
        folder = os.environ.get(FOLDER_VARIABLE)
        about = {"kind": "track", "name": name, **_without_secrets(config or {})}
        run = store.create(place, about, name, at=Path(folder) if folder else None)
    else:
        run = store.open_run(resume, place)
    track = Track(run)
    try:
        track._claim.enter_context(run.working())
    except BaseException:
        run.close()
        raise
    atexit.register(track._finish_at_exit)
    return track


def _without_secrets(value: Any) -> Any:
    """The value without the secrets in its addresses, and `[redacted]` under the names of secrets, however deep."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if _is_secret(str(key), held) else _without_secrets(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    return without_secrets_in(value)


def _is_secret(name: str, value: Any) -> bool:
    """True for a value under the name of a secret, but for a switch or a count; a password may be a number."""
    is_number = isinstance(value, int | float) and (isinstance(value, bool) or not is_password_name(name))
    return value not in (None, "") and not is_number and is_secret_name(name)


def _insert(connection: Any, table: str, values: Sequence[Any]) -> None:
    """Add a row with its checksum; SQLite numbers it."""
    columns = SEALED[table].split(", ")
    row = connection.execute(
        f"INSERT INTO {table} ({', '.join(columns[1:])}) VALUES ({', '.join('?' * len(values))}) RETURNING seq", values
    ).fetchone()
    connection.execute(f"UPDATE {table} SET digest = checksum({SEALED[table]}) WHERE seq = ?", row)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values)


def _checked(name: str) -> str:
    if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r:.60} is no name: give 1 to {MAX_NAME} characters on one line")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name!r:.60} is no name: it holds half a character") from None
    return name


def _check_step(step: int) -> None:
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= MAX_STEP:
        raise ConfigError(f"step is {step!r:.60}: give a whole number, 0 or more")


def _number(name: str, value: SupportsFloat) -> float:
    if isinstance(value, str | bytes):
        raise ConfigError(f"{name} is {value!r:.60}: give a number, and texts to `text`")
    try:
        return float(
            value.item() if hasattr(value, "item") else value
        )  # of a tensor that has a gradient, without a warning
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ):  # torch raises the last for a tensor of several numbers
        raise ConfigError(f"{name} is {value!r:.60}: give one number") from None
