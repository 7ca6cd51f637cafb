"""List all runs, newest first, or the attempts of one run; remove runs, or check them for changed bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

from firsthand.config import refuse_given
from firsthand.errors import ConfigError, StoreError
from firsthand.runs import store
from firsthand.runs.index import RunInfo
from firsthand.runs.removal import remove_run
from firsthand.runs.run_names import run_ids
from firsthand.stats.agent_scores import agent_scores
from firsthand.system import interruption
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import Terminal, complain, console, print_as_json, print_table

EXAMPLES = """
firsthand runs
firsthand runs last --limit 50
firsthand runs --json
firsthand runs 2026-11-25-0148-arithmetic-k3f9 --prune
firsthand runs --prune                     # the empty runs: no finished attempt, number, text or file
firsthand runs --prune --older-than 30     # in days
firsthand runs last --check    # read every byte of the run, and compare it with its checksums
"""

LINES = 20


@dataclass(frozen=True)
class Config:
    """Runs or attempts to list."""

    run: str | None = field(default=None, metadata={"positional": True})
    """List the attempts of this run; without it, all runs."""
    limit: int | None = None
    """At most this many lines; the default is 20, and with --json all."""
    prune: bool = False
    """Remove this run; without one, the empty runs (without a finished attempt, a number, a text or a file), or those older
    than --older-than."""
    older_than: float | None = None
    """With --prune: remove the runs that were made more than this many days ago."""
    yes: bool = False
    """Remove without asking."""
    json: bool = False
    """Print JSON for programs."""
    check: bool = False
    """Check every index, row, trace and reply of the run, or of all runs, for changes since it was written."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")
        if self.older_than is not None and not self.older_than >= 0:
            raise ConfigError(f"older_than is {self.older_than}: give a number of days, 0 or more")
        if not self.prune and (self.yes or self.older_than is not None):
            raise ConfigError("--older-than and --yes say what --prune removes: add --prune")
        if self.prune and self.run is not None and self.older_than is not None:
            raise ConfigError("--older-than chooses among all runs: leave it out, or the name of the run")
        if self.check and (self.json or self.prune):
            raise ConfigError("check prints sentences, and its exit status tells: leave out --json and --prune")


def main(config: Config) -> int:
    """Print the list, remove runs, or check them."""
    if config.check or config.prune:
        refuse_given(config, {"limit"}, "it is for the list: --check and --prune take every run that they are for")
    if config.prune:
        refuse_given(config, {"json"}, "--prune prints sentences")
    if config.check:
        return check_runs([config.run] if config.run else run_ids(data_home()))
    if config.prune:
        return prune(config)
    return list_attempts(config.run, config) if config.run else list_all(config)


def check_runs(refs: Sequence[str]) -> int:
    """Check runs to the last byte; 2 if one was changed."""
    damaged = 0
    for ref in refs:
        try:
            with store.open_run(ref, data_home()) as run:
                run.check(bodies=True)
                console().print(f"{run.id} is sound", soft_wrap=True, markup=False)
        except StoreError as error:
            complain(str(error))
            damaged += 1
    return 2 if damaged else 0


def list_all(config: Config) -> int:
    """Print the runs, newest first."""
    known = store.list_runs(data_home(), complain, scored=agent_scores)
    infos = known[: _most(config)]
    if config.json:
        print_as_json([{**asdict(info), "path": str(info.path)} for info in infos])
        return 0
    if not known:
        print(f"no runs in {data_home() / 'runs'} yet: `firsthand run arithmetic` makes one")
        return 0
    header = ["run", "made", "state", "score", "attempts", "errors", "command"]
    rows = [
        [
            info.id,
            _local_time(info.created_at),
            info.status,
            _score(info),
            _attempts(info),
            str(info.num_errors),
            info.problem or " ".join(info.command),
        ]
        for info in infos
    ]
    print_table(f"runs in {data_home() / 'runs'}", header, rows)
    if len(known) > len(infos):
        print(f"{len(infos)} of {len(known)} runs: --limit {len(known)} shows all")
    return 0


def _most(config: Config) -> int | None:
    """The number of lines; None for all: a program that reads JSON would not see that some are left off."""
    return config.limit or (None if config.json else LINES)


