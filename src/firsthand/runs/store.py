"""Makes, opens and lists runs; `Run` itself is in `run_folder.py`, and can be imported from here."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from firsthand import __version__
from firsthand.errors import StoreError
from firsthand.message import Json, canonical
from firsthand.runs.database import Database, put
from firsthand.runs.index import Index, RunInfo, listed
from firsthand.runs.integrity import seal
from firsthand.runs.run_folder import Run
from firsthand.runs.run_names import DATABASE, LOCK, MAKING, find_run, new_run_id
from firsthand.runs.score_totals import ScoreMean
from firsthand.runs.stored_journal import now
from firsthand.system.address_secrets import without_secrets, without_secrets_in
from firsthand.system.home_seal import seal_of
from firsthand.system.lock import held
from firsthand.system.own_file import expect_own_file
from firsthand.system.source_commit import source_commit

__all__ = ["Run", "create", "describe_machine", "list_runs", "open_or_create", "open_run"]


def create(
    home: Path,
    config: Json,
    name_hint: str,
    *,
    command: Iterable[str] | None = None,
    figures: Mapping[str, str] | None = None,
    protocols: Mapping[str, str] | None = None,
    at: Path | None = None,
    reducers: Mapping[str, str] | None = None,
    files: Mapping[str, Mapping[str, str]] | None = None,
    scorers: Mapping[str, Sequence[Json]] | None = None,
    code: Mapping[str, str] | None = None,
) -> Run:
    """A new run under `home`, or in the folder `at`, which may hold other files.

    `command` is the command line that makes it, by default this process's; it is kept without the secrets of addresses.
    `figures` maps each benchmark that has figures of its own to the spec that makes it, `protocols` each benchmark to how it
    is prompted and scored, `reducers` each that has one to the reducer of its epochs. `files` maps a kind to the SHA-256 of
    each of the user's own files that define things of it. `scorers` maps each benchmark to its scorers: their `names`,
    `words` and `digest`. `code` maps each agent to the digest of its code; see `scored_alike.py`.
    """
    about = _about(config, command, figures, protocols, reducers, files, scorers, code)
    if at is not None:
        with _making(at):
            if (at / DATABASE).exists():
                raise StoreError(f"{at} holds a run already: open it, or give another folder")
            return _created(at, about, None)
    while True:
        path = home / "runs" / new_run_id(datetime.now(UTC), name_hint)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.is_dir():
                continue  # the same four letters in the same minute
            raise _not_made(home / "runs", error) from None
        return _created(path, about, Index(home / "runs"))


def open_or_create(home: Path, config: Json, name_hint: str, *, at: Path, command: Iterable[str] | None = None) -> Run:
    """The run in the folder `at`, made if there is none; of processes that ask at once, one makes it."""
    try:
        return create(home, config, name_hint, at=at, command=command)
    except StoreError:
        if not (at / DATABASE).exists():
            raise
    return open_run(at, home)  # it is whole: `create` has waited for its maker


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    """Be the one that makes a run in the folder; it is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_made(folder, error) from None
    with held(folder / MAKING):
        yield


def _about(
    config: Json,
    command: Iterable[str] | None,
    figures: Mapping[str, str] | None,
    protocols: Mapping[str, str] | None,
    reducers: Mapping[str, str] | None,
    files: Mapping[str, Mapping[str, str]] | None,
    scorers: Mapping[str, Sequence[Json]] | None,
    code: Mapping[str, str] | None,
) -> Json:
    """All that a run says of its making."""
    return {
        "config": config,
        "config_seal": _seal_of_config(config),
        "command": [without_secrets(str(word)) for word in (sys.argv if command is None else command)],
        "firsthand": __version__,
        "commit": source_commit(),
        "machine": describe_machine(),
        "figures": dict(figures or {}),
        "figures_seal": seal_of(canonical(dict(figures)), "figures") if figures else "",
        "protocols": without_secrets_in(protocols or {}),
        "reducers": dict(reducers or {}),
        "files": without_secrets_in(files or {}),
        **(
            {"scorers": {name: list(map(without_secrets_in, each)) for name, each in scorers.items()}}
            if scorers
            else {}
        ),
        **({"code": dict(code)} if code else {}),
    }


def _created(path: Path, about: Json, index: Index | None) -> Run:
    """The run in a folder that has none: a new one of the index, or one that may hold other files."""
    for name in (LOCK, DATABASE):
        expect_own_file(path / name)  # the folder of `at` may be somebody else's
    try:
        (path / LOCK).touch()
        run = Run(path, Database(path / DATABASE, create=True), index=index)
        with run.database.write() as connection:
            digest = put(connection, about, exact=False)
            connection.execute(
                "INSERT INTO run (id, created_at, status, about) VALUES (1, ?, 'running', ?)", (now(), digest)
            )
            seal(connection, "run", "true")
        run._is_checked = True
    except BaseException as error:
        if index is not None:
            shutil.rmtree(path, ignore_errors=True)  # half a run could not be resumed
        for file in path.glob(f"{DATABASE}*"):
            file.unlink(missing_ok=True)
        cause = error.__cause__ if isinstance(error, StoreError) else error
        if isinstance(cause, OSError | sqlite3.Error):
            raise _not_made(path if index is None else path.parent, cause) from error
        raise
    run.touch()
    return run


def _seal_of_config(config: Json) -> str:
    """The seal over the config as it will be read; empty for one that cannot be stored."""
    try:
        return seal_of(canonical(json.loads(json.dumps(config, default=str))), "run")
    except (TypeError, ValueError, RecursionError):
        return ""


def _not_made(folder: Path, error: OSError | sqlite3.Error) -> StoreError:
    why = getattr(error, "strerror", None) or error
    return StoreError(
        f"no run can be made in {folder} ({why}), and nothing of it is left: make room there, or set FIRSTHAND_HOME "
        "to a folder with room"
    )


def open_run(ref: str | Path, home: Path) -> Run:
    """The run that `ref` names: `last`, an id, a unique beginning of one, or the path of its folder."""
    path = find_run(str(ref), home)
    index = Index(path.parent) if path.parent.resolve() == (home / "runs").resolve() else None
    run = Run(path, Database(path / DATABASE), index=index)
    run._row()
    return run


def list_runs(
    home: Path,
    on_problem: Callable[[str], None] = lambda text: None,
    *,
    scored: Callable[[Run], tuple[ScoreMean, ...]] | None = None,
) -> list[RunInfo]:
    """All runs under `home`, the newest first. One that cannot be read is listed with its problem.

    They come from the index of runs, which opens no run. Runs that it does not know are opened once. `on_problem` is told
    if the index was damaged, and of runs whose scores cannot be computed. Scores that are no means of attempts are None
    without `scored`, such as `stats.agent_scores`, which is asked once for each run that has some; where it fails the run
    is listed without scores, and asked again the next time.
    """

    def score(path: Path) -> tuple[ScoreMean, ...] | None:
        try:
            with Run(path, Database(path / DATABASE)) as run:
                return None if scored is None else scored(run)
        except Exception as error:  # a figure runs a benchmark's own code, and one run must not hide the others
            on_problem(
                f"the scores of run {path.name} cannot be computed, so it is listed without them; "
                f"`firsthand summary {path.name}` says more ({type(error).__name__}: {error})"
            )
            return None

    infos = listed(home, _info, on_problem, None if scored is None else score)
    return sorted(infos, key=lambda info: (info.id[:15], info.created_at), reverse=True)


def describe_machine() -> Json:
    """System, processor, cores and versions, as a reader of the numbers needs them; no names of users or hosts."""
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
