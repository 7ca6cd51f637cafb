"""The folder of a training run: its settings, lock, metrics, checkpoints, and in the end the model.

recipe.json     the recipe and all its settings; a resumed run reads them
metrics.jsonl   one line a step
checkpoints/    `checkpoints.py`
model/          the trained model, as `model_folder` writes it
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from firsthand import __version__
from firsthand.errors import ConfigError, StoreError
from firsthand.message import Json
from firsthand.nn.decoder import Decoder
from firsthand.system.lock import claimed
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.checkpoints import Checkpoints
from firsthand.train.fit import MetricSink, fit
from firsthand.train.live_line import LiveLine
from firsthand.train.model_folder import save_model
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Batches

SETTINGS, METRICS = "recipe.json", "metrics.jsonl"


class TrainingRun:
    """An open run. Recipes get one; `opened` makes it."""

    def __init__(self, folder: Path, loop: LoopSettings, *, is_resumed: bool = False):
        self.folder = folder
        self.loop = loop
        self.is_resumed = is_resumed

    @property
    def device(self) -> torch.device:
        """The device that the run computes on. ConfigError if it is missing."""
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.loop.device == "auto" else self.loop.device
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
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
        """Train as the run's settings say, from its newest checkpoint on; returns the number of the last step."""
        steps = self.loop.steps if steps is None else steps
        whole = model if values is None else nn.ModuleDict({"model": model, "value_head": values})
        every = self.loop.checkpoint_every
        return fit(
            model,
            batches,
            objective=objective,
            optimizer=optimizer_for(whole, optimizer),
            schedule=schedule.over(steps),
            steps=steps,
            track=_Several([MetricLog(self.folder / METRICS), LiveLine(steps), *sinks]),
            checkpoint=Checkpoints(
                self.folder / "checkpoints", every=every, keep=self.loop.keep, last_step=steps if every else None
            ),
            values=values,
            micro_tokens=self.loop.micro_tokens,
            clip_norm=self.loop.clip_norm,
            dtype=torch.bfloat16 if self.loop.dtype == "bfloat16" else torch.float32,
            folder=self.folder / "stopped",
            evaluate=evaluate,
        )

    def save(self, model: Decoder, tokenizer: Tokenizer, *, base: Path | None = None) -> Path:
        """Write the model into the run's folder; returns that of the model. StoreError if the disk is full."""
        try:
            return save_model(model, tokenizer, self.folder / "model", base=base)
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"the model could not be written to {self.folder} ({error}): its last checkpoint is "
                "whole, so make room and resume"
            ) from None


class MetricLog:
    """Metrics as JSON lines; a step that is logged again, after a run was resumed, replaces it and all later ones."""

    def __init__(self, path: Path):
        self.path = path
        self._is_trimmed = False

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Append the metrics of a step. StoreError if the disk is full."""
        try:
            if not self._is_trimmed:
                kept = [row for row in read_metrics(self.path) if row["step"] < step]
                part = self.path.with_name(f"{self.path.name}.part")
                part.write_text("".join(f"{json.dumps(row)}\n" for row in kept), encoding="utf-8")
                part.replace(self.path)
                self._is_trimmed = True
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written ({error.strerror or error}): make room and resume the run"
            ) from None


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics, in the order of steps; a line that a killed process left unfinished is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict) and "step" in row]


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
    or if another process trains there. torch's random state is that of the run's seed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made ({error.strerror}): give another folder with `--out`") from None
    busy = "wait until it ends, or train into another folder with `--out`"
    with claimed(folder / "lock", lambda by: ConfigError(f"{folder} is being trained by {by}: {busy}")):
        path = folder / SETTINGS
        if not resume and ((folder / METRICS).exists() or (folder / "checkpoints").exists()):
            raise ConfigError(
                f"{folder} holds a run already: go on with `firsthand train --resume {folder}`, or give another `--out`"
            )
        body = {"recipe": recipe, "settings": dataclasses.asdict(config), "version": __version__}
        part = path.with_name(f"{SETTINGS}.part")
        part.write_text(json.dumps(body, indent=2, default=str) + "\n", encoding="utf-8")
        part.replace(path)
        torch.manual_seed(config.loop.seed)
        yield TrainingRun(folder, config.loop, is_resumed=resume)


def stored_settings(folder: Path) -> tuple[str, Json]:
    """The recipe of a run and its settings, those of parts in tables. ConfigError if the folder holds no run."""
    try:
        body = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        return str(body["recipe"]), dict(body["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
        raise ConfigError(f"{folder} holds no training run ({SETTINGS}: {reason}): give the folder of one") from None
