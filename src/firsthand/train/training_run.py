"""The folder of a training run: a Run with its Track, settings, checkpoints, and in the end the model.

run.sqlite      metrics by step (`runs/track.py`); `firsthand track` shows them
recipe.json     the recipe and all its settings; a resumed run reads them
sources.json    digests of the models that it reads and leaves as they are (`frozen_models.py`)
checkpoints/    `checkpoints.py`
model/          the trained model, as `model_folder` writes it
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from firsthand import __version__
from firsthand.errors import ConfigError, StoreError, reason_of
from firsthand.message import Json, canonical
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import adapter_files
from firsthand.nn.routed_lora import agents_of
from firsthand.runs import store
from firsthand.runs.run_claims import expect_idle
from firsthand.runs.run_names import DATABASE, MAKING
from firsthand.runs.system_metrics import watch_system
from firsthand.runs.track import Track, start
from firsthand.system.address_secrets import without_secrets_in
from firsthand.system.home import data_home
from firsthand.system.home_seal import is_ours, seal_of
from firsthand.system.lock import held
from firsthand.system.new_file import write_new
from firsthand.system.own_file import expect_own_tree, read_own_json
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_training import adapter_of, first_folder, merged, with_adapter
from firsthand.train.adapters.save_adapter import with_row_lengths, write_adapter
from firsthand.train.checkpoints import Checkpoints, expect_finite
from firsthand.train.fit import MetricSink, fit
from firsthand.train.frozen_models import SOURCES, expect_same_model, weight_files
from firsthand.train.live_line import LiveLine
from firsthand.train.model_folder import save_model
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.processes import is_first, local_rank, ranks, together
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.sharding import is_sharded, sharded
from firsthand.train.streams import Batches

SETTINGS, SEAL = "recipe.json", "seal"
PARTS = (
    SETTINGS, SOURCES, ".making", "checkpoints", "stopped", "model", "adapter", "adapters", "tokenizer", "rollouts",
    "sampler", "calls.jsonl", "ledgers.jsonl",
)  # fmt: skip
"""What recipes write into a run's folder, beside its database."""