def prune(config: Config) -> int:
    """Remove runs, after asking; returns 1 if one could not be removed."""
    if config.run is not None:
        with store.open_run(config.run, data_home()) as run:
            chosen = [run.info]
    else:
        chosen = [info for info in store.list_runs(data_home(), complain) if _is_old(info, config.older_than)]
        if config.older_than is None:
            chosen = [info for info in chosen if _is_empty(info)]
    if not chosen:
        print("no run to remove")
        return 0
    if not config.yes and not _agreed(chosen):
        print(f"nothing removed: {len(chosen)} runs" if len(chosen) > 1 else f"nothing removed: {chosen[0].id}")
        return 0
    failed = 0
    for info in chosen:
        try:
            remove_run(info.path)
            print(f"removed {info.id}")
        except StoreError as error:
            failed += 1
            complain(str(error))
    return 1 if failed else 0


def _is_old(info: RunInfo, days: float | None) -> bool:
    """True if a run is to be removed where none is named. Those that cannot be read or are under way are kept."""
    if info.problem is not None or info.status == "running":
        return False
    if days is None:
        return info.num_traces == 0 and info.num_steps == 0
    made = datetime.fromisoformat(info.created_at)
    return datetime.now(UTC) - made > timedelta(days=days)


def _is_empty(info: RunInfo) -> bool:
    """True if a run holds nothing that somebody made or gave: attempts, numbers, texts, files or preferences."""
    try:
        with store.open_run(info.id, data_home()) as run:
            return not run.holds_something()
    except StoreError as error:
        complain(str(error))
        return False


def _agreed(chosen: Sequence[RunInfo]) -> bool:
    """The answer of the person at the terminal; ConfigError if there is none."""
    terminal = Terminal()
    attempts = sum(info.num_traces for info in chosen)
    if not terminal.is_there():
        raise ConfigError(
            f"this would remove {count_of(len(chosen), 'run')} with {count_of(attempts, 'attempt')}: add --yes"
        )
    for info in chosen[:10]:
        done = _attempts(info)
        print(f"{info.id}  {done} attempt{'' if done == '1' else 's'}")
    if len(chosen) > 10:
        print(f"and {len(chosen) - 10} more")
    question = f"Remove {'this run' if len(chosen) == 1 else f'these {len(chosen)} runs'}?"
    return interruption.run(terminal.choose(question, ["yes", "no"])) == "yes"


def _local_time(text: str) -> str:
    """A UTC time as the clock on the wall shows it, to the minute."""
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M}" if text else ""


def _score(info: RunInfo) -> str:
    """The score; of several agents or benchmarks the lowest and the highest."""
    means = [each.mean for each in info.scores if each.mean is not None]
    if not means:
        return ""
    low, high = f"{min(means):.2f}", f"{max(means):.2f}"
    return low if len(means) == 1 or low == high else f"{low} to {high}"


def _attempts(info: RunInfo) -> str:
    """Number of attempts done, and of the total if some are left."""
    planned = info.num_planned
    return str(info.num_traces) if planned is None or planned <= info.num_traces else f"{info.num_traces}/{planned}"


def list_attempts(ref: str, config: Config) -> int:
    """Print the attempts of one run, in the order they were finished."""
    with store.open_run(ref, data_home()) as run:
        rows = list(islice(run.rows(), _most(config)))
        num_traces = run.info.num_traces
        if config.json:
            print_as_json([vars(row) for row in rows])
            return 0
        cells = [
            [
                row.place[:8],
                row.name,
                "" if row.score is None else f"{row.score:g}",
                str(row.tokens),
                f"{row.duration_s:.1f}",
                row.error or ("" if row.stop_reason == "done" else row.stop_reason),
            ]
            for row in rows
        ]
        title = f"{run.id} ({run.status}); `firsthand show {run.id} ID` prints one"
        print_table(title, ["id", "benchmark/task/agent/epoch", "score", "tokens", "seconds", "ended by"], cells)
        if num_traces > len(rows):
            print(f"{len(rows)} of {num_traces} attempts: --limit {num_traces} shows all")
    return 0
