"""Run a command with many settings, some at a time, and show which did best: a grid, random draws, successive halving."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.runs.run_names import new_run_id
from firsthand.show.curves import number
from firsthand.stats.metric_names import is_higher_better, is_lower_better
from firsthand.system.home import data_home
from firsthand.system.terminal import console, print_as_json, print_table
from firsthand.train.sweep import OWN_FOLDER, Sweep, Trial, best, load_spec, run_sweep, save_spec, trials_of
from firsthand.train.sweep_space import combinations, parse_space

EXAMPLES = """
firsthand sweep "firsthand train sft chats.jsonl --model MODEL" --set lr=1e-4,1e-3 --metric held_out_loss
firsthand sweep "python train.py" --set lr=log:1e-5:1e-2 --set layers=int:2:6 --trials 20 --jobs 2 --metric loss
firsthand sweep "python train.py --lr {lr}" --set lr=log:1e-5:1e-2 --trials 27 --halving steps=100,300,900 --metric loss
firsthand sweep --resume my-sweep
firsthand sweep --show my-sweep
"""


@dataclass(frozen=True)
class Config:
    """A command, its settings, and the metric to judge by."""

    command: str | None = field(default=None, metadata={"positional": True})
    """The command of a trial. `{lr}` in it stands for the setting lr; a setting without a place becomes the flag --lr."""
    set: tuple[str, ...] = field(default=(), metadata={"repeated": True})
    """A setting: lr=1e-4,1e-3 for values, lr=log:1e-5:1e-2, x=uniform:0:1 or n=int:2:8 for ranges."""
    metric: str = "held_out_loss"
    """The metric that trials are judged by, as their Track has it."""
    maximise: bool = False
    """Higher is better."""
    minimise: bool = False
    """Lower is better: the default for losses, errors and names that say neither, such as latency."""
    best_of_curve: bool = False
    """Judge a trial by the best finite value of the metric, not by the last; a curve that ends in NaN counts too."""
    trials: int | None = None
    """Number of random draws; without it, every combination is tried."""
    halving: str | None = None
    """Successive halving over budgets, as steps=100,300,900: all run with the first, the best third with the next."""
    eta: int = 3
    """With --halving: one in this many trials goes on to the next budget."""
    jobs: int = 1
    """Processes at a time."""
    seed: int = 0
    """Seed of the random draws."""
    out: Path | None = None
    """Folder of the sweep; by default a new one below `<data home>/sweeps`."""
    resume: Path | None = None
    """Run what is left of the sweep in this folder."""
    trust: bool = False
    """With --resume: run the command of a sweep that was made elsewhere; look at its sweep.json first."""
    show: Path | None = None
    """Show the sweep in this folder, and run nothing."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        given = [name for name in ("command", "resume", "show") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError("give a command for a new sweep, or --resume or --show with the folder of one")
        if self.command is not None and not self.set:
            raise ConfigError("a sweep needs something to vary: --set lr=1e-4,1e-3")
        if self.maximise and self.minimise:
            raise ConfigError("maximise and minimise do not go together: leave out one of them")
        if self.jobs < 1 or self.eta < 2:
            raise ConfigError(f"jobs is {self.jobs} and eta {self.eta}: give 1 or more, and 2 or more")


def main(config: Config) -> int:
    """Run or show the sweep; 1 if every trial failed."""
    refuse_unused(config)
    if config.show is not None:
        return report(config.show, trials_of(config.show), config)
    folder = config.resume or config.out or data_home() / "sweeps" / new_run_id(datetime.now(UTC), "sweep")
    if config.command is not None:
        sweep = new_sweep(config, config.command)
        program = sweep.command[0]
        if "{" not in program and shutil.which(program) is None:
            raise ConfigError(
                f"there is no program {program!r}: give a command, as in firsthand sweep 'firsthand train ...'"
            )
        save_spec(sweep, folder)
    if not config.json:
        console().print(f"sweep     {folder}", soft_wrap=True, markup=False)
    try:
        trials = run_sweep(
            folder,
            jobs=config.jobs,
            on_change=lambda trial: None if config.json else tell(trial),
            trust=config.trust,
        )
    except KeyboardInterrupt:
        print(
            f"\nfirsthand: interrupted: `firsthand sweep --resume {shlex.quote(str(folder))}` runs what is left",
            file=sys.stderr,
        )
        return 130
    return report(folder, trials, config)


def refuse_unused(config: Config) -> None:
    """ConfigError for flags that have no effect: the sweep in a folder has its own settings and its own metric."""
    of_new = {"set", "metric", "maximise", "minimise", "best_of_curve", "trials", "halving", "eta", "seed", "out"}
    if config.show is not None:
        refuse_given(config, of_new | {"jobs", "trust"}, "--show shows a sweep by the settings that it was made with")
    elif config.resume is not None:
        refuse_given(config, of_new, "--resume runs a sweep with the settings that it was made with")
    else:
        refuse_given(config, {"trust"}, "it goes with --resume")
        if config.halving is None:
            refuse_given(config, {"eta"}, "it goes with --halving")
        if config.trials is None:
            refuse_given(config, {"seed"}, "it goes with --trials; a grid has no random draws")


