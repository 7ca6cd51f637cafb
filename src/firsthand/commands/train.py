"""Train a model by a recipe: pretrain, sft, and others; `firsthand train RECIPE --help` shows its settings.

Settings are flags; those of a part may be dotted (`optimizer.lr=3e-4`), and `--config FILE.toml` reads them from a file. A
recipe of your own is a file with a `Config` and a function of the file's name: `firsthand train my_recipe.py ...`.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

from firsthand import catalog
from firsthand.config import build, flat_settings, given_values, parse
from firsthand.errors import ConfigError, FirsthandError
from firsthand.runs import store
from firsthand.runs.run_names import DATABASE, new_run_id
from firsthand.runs.track import FOLDER_VARIABLE, Track
from firsthand.system.home import data_home
from firsthand.system.terminal import console, print_as_json

EXAMPLES = """
firsthand train pretrain book.txt --steps 500
firsthand train sft chats.jsonl --model smollm2 --out my-run
firsthand train --resume my-run
firsthand train doctor my-run      # why does it not learn?
firsthand chat my-run/model
"""


@dataclass(frozen=True)
class Config:
    """The recipe, and where its run is kept."""

    recipe: str | None = field(default=None, metadata={"positional": True})
    """The recipe, or a .py file with one."""
    out: Path | None = None
    """Folder of the run; by default a new one below `<data home>/runs`."""
    resume: Path | None = None
    """Go on with the run in this folder, from its newest checkpoint; settings of its loop but the seed may be given anew."""
    trust: bool = False
    """With --resume: use the files, folders, servers and addresses that a run from another data home names."""


@dataclass(frozen=True)
class DoctorConfig:
    """The run to examine."""

    run: str = field(default="last", metadata={"positional": True})
    """A training run: its id, the beginning of it, its folder, or last."""
    json: bool = False
    """Print JSON for programs."""


def dispatch(words: Sequence[str]) -> int:
    """Read the words of a recipe and run it, or of the doctor; returns the exit code."""
    if words and words[0] == "doctor":
        return examine_run(parse(DoctorConfig, words[1:], prog="firsthand train doctor", description=_DOCTOR))
    rest, own = list(words), []
    if rest and (not rest[0].startswith("-") or rest[0] == "--resume"):
        own = [rest.pop(0)]
        own += [rest.pop(0)] if own == ["--resume"] and rest else []
    elif rest and rest[0].startswith("--resume="):
        own = [rest.pop(0)]
    elif rest and rest[0] not in ("-h", "--help"):
        raise ConfigError(
            f"{rest[0]!r} came before a recipe: the recipe is the first word, as in `firsthand train sft`"
        )
    if own == ["--resume"]:
        raise ConfigError("--resume needs the folder of a training run, as in `firsthand train --resume my-run`")
    if not own:
        parse(Config, ["--help"], prog="firsthand train", description=_overview(), examples=EXAMPLES)
    if own[0].startswith("--resume") and "--trust" in rest:
        rest.remove("--trust")
        own.append("--trust")
    for at, word in enumerate(rest):
        if word == "--out" or word.startswith("--out="):
            taken = rest[at : at + (1 if "=" in word else 2)]
            rest[at : at + len(taken)] = []
            own += taken
            break
    return _train(parse(Config, own, prog="firsthand train", description=_overview(), examples=EXAMPLES), rest)


_DOCTOR = (
    "Read the metrics of a training run and say in words why it does not learn. The exit status is 1 for a finding."
)


def main(config: Config) -> int:
    """Run a recipe with the settings that it has by default."""
    return _train(config, ())


def examine_run(config: DoctorConfig) -> int:
    """Print what the doctor finds in a run; 1 if it finds something."""
    from firsthand.train.doctor import diagnose

    with closing(store.open_run(config.run, data_home())) as run:
        track = Track(run)
        if not track.names():
            raise ConfigError(f"{run.id} has no metrics: give a training run, such as the folder of `firsthand train`")
        found = diagnose(track)
    if config.json:
        print_as_json([dataclasses.asdict(each) for each in found])
    else:
        out = console()
        for each in found:
            out.print(f"{each.name}: {each.evidence}.\n  Try: {each.advice}.\n", markup=False)
        if not found:
            out.print("The doctor finds nothing: its curves look like those of a run that learns.", markup=False)
    return 1 if found else 0


def _train(own: Config, words: Sequence[str]) -> int:
    if own.resume is not None:
        name, recipe, config = _resumed(own, words)
        folder = own.resume
    elif own.recipe is not None:
        name = own.recipe
        recipe, config_class = _recipe(name)
        module = inspect.getmodule(config_class)
        told = {"description": inspect.getdoc(module) or "", "examples": getattr(module, "EXAMPLES", "")}
        config = parse(config_class, words, prog=f"firsthand train {name}", **told)
        folder = own.out or _trial_folder() or data_home() / "runs" / new_run_id(datetime.now(), Path(name).stem)
    else:
        raise ConfigError("a recipe is needed; `firsthand train --help` shows all")
    from firsthand.train import processes
    from firsthand.train.training_run import opened, read_metrics

    is_new = own.resume is None and not folder.exists()
    with ExitStack() as stack:
        stack.enter_context(processes.joined())
        folder = processes.from_first(folder)
        if not processes.is_first():
            stack.enter_context(redirect_stdout(StringIO()))  # what the first process says is enough
        try:
            with opened(folder, name, config, resume=own.resume is not None) as run:
                run.on_fit = lambda: print(f"run {folder}", file=sys.stderr)  # a refusal names no folder
                model = recipe(config, run)
        except FirsthandError:
            is_empty = folder.exists() and not (folder / "checkpoints").exists() and not read_metrics(folder)
            if is_new and processes.is_first() and is_empty:
                shutil.rmtree(folder, ignore_errors=True)  # a mistyped name leaves no run behind
            raise
        except KeyboardInterrupt:
            has_checkpoint = any((folder / "checkpoints").glob("*"))
            goes_on = "goes on from the newest checkpoint"
            outcome = goes_on if has_checkpoint else "begins again: no checkpoint was written yet"
            resume = f"`firsthand train --resume {shlex.quote(str(folder))}`"
            print(f"\nfirsthand: interrupted: {resume} {outcome}", file=sys.stderr)
            return 130
        print(_outcome(model, folder))
    return 0


def _trial_folder() -> Path | None:
    """The folder of the trial that a sweep runs here, unless a run of this trial is in it already; None outside a sweep."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named and not (Path(named) / DATABASE).exists() else None


