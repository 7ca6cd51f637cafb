"""Runs a sweep: one process per trial, some at a time, each with a run of its own; nothing is shared but their files.

    <sweep>/sweep.json              the command, the space, the metric, the rungs
    <sweep>/trials/0003-100/        the run of trial 3 on the rung of 100, with `log.txt`, what its process printed
    <sweep>/trials/0003-100.lock    held while that process or a child of it runs, which may outlive a sweep that is killed

A trial that ended well is not run again, so a sweep that was stopped goes on; neither is one that diverged, whose metric
ended in NaN or an infinity. With rungs (successive halving, Jamieson and Talwalkar, 2016, arXiv:1502.07943) all trials run
with the smallest budget, the best of them with the next, and so on; a trial without a value goes no further.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.message import Json, canonical
from firsthand.runs import store
from firsthand.runs.track import FOLDER_VARIABLE, Track
from firsthand.system.home_seal import is_ours, seal_of
from firsthand.system.interruption import interruptible_programs
from firsthand.system.lock import claimed, is_held, taken
from firsthand.system.new_file import write_new
from firsthand.system.own_file import expect_own_folder, open_own, read_own, read_own_json
from firsthand.system.whole_question import shown_whole
from firsthand.train.sweep_space import MAX_TRIALS, survivors

SPEC, SEAL = "sweep.json", "seal"
MAX_RUNGS = 100
MAX_WORD = 1 << 17
"""Characters of a word of a command, about what Linux starts a program with."""
OWN_FOLDER = "out"
"""The name in a command that stands for the trial's folder, and for no setting."""
_PLACE = re.compile(r"\{([^{}]*)\}")
_POLL_S = 0.05
_STOP_S = 5.0
"""Seconds that a stopped trial has to end itself."""


@dataclass(frozen=True)
class Sweep:
    """The command, settings and metric of a sweep."""

    command: tuple[str, ...]
    """The words of the command; `{name}` in a word stands for a setting, `{out}` for the trial's folder."""
    trials: tuple[Mapping[str, str], ...]
    metric: str
    minimise: bool = True
    budget: str = ""
    """The setting that rungs change, such as `steps`; empty without rungs."""
    rungs: tuple[str, ...] = ("",)
    """Budgets from the smallest on; one empty rung without."""
    eta: int = 3
    """One of so many trials goes on to the next rung."""
    best_of_curve: bool = False
    """Judge a trial by the best finite value of its metric, not by the last."""

    def __post_init__(self) -> None:
        if len(self.trials) > MAX_TRIALS or not 1 <= len(self.rungs) <= MAX_RUNGS:
            raise ConfigError(
                f"the sweep has {len(self.trials):,} trials and {len(self.rungs):,} budgets: give at most {MAX_TRIALS:,} "
                f"trials, and 1 to {MAX_RUNGS} budgets"
            )
        for rung in self.rungs:  # a part of a folder's name
            if not re.fullmatch(r"[\w.+-]{0,100}", rung, re.ASCII):
                raise ConfigError(f"the budget {rung!r:.60} cannot be a folder's name: give a number, such as 300")


@dataclass(frozen=True)
class Trial:
    """A trial on a rung, and how it went."""

    number: int
    rung: str
    settings: Mapping[str, str]
    folder: Path
    value: float = math.nan
    """The metric: its value at the highest step, or its best. NaN unless the trial is done."""
    state: str = "waiting"
    """`waiting`, `running`, `done`, `failed`, or `diverged`: it ended well, and its metric is no finite number."""
    why: str = ""
    """Of a failed one: its exit status and the last line that it printed. Of a curve that ends in NaN or infinity: where."""
    command: tuple[str, ...] = field(default=())