def new_sweep(config: Config, command: str) -> Sweep:
    """The sweep that the flags describe."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"the command cannot be read ({error}): put it in quotes, as a shell takes it") from None
    if not words:
        raise ConfigError("the command is empty: give the words that start a trial")
    budget, equals, budgets = (config.halving or "").partition("=")
    rungs = tuple(budgets.split(",")) if equals else ("",)
    if config.halving is not None and (not equals or not budget or not all(rungs) or len(set(rungs)) < len(rungs)):
        raise ConfigError(f"halving is {config.halving!r:.80}: give a setting and its budgets, as steps=100,300,900")
    sizes = map(as_number, rungs)  # a budget that is no number, such as a file, has no order
    if any(before >= after for before, after in pairwise(sizes)):
        raise ConfigError(f"the budgets of halving are {budgets}: give them from the smallest on")
    space = parse_space(config.set)
    if budget in space:
        raise ConfigError(f"{budget} is the budget of --halving: leave it out of --set")
    if OWN_FOLDER in (budget, *space):
        raise ConfigError(
            f"{OWN_FOLDER} stands for the folder of a trial: vary another name, as in --set place=a,b, and write "
            f"--{OWN_FOLDER} {{place}} in the command"
        )
    settings = combinations(space, trials=config.trials, seed=config.seed)
    return Sweep(
        tuple(words),
        tuple(settings),
        config.metric,
        is_minimised(config),
        budget,
        rungs,
        config.eta,
        config.best_of_curve,
    )


def is_minimised(config: Config) -> bool:
    """True if the lowest value is the best. ConfigError if the metric says by its name alone that higher is better."""
    if not (config.maximise or config.minimise) and is_higher_better(config.metric):
        raise ConfigError(
            f"a sweep takes the lowest {config.metric}, and by its name higher is better: add --maximise, or --minimise "
            "if lower is"
        )
    return not config.maximise


def as_number(text: str) -> float:
    """The number that a budget is; nan for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def tell(trial: Trial) -> None:
    """Print a line when a trial begins or ends."""
    result = trial.why if math.isnan(trial.value) else f"{number(trial.value)}  {trial.why}"
    console().print(
        f"{trial.state:<8}  {trial.number:>4}  {_settings(trial)}  {result}".rstrip(), soft_wrap=True, markup=False
    )


def report(folder: Path, trials: Sequence[Trial], config: Config) -> int:
    """Print the trials of each rung, best first."""
    sweep = load_spec(folder)
    top = best(sweep, trials)
    if config.json:
        body = [
            {**vars(trial), "folder": str(trial.folder), "value": None if math.isnan(trial.value) else trial.value}
            for trial in trials
        ]
        print_as_json({"best": None if top is None else top.number, "best_of": _tried(trials), "trials": body})
        return 0 if top is not None else 1
    sign = 1 if sweep.minimise else -1
    for rung in sweep.rungs:
        of_rung = [trial for trial in trials if trial.rung == rung]
        of_rung.sort(key=lambda trial: (math.isnan(trial.value), sign * trial.value))
        names = list(dict.fromkeys(name for trial in of_rung for name in trial.settings))
        rows = [
            [
                str(trial.number),
                *(trial.settings.get(name, "") for name in names),
                "" if math.isnan(trial.value) else number(trial.value),
                trial.why or trial.state,
            ]
            for trial in of_rung
        ]
        if rows:
            print_table(
                f"{sweep.budget} {rung}".strip(), ["trial", *names, sweep.metric, "state"], rows, right=(sweep.metric,)
            )
    if top is None:
        console().print("No trial has a value.", markup=False)
        return 1
    if sweep.minimise and not is_lower_better(sweep.metric):
        told = f"The best has the lowest {sweep.metric}: with --maximise a sweep takes the highest."
        console().print(told, soft_wrap=True, markup=False)
    tried = _tried(trials)
    console().print(f"best      {shlex.join(top.command)}", soft_wrap=True, markup=False)
    if tried > 1:
        console().print(
            f"Its value is the best of {tried}, so it is optimistic: run it again with other seeds before you quote it.",
            soft_wrap=True,
            markup=False,
        )
    return 0


def _tried(trials: Sequence[Trial]) -> int:
    """The number of trials with a value at any rung: those of the last rung were chosen among them by the same metric."""
    return len({trial.number for trial in trials if not math.isnan(trial.value)})


def _settings(trial: Trial) -> str:
    return " ".join(f"{name}={value}" for name, value in trial.settings.items())
