"""Writes a run as one HTML file, imports logs of Inspect and lm-evaluation-harness, and keeps accounts."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.system.given_folder import files_below
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, one_line

if TYPE_CHECKING:
    from firsthand.studio.studio_store import StudioStore


def export_run(name: str, to: Path | None, filter_text: str, home: Path) -> int:
    """Write the run's file and print its name."""
    from firsthand.runs import store
    from firsthand.studio.run_export import exported

    with store.open_run(name, home) as run:
        target = to or Path(f"{run.id}.html")
        taken = ConfigError(f"{target} is there already: give another file with --to")
        if target.exists():
            raise taken
        text, count, left_out = exported(run, filter_text)
        if filter_text.strip() and not count:
            raise ConfigError(f"no attempt of {run.id} matches the filter {filter_text!r}: nothing was written")
        try:
            with target.open("x", encoding="utf-8", errors="backslashreplace") as file:  # through no link either
                file.write(text)
        except FileExistsError:
            raise taken from None
        except OSError as error:
            raise StoreError(f"{target} cannot be written: {error.strerror or error}") from None
    left = f", {left_out:,} left out" if left_out else ""
    console().print(f"{count_of(count, 'attempt', ',')} in {target}{left}", soft_wrap=True, markup=False)
    return 0


def import_logs(path: Path, home: Path) -> int:
    """Import the logs in a file or folder and print the runs; status 1 if one of a folder is left out."""
    from firsthand.bridges.inspect.eval_logs import import_eval
    from firsthand.bridges.lm_eval.result_models import ResultModels
    from firsthand.bridges.lm_eval.sample_lines import import_samples

    if not path.exists():
        raise ConfigError(
            f"{path} is not there: give an .eval log of Inspect, samples_*.jsonl of lm-eval, or their folder"
        )
    files = [path] if path.is_file() else sorted([*files_below(path, "*.eval"), *files_below(path, "samples_*.jsonl")])
    if not files:
        raise ConfigError(f"{path} holds no logs: .eval files of Inspect or samples_*.jsonl of lm-eval were expected")
    left, models = 0, ResultModels()
    for file in files:
        try:
            id, count = import_eval(file, home) if file.suffix == ".eval" else import_samples(file, home, models)
        except DataError as error:
            if files == [path]:
                raise
            left = 1
            console(stderr=True).print(one_line(f"Left out: {error}"), soft_wrap=True, markup=False)
            continue
        console().print(f"{count_of(count, 'sample', ',')} in run {id}", soft_wrap=True, markup=False)
    return left


def store_of(home: Path, database: str, project: str = "") -> StudioStore:
    """The store of a data home, or of a database, or of a project that shares one."""
    if database:
        from firsthand.studio.postgres_store import PostgresStore
        from firsthand.studio.project_store import ProjectStore

        shared = PostgresStore(database)
        return ProjectStore(shared, project) if project else shared
    from firsthand.studio.studio_store import SqliteStore

    return SqliteStore(home)


def manage_accounts(words: Sequence[str], role: str, store: StudioStore, project: str = "") -> int:
    """Add, remove or list accounts, give a role, or make an API key; a password is typed, or read from standard input."""
    from firsthand.studio.accounts import Accounts

    accounts, out = Accounts(store, project=project), console()
    here = f" in {project}" if project else ""
    if words[0] == "list":
        for user in accounts.all():
            out.print(f"{user.name}  {user.role}", markup=False)
    elif words[0] == "role":
        accounts.give_role(words[1], role)
        out.print(f"{words[1]} {f'is {role}' if role != 'none' else 'has no role'}{here}.", markup=False)
    elif words[0] == "remove":
        accounts.remove(words[1])
        out.print(f"{words[1]} is removed, with its keys and sessions.", markup=False)
    elif words[0] == "key":
        out.print(accounts.new_key(words[1]), soft_wrap=True, markup=False, highlight=False)
    else:
        is_person = sys.stdin is not None and sys.stdin.isatty()
        password = getpass.getpass("Password: ") if is_person else sys.stdin.readline().rstrip("\n")
        if is_person and getpass.getpass("Again: ") != password:
            raise ConfigError("the two passwords differ: begin again")
        accounts.add(words[1], password, role)
        out.print(f"{words[1]} is {role}{here}.", markup=False)
    accounts.store.close()
    return 0