def save_spec(sweep: Sweep, folder: Path) -> None:
    """Write the spec into a new folder. ConfigError if it holds a sweep already; StoreError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / SPEC).exists():
            raise ConfigError(
                f"{folder} holds a sweep already: go on with --resume {shlex.quote(str(folder))}, or give another --out"
            )
        body = asdict(sweep)
        sealed = body | {SEAL: seal_of(_sealed_text(body), "sweep")}
        write_new(folder / SPEC, json.dumps(sealed, indent=2) + "\n")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror or error}): give another --out") from None


def load_spec(folder: Path) -> Sweep:
    """The sweep in a folder. ConfigError if there is none."""
    try:
        body = read_own_json(folder / SPEC)
        body.pop(SEAL, None)
        trials = tuple(dict(each) for each in body["trials"])
        body |= {"command": tuple(body["command"]), "trials": trials, "rungs": tuple(body["rungs"])}
        sweep = Sweep(**body)
        _expect_types(sweep)
        return sweep
    except OSError as error:
        raise ConfigError(
            f"{folder} holds no sweep ({SPEC}: {error.strerror or error}): give the folder of one"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{folder} holds no sweep ({type(error).__name__}): give the folder of one") from None


def run_sweep(
    folder: Path, *, jobs: int = 1, on_change: Callable[[Trial], None] = lambda trial: None, trust: bool = False
) -> list[Trial]:
    """Run what is left of the sweep in a folder; returns all its trials, rung by rung.

    ConfigError, which names the holder, if another process runs it, or one of its trials, or for a sweep from elsewhere
    without `trust`. Ctrl-C ends the trials' processes too.
    """
    sweep = load_spec(folder)
    if not trust and not _is_own(folder):
        raise ConfigError(
            f"{folder} was made elsewhere, and its trials run {shown_whole(_all_of(sweep))}: look at it, then add --trust"
        )
    busy = "wait until it ends, or end it first"
    expect_own_folder(folder / "trials")
    with claimed(folder / "lock", lambda by: ConfigError(f"{folder} is being run by {by}: {busy}")):
        chosen, all_trials = list(range(len(sweep.trials))), []
        for place, rung in enumerate(sweep.rungs):
            trials = _run_rung(sweep, folder, rung, chosen, jobs, on_change)
            all_trials += trials
            if place + 1 < len(sweep.rungs):
                count = max(1, len(trials) // sweep.eta)
                judged = [trial for trial in trials if not math.isnan(trial.value)]
                places = survivors([trial.value for trial in judged], count, minimise=sweep.minimise)
                chosen = sorted(judged[at].number for at in places)
        return all_trials


def _expect_types(sweep: Sweep) -> None:
    texts = [*sweep.command, sweep.metric, sweep.budget, *sweep.rungs]
    texts += [text for trial in sweep.trials for item in trial.items() for text in item]
    if not all(isinstance(text, str) for text in texts) or not (sweep.command and sweep.trials):
        raise TypeError
    if not (isinstance(sweep.minimise, bool) and isinstance(sweep.best_of_curve, bool) and type(sweep.eta) is int):
        raise TypeError
    if sweep.eta < 2:
        raise ValueError


def _all_of(sweep: Sweep) -> str:
    """The command and all values of its settings, of which more than twenty numbers are counted."""
    values: dict[str, dict[str, None]] = {}
    for trial in sweep.trials:
        for name, value in trial.items():
            values.setdefault(name, {})[value] = None
    if sweep.budget:
        values[sweep.budget] = dict.fromkeys(sweep.rungs)
    told = []
    for name, given in values.items():
        are_numbers = all(re.fullmatch(r"-?\d{1,30}(\.\d{0,30})?(e[-+]?\d{1,3})?", each, re.ASCII) for each in given)
        shown = f"{len(given):,} numbers" if are_numbers and len(given) > 20 else ",".join(given)
        told.append(repr(f"{name}={shown}"))
    return f"{shlex.join(sweep.command)!r}{' with ' if told else ''}{', '.join(told)}"


def _sealed_text(body: Json) -> str:
    return canonical(json.loads(json.dumps(body)))


def _is_own(folder: Path) -> bool:
    """True if the spec carries the seal of this data home: a folder may come from anyone, and its command is run."""
    body = read_own_json(folder / SPEC)
    seal = body.pop(SEAL, None)
    return is_ours(_sealed_text(body), seal, "sweep")


def trials_of(folder: Path) -> list[Trial]:
    """The trials of a sweep as they stand, without running any."""
    sweep = load_spec(folder)
    expect_own_folder(folder / "trials")
    there = {each.name for each in (folder / "trials").glob("*")}
    made = [
        _trial(sweep, folder, number, rung)
        for rung in sweep.rungs
        for number in range(len(sweep.trials))
        if rung == sweep.rungs[0] or _name(number, rung) in there
    ]
    return [
        looked
        for trial in made
        if (looked := _looked_at(sweep, trial)).state != "waiting" or trial.rung == sweep.rungs[0]
    ]


def best(sweep: Sweep, trials: Sequence[Trial]) -> Trial | None:
    """The best trial of the last rung that has one with a value."""
    for rung in reversed(sweep.rungs):
        of_rung = [trial for trial in trials if trial.rung == rung and not math.isnan(trial.value)]
        if of_rung:
            return of_rung[survivors([trial.value for trial in of_rung], 1, minimise=sweep.minimise)[0]]
    return None


def _run_rung(
    sweep: Sweep, folder: Path, rung: str, chosen: Sequence[int], jobs: int, on_change: Callable[[Trial], None]
) -> list[Trial]:
    waiting = [_looked_at(sweep, _trial(sweep, folder, number, rung)) for number in chosen]
    done = {trial.number: trial for trial in waiting if trial.state in ("done", "diverged")}
    waiting = [trial for trial in waiting if trial.number not in done]
    for trial in waiting:
        if is_held(_lock(trial)):
            raise _still_running(trial)
    under_way: dict[int, tuple[Trial, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                trial = waiting.pop(0)
                under_way[trial.number] = trial, _start(trial)
                on_change(_with(trial, state="running"))
            for number, (trial, process) in list(under_way.items()):
                if process.poll() is not None:
                    del under_way[number]
                    done[number] = _ended(sweep, trial, process.returncode)
                    on_change(done[number])
            time.sleep(_POLL_S)
    finally:
        _stop([process for _, process in under_way.values()])
    return [done[number] for number in chosen]


def _trial(sweep: Sweep, folder: Path, number: int, rung: str) -> Trial:
    settings = dict(sweep.trials[number]) | ({sweep.budget: rung} if sweep.budget else {})
    place = folder / "trials" / _name(number, rung)
    return Trial(number, rung, settings, place, command=_words(sweep.command, settings, place))


def _name(number: int, rung: str) -> str:
    return f"{number:04d}-{rung}" if rung else f"{number:04d}"


def _words(command: Sequence[str], settings: Mapping[str, str], folder: Path) -> tuple[str, ...]:
    """The words with their settings in place; a setting without a place becomes a flag at the end."""
    values = {**settings, OWN_FOLDER: str(folder)}
    words: list[str] = []
    placed: set[str] = set()
    for word in command:
        named = [name for name in _PLACE.findall(word) if name in values]
        if len(word) + sum(len(values[name]) for name in named) > MAX_WORD:
            longest = max(named, key=lambda name: len(values[name]), default="")
            raise ConfigError(
                f"the setting {longest!r:.60} makes a word of the command longer than {MAX_WORD:,} characters: shorten it"
            )
        words.append(_PLACE.sub(lambda found: values.get(found[1], found[0]), word))  # a value is never filled in again
        placed.update(named)
    flags = [
        word
        for name, value in settings.items()
        if name not in placed
        for word in (f"--{name.replace('_', '-')}", value)
    ]
    is_training = [Path(word).name for word in command[:2]] == ["firsthand", "train"]
    own_place = ["--out", str(folder)] if is_training and OWN_FOLDER not in placed else []
    return (*words, *flags, *own_place)


def _lock(trial: Trial) -> Path:
    return trial.folder.with_name(f"{trial.folder.name}.lock")


def _still_running(trial: Trial) -> ConfigError:
    try:
        process = f"process {int(read_own(_lock(trial), 100))}"
    except (OSError, ValueError):
        process = "a process"
    return ConfigError(
        f"{process} of trial {trial.folder.name}, or a child of it, has outlived its sweep: end it, or wait until it has "
        "ended, and resume"
    )


def _start(trial: Trial) -> subprocess.Popen[bytes]:
    try:
        trial.folder.parent.mkdir(parents=True, exist_ok=True)
        with taken(_lock(trial), lambda: _still_running(trial)) as lock:
            if trial.folder.exists():  # of a try that was stopped or failed
                shutil.rmtree(trial.folder)
            trial.folder.mkdir()
            with (trial.folder / "log.txt").open("wb") as log, interruptible_programs():
                process = subprocess.Popen(
                    trial.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, FOLDER_VARIABLE: str(trial.folder)},
                    pass_fds=(lock.fileno(),),
                )
            with suppress(OSError):  # a full disk: the lock holds without it
                os.truncate(lock.fileno(), 0)
                os.write(lock.fileno(), str(process.pid).encode())
            return process
    except OSError as error:
        raise ConfigError(
            f"the trial `{shlex.join(trial.command)}` cannot be started: {error.strerror or error}"
        ) from None


def _ended(sweep: Sweep, trial: Trial, code: int) -> Trial:
    """The trial after its process ended; the exit status is kept, so that a failed one is not taken for done later."""
    write_new(trial.folder / "exit", f"{code}\n")
    return _looked_at(sweep, trial)


def _looked_at(sweep: Sweep, trial: Trial) -> Trial:
    """The trial as its files show it. StoreError if a link has the place of its folder."""
    expect_own_folder(trial.folder)
    try:
        code = int(read_own(trial.folder / "exit", 100))
    except (OSError, ValueError):
        return trial
    if code:
        return _with(trial, state="failed", why=f"exit status {code}: {_last_line(trial.folder / 'log.txt')}")
    try:
        with closing(store.open_run(trial.folder, trial.folder)) as run:
            curve = Track(run).curve(sweep.metric)
            names = Track(run).names()
    except UnknownName:
        hint = f"let it log with `firsthand.runs.track`, which reads ${FOLDER_VARIABLE}"
        return _with(trial, state="failed", why=f"it kept no metrics in its folder: {hint}")
    except StoreError as error:
        return _with(trial, state="failed", why=str(error))
    if not curve.values:
        known = ", ".join(names) or "none"
        return _with(trial, state="failed", why=f"it logged no {sweep.metric!r}; its metrics are {known}")
    last = curve.values[-1]
    why = "" if math.isfinite(last) else f"{sweep.metric} is {last} at its last step, {curve.steps[-1]}"
    judged = [value for value in (curve.values if sweep.best_of_curve else [last]) if math.isfinite(value)]
    if not judged:
        return _with(trial, state="diverged", why=why)
    return _with(trial, state="done", why=why, value=min(judged) if sweep.minimise else max(judged))


def _with(trial: Trial, **changed: object) -> Trial:
    return Trial(**{**vars(trial), **changed})


def _last_line(log: Path) -> str:
    with suppress(OSError):
        with open_own(log) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read(4096).decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it printed nothing")
    return "it printed nothing"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and their children: first asked, after _STOP_S seconds made to."""
    left = [process for process in processes if process.poll() is None]
    try:
        _signal(left, signal.SIGINT)
        until = time.monotonic() + _STOP_S
        while any(process.poll() is None for process in left) and time.monotonic() < until:
            time.sleep(_POLL_S)
    finally:  # at once if Ctrl-C is pressed again
        _signal(left, signal.SIGKILL)  # also where its first process has ended: children may have stayed
        for process in left:
            process.wait()


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