def _outcome(model: Path, folder: Path) -> str:
    """Advice on using a trained model, or the adapters of agents."""
    agents = sorted(each.name for each in model.iterdir() if each.is_dir()) if model.name == "adapters" else []
    if agents:
        return (
            f"the adapters of {', '.join(agents)} are in {model}: try `firsthand run BENCHMARK --model "
            f"{shlex.quote(f'agents:BASE@{folder}')}` with the pattern they were trained in"
        )
    word = shlex.quote(str(model))
    return f"the model is in {model}: try `firsthand chat {word}` or `firsthand serve {word}`"


def config_of(name: str) -> type[Any]:
    """The settings of a recipe, or of the doctor, for completion. UnknownName if there is no such recipe."""
    return DoctorConfig if name == "doctor" else _recipe(name)[1]


def _recipe(name: str) -> tuple[Any, type[Any]]:
    """The function of a recipe, and its Config."""
    function = catalog.find("recipe", name)
    config_class = getattr(inspect.getmodule(function), "Config", None)
    if not isinstance(config_class, type) or not dataclasses.is_dataclass(config_class):
        raise ConfigError(f"the recipe {name!r} has no dataclass `Config` beside its function: define one")
    return function, config_class


def _resumed(own: Config, words: Sequence[str]) -> tuple[str, Any, Any]:
    """Name, function and settings of a run that is gone on with; words may set fields of its `loop` anew."""
    from firsthand.experiment.foreign_recipe import expect_beside
    from firsthand.train.training_run import is_made_here, stored_settings

    if own.out is not None or own.recipe is not None:
        raise ConfigError("--resume goes on with a run's own recipe in its own folder: leave the recipe and --out out")
    assert own.resume is not None
    name, stored = stored_settings(own.resume)
    if not (own.trust or is_made_here(own.resume)):
        expect_beside(own.resume, name, stored)
    recipe, config_class = _recipe(name)
    values = flat_settings(config_class, stored)
    words = [word.replace("loop.", "", 1) if word.startswith(("--loop.", "loop.")) else word for word in words]
    words = [f"--{word}" if "=" in word and not word.startswith("-") else word for word in words]
    kind = type(build(config_class, values).loop)
    given = given_values(kind, words, prog="firsthand train --resume RUN", description="Settings of the loop.")
    return name, recipe, build(config_class, values | given)


def _overview() -> str:
    known = catalog.names("recipe")
    width = max(map(len, known))
    listed = "\n".join(f"  {name:<{width}}  {line}" for name, line in known.items())
    return f"{__doc__}\nrecipes:\n{listed}"