class TrainingRun:
    """An open run. Recipes get one; `opened` makes it."""

    def __init__(self, folder: Path, loop: LoopSettings, track: Track | None, *, is_resumed: bool = False):
        """`track` is None in the processes that do not write."""
        self.folder = folder
        self.loop = loop
        self.track = track
        self.is_resumed = is_resumed
        self.on_fit: Callable[[], None] | None = None
        """Called once, when the recipe has checked all it was given and the first step is near."""

    def prepared(
        self, path: Path, adapter: AdapterSettings, *, agents: Sequence[str] = (), has_reference: bool = False
    ) -> Decoder:
        """The model at a path, ready to be trained: on the run's device, with its adapter or those of agents, sharded.

        ConfigError if a resumed run began with another one and goes on needing it: beneath an adapter, or, if the recipe
        `has_reference`, as the policy before training.
        """
        if adapter.adapter != "none" or has_reference:
            self.expect_same("base model", path)
        if adapter.begin_with is not None:  # the checkpoint holds its weights, not their scale
            folders = [first_folder(adapter.begin_with, agent) for agent in agents or ("",)]
            files = [file for folder in folders for file in adapter_files(folder)[: None if has_reference else 1]]
            self.expect_same("adapter to begin with", adapter.begin_with, files)
        model = weights.load(path, device=str(self.device), keep_blocks=adapter.base_weights == "blocks")
        return self.spread(with_adapter(model, adapter, seed=self.loop.seed, agents=agents, verbose=is_first()))

    def expect_same(self, role: str, path: Path, files: Sequence[Path] | None = None) -> None:
        """Keep a digest of a model that the run reads and leaves as it is; by default of its configuration and weights.

        ConfigError if the run goes on from a checkpoint and had another one in this role.
        """
        files = weight_files(path) if files is None else files
        is_begun = bool(Checkpoints(self.folder / "checkpoints", every=0).steps())
        if files and is_first() and (is_begun or self.loop.checkpoint_every):
            expect_same_model(self.folder, role, path, files, is_begun=is_begun)

    def expect_steps(self) -> None:
        """ConfigError if the loop has no steps: for a recipe that counts no epochs."""
        if self.loop.steps < 1:
            raise ConfigError(f"steps is {self.loop.steps}: expected 1 or more")

    def spread(self, model: Decoder) -> Decoder:
        """The model sharded over the processes that train together, if the settings say so; in one process as it is."""
        return sharded(model) if self.loop.shard else model

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic of forward passes."""
        return torch.bfloat16 if self.loop.dtype == "bfloat16" else torch.float32

    @property
    def device(self) -> torch.device:
        """The device that the run computes on. ConfigError if it is missing."""
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.loop.device == "auto" else self.loop.device
        name = f"cuda:{local_rank()}" if name == "cuda" and ranks() > 1 else name
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            if re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", name) is None:  # torch would list two dozen
                raise ConfigError(
                    f"device is {name!r}: give auto, cpu, cuda, or one of several, such as cuda:1"
                ) from None
            raise ConfigError(f"device is {name!r}, which is not there ({str(error).splitlines()[0]})") from None

    def fit(
        self,
        model: Decoder,
        batches: Batches,
        *,
        objective: Objective,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        steps: int | None = None,
        values: nn.Module | None = None,
        evaluate: Callable[[int], Mapping[str, float]] | None = None,
        sinks: Sequence[MetricSink] = (),
    ) -> int:
        """Train as the run's settings say, from its newest checkpoint on; returns the number of the last step.

        `steps` is for recipes that count epochs: ConfigError if they are fewer than the run has made. Without it,
        ConfigError if the settings have none. TrainingError if the weights are not finite at the end, so that no such
        model is saved.
        """
        if steps is None:
            self.expect_steps()
        else:
            _expect_no_fewer(steps, self.folder, counted="epochs")
        steps = self.loop.steps if steps is None else steps
        self.spread(model)
        whole = model if values is None else nn.ModuleDict({"model": model, "value_head": values})
        every = self.loop.checkpoint_every
        checkpoints = _TrackedCheckpoints(
            self.folder / "checkpoints", every=every, keep=self.loop.keep, last_step=steps if every else None
        )
        checkpoints.track = self.track
        told: list[MetricSink] = [] if self.track is None else [self.track, LiveLine(steps)]
        made, planned = optimizer_for(whole, optimizer), schedule.over(steps)
        if self.on_fit is not None:
            self.on_fit()
            self.on_fit = None
        last = fit(
            model,
            batches,
            objective=objective,
            optimizer=made,
            schedule=planned,
            steps=steps,
            track=_Several([*told, *sinks]),
            checkpoint=checkpoints,
            values=values,
            micro_tokens=self.loop.micro_tokens,
            clip_norm=self.loop.clip_norm,
            dtype=self.dtype,
            folder=self.folder / "stopped",
            evaluate=evaluate,
        )
        expect_finite(whole, last)
        return last

    def save(
        self, model: Decoder, tokenizer: Tokenizer, *, base: Path | None = None, adapter: AdapterSettings | None = None,
        named: str = "",
    ) -> Path:  # fmt: skip
        """Write the model into the run's folder; returns that of the model. StoreError if the disk is full.

        An adapter is written by itself too, and merged; `named` is the base for its settings. Those of agents are written
        alone, and their folder is returned. Processes that train together all call it, and the first one writes.
        """
        self.spread(model)
        config = None if adapter is None else adapter.config(self.loop.seed)
        agents = agents_of(model)
        if config is not None:
            for agent in agents or ("",):
                place = self.folder / ("adapters" if agent else "adapter") / agent
                trained = with_row_lengths(adapter_of(model, place, agent=agent), model)  # gathered by all processes
                if is_first():
                    write_adapter(trained, model, place, base=named or str(base), config=config)
        if not agents:
            whole = merged(model) if config is not None or is_sharded(model) else model
            if is_first():
                self._save(whole, tokenizer, base)
        together()
        return self.folder / ("adapters" if agents else "model")

    def _save(self, model: Decoder, tokenizer: Tokenizer, base: Path | None) -> None:
        try:
            saved = save_model(model, tokenizer, self.folder / "model", base=base)
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"the model could not be written to {self.folder} ({reason_of(error)}): its last checkpoint is "
                "whole, so make room and resume"
            ) from None
        assert self.track is not None
        for file in sorted(saved.glob("*.safetensors")):
            self.track.artifact(file)


class _TrackedCheckpoints(Checkpoints):
    """Checkpoints beside a Track: metrics are written before a checkpoint is, and rewound to the one that is restored."""

    track: Track | None

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> Path:
        """Write the metrics, then the checkpoint of a step."""
        if self.track is not None:
            self.track.flush()
        return super().save(step, model, optimizer, batches)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> int:
        """Load the newest whole checkpoint, and rewind the metrics to it; returns its step."""
        step = super().restore(model, optimizer, batches)
        if self.track is not None and self.track.last_step() is not None:
            self.track.rewind(step)
        return step


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of the run in a folder, if there is one: each step's number and values, in the order of steps."""
    if not (folder / DATABASE).exists():
        return []
    with closing(store.open_run(folder, folder)) as run:
        rows: dict[int, dict[str, float]] = {}
        for curve in Track(run).curves():
            if curve.name.startswith("system/"):
                continue
            for step, value in zip(curve.steps, curve.values, strict=True):
                rows.setdefault(step, {"step": step})[curve.name] = value
    return [rows[step] for step in sorted(rows)]


class _Several:
    """Passes metrics to several sinks."""

    def __init__(self, sinks: Sequence[MetricSink]):
        self.sinks = sinks

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        for sink in self.sinks:
            sink.log(metrics, step=step)


@contextmanager
def opened(folder: Path, recipe: str, config: Any, *, resume: bool = False) -> Iterator[TrainingRun]:
    """Open a run's folder for training, alone, and write its settings.

    `config` is the recipe's, with a `loop`. ConfigError if the folder holds a run of a step or more and `resume` is False,
    if it is resumed with another seed or for fewer steps than it has made, or if another process trains there. torch's
    random state is that of the run's seed. Of processes that train together (`processes.joined`) the first one opens and
    writes, and the others wait for it.
    """
    if not is_first():
        torch.manual_seed(config.loop.seed)
        together()
        yield TrainingRun(folder, config.loop, None, is_resumed=resume)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made ({error.strerror}): give another folder with `--out`") from None
    with held(folder / MAKING):  # of processes that begin together, one makes the run and claims it
        track = _begun(folder, recipe, config, is_resumed=resume)
    with track:
        torch.manual_seed(config.loop.seed)
        together()
        with watch_system(track):
            yield TrainingRun(folder, config.loop, track, is_resumed=resume)


def _begun(folder: Path, recipe: str, config: Any, *, is_resumed: bool) -> Track:
    """The track of the folder's run, made unless it is there, with its settings written; errors as from `opened`."""
    expect_idle(folder)
    for part in PARTS:  # the folder may be somebody else's, with links to what is yours
        expect_own_tree(folder / part)
    path = folder / SETTINGS
    if not is_resumed:
        if (folder / "checkpoints").exists() or read_metrics(folder):
            raise ConfigError(
                f"{folder} holds a run already: go on with "
                f"`firsthand train --resume {shlex.quote(str(folder))}`, or give another `--out`"
            )
        for left in folder.glob(f"{DATABASE}*"):  # of a run that never made a step
            left.unlink()
    elif path.exists():
        _expect_seed(config.loop.seed, folder)
        _expect_no_fewer(config.loop.steps, folder)
    body = {"recipe": recipe, "settings": dataclasses.asdict(config), "version": __version__}
    settings = json.loads(json.dumps(body, default=str))
    if not (folder / DATABASE).exists():  # so too if its maker was stopped at once
        _write(settings, path)
        _make_run(folder, recipe, settings)
    track = start(recipe, resume=folder)
    try:
        _write(settings, path)
    except BaseException as error:
        track.finish(error)
        raise
    return track


def _expect_seed(seed: int, folder: Path) -> None:
    """ConfigError for another seed than a run's own: its position in the data is one in the order of that seed."""
    loop = stored_settings(folder)[1].get("loop")
    own = loop.get("seed", seed) if isinstance(loop, dict) else seed
    if own != seed:
        raise ConfigError(
            f"seed is {seed}, and {folder} was begun with {own}, which tells the order of its data: leave --seed out, or "
            "begin a run in another folder"
        )


def _expect_no_fewer(steps: int, folder: Path, *, counted: str = "steps") -> None:
    """ConfigError for fewer steps than a run has made: its model would be that of a later step than its settings tell."""
    made = max(Checkpoints(folder / "checkpoints", every=0).steps(), default=0)
    if 0 < steps < made:
        told = f"steps is {steps}" if counted == "steps" else f"the {counted} make {steps} steps"
        more = f"{made} or more" if counted == "steps" else f"more {counted}"
        raise ConfigError(
            f"{told}, and {folder} has a checkpoint of step {made}: give {more}, or begin a run in another folder"
        )


def _make_run(folder: Path, recipe: str, settings: Json) -> None:
    """Make the run's file beside and move it in, so that a process killed here leaves none or a whole one."""
    beside = folder / ".making"
    shutil.rmtree(beside, ignore_errors=True)
    store.create(data_home(), {"kind": "train", **without_secrets_in(settings)}, recipe, at=beside).close()
    (beside / DATABASE).replace(folder / DATABASE)
    shutil.rmtree(beside, ignore_errors=True)


def _write(settings: Json, path: Path) -> None:
    try:
        settings = settings | {SEAL: seal_of(canonical(settings), "recipe")}
        write_new(path, json.dumps(settings, indent=2) + "\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error}): make room, then try again") from None


def is_made_here(folder: Path) -> bool:
    """True if the settings of a run carry the seal of this data home; others may name what somebody else wants loaded."""
    try:
        body = read_own_json(folder / SETTINGS)
        settings = canonical({name: value for name, value in body.items() if name != SEAL})
        return is_ours(settings, body.get(SEAL), "recipe")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def stored_settings(folder: Path) -> tuple[str, Json]:
    """The recipe of a run and its settings, those of parts in tables. ConfigError if the folder holds no run."""
    try:
        body = read_own_json(folder / SETTINGS)
        return str(body["recipe"]), dict(body["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ConfigError(f"{folder} holds no training run ({SETTINGS}: {reason}): give the folder of one") from None
