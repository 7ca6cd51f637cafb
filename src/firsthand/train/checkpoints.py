"""Checkpoints of a training run: weights, optimizer, random states and data position, written whole or not at all.

A checkpoint is a folder `step-000120` with two safetensors files and `state.json`, which holds the hash of both. It is
written under another name, synced to disk and then renamed, so a killed process leaves the one before. One that is damaged
is renamed to `step-000120.damaged` once the one before it is loaded, and counts no more. Frozen weights are not in it: they
are in the base model's file. No pickles. Left out: the model as other programs read it (`nn.weights.save`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from firsthand.errors import ConfigError, ModelFileError, StoreError, TrainingError, reason_of
from firsthand.formats.model_files import read_json
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.message import Json
from firsthand.nn.lora import whole_tensor
from firsthand.nn.tensor_file import read_tensors
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.own_file import expect_own_folder, expect_own_tree
from firsthand.train.optimizers import check_state, with_own_settings
from firsthand.train.processes import from_all, from_first, is_first, rank
from firsthand.train.sharding import load_whole, spread_state
from firsthand.train.streams import Batches

FORMAT = 1
_LOG = logging.getLogger(__name__)
_FILES = ("weights.safetensors", "optimizer.safetensors")
_UNFINISHED = ".part-"
_MOST_OF_OPTIMIZER, _RANDOM_BYTES = 16, 1 << 24
"""Most bytes of an optimizer for one of the weights (it may keep three float32 for each bfloat16), and of random states."""


class Checkpoints:
    """The checkpoints in a folder; a `Saver` for `fit`."""

    def __init__(
        self, folder: Path, *, every: int, keep: int = 2, last_step: int | None = None, every_s: float = 300
    ):  # fmt: skip
        """Saves every so many steps (0: never), where steps are slow every so many seconds, and after `last_step`.

        Older ones than the last `keep` are removed, but never the one that was just written.
        """
        self.folder = folder
        self.every = every
        self.keep = keep
        self.last_step = last_step
        self.every_s = every_s
        self._saved_at = time.monotonic()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first, whole or not."""
        return sorted(
            int(path.name[5:])
            for path in self.folder.glob("step-*")
            if re.fullmatch(r"step-\d{6,18}", path.name, re.ASCII)
        )

    def after(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
        """Save a checkpoint if one is due after this step."""
        if not self.every:
            return
        is_late = from_first(time.monotonic() - self._saved_at >= self.every_s)  # clocks of processes differ
        if step % self.every == 0 or step == self.last_step or is_late:
            self.save(step, model, optimizer, batches)

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> Path:
        """Write the checkpoint of a step. StoreError if the disk is full: nothing of it is left, the older ones stay.

        TrainingError, and the same, if a weight is not finite.
        """
        path, part = self._path(step), self.folder / f"{_UNFINISHED}{step}"
        tensors, numbers = _split(optimizer.state_dict())
        weights = {name: whole_tensor(weight).contiguous() for name, weight in trained_weights(model).items()}
        expect_finite(model, step)
        position = batches.state()
        random_states = from_all([(_random_tensors(), _random_numbers())])  # of each process, the first one's first
        if not is_first():  # it has sent its parts of sharded tensors
            return path
        expect_own_folder(self.folder)
        try:
            for left in self.folder.glob(f"{_UNFINISHED}*"):  # of a process that was killed
                shutil.rmtree(left)
            part.mkdir(parents=True)
            _save(weights, part / _FILES[0])
            _save(tensors | _by_process([each for each, _ in random_states]), part / _FILES[1])
            state = {
                "format": FORMAT,
                "step": step,
                "batches": position,
                "optimizer": numbers,
                "random": random_states[0][1],
                "random_of_others": [numbers for _, numbers in random_states[1:]],
                "sha256": {name: _sha256(part / name) for name in _FILES},
            }
            with (part / "state.json").open("w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(part)
            if path.exists():
                shutil.rmtree(path)
            part.rename(path)
            _sync_folder(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(part, ignore_errors=True)
            before = (
                f"the newest whole one is of step {self.steps()[-1]}" if self.steps() else "there is none before it"
            )
            raise StoreError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({reason_of(error)}): {before}; make "
                "room and resume"
            ) from None
        self._saved_at = time.monotonic()
        others = [each for each in self.steps() if each != step]
        for old in others[: max(0, len(others) + 1 - self.keep)]:
            shutil.rmtree(self._path(old), ignore_errors=True)
        return path

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> int:
        """Load the newest whole checkpoint; returns its step, 0 if there is none.

        One that is damaged is told in the log, and the one before is loaded; then the damaged one is moved away, since the
        steps after it are made anew. TrainingError if none is whole; ConfigError if it is of another model or optimizer,
        StoreError if a link has the place of a checkpoint or a file of it, or a damaged one cannot be moved.
        """
        expect_own_tree(self.folder)
        damaged: list[int] = []
        for step in reversed(self.steps()):
            try:
                weights, tensors, state = self._read(step, model)
                with self._whole(step):
                    self._load(step, weights, tensors, state, model, optimizer)
                    batches.load(state["batches"])
                    _restore_random(tensors, state)
            except StoreError as error:
                _LOG.warning("%s: the checkpoint before it is used", error)
                damaged.append(step)
                continue
            if is_first():
                self._move_away(damaged)
            return step
        if self.steps():
            raise TrainingError(f"no checkpoint in {self.folder} is whole: begin the run anew in another folder")
        return 0

    def _move_away(self, damaged: Iterable[int]) -> None:
        for path in map(self._path, damaged):
            aside = path.with_name(f"{path.name}.damaged")
            try:
                if aside.exists():  # of an earlier resume
                    shutil.rmtree(aside)
                path.rename(aside)
            except OSError as error:
                raise StoreError(
                    f"the damaged checkpoint {path} cannot be moved away ({reason_of(error)}): make its folder writable, or "
                    "remove it, and resume"
                ) from None

    def _read(self, step: int, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor], Json]:
        path = self._path(step)
        with self._whole(step):
            state = read_json(path / "state.json")
            if state["format"] != FORMAT:
                raise ValueError(f"its format is {state['format']}, and this version reads {FORMAT}")
            weights_file, optimizer_file = (read_safetensors(path / name) for name in _FILES)
            self._expect_own(step, {name: each.shape for name, each in weights_file.tensors.items()}, model)
            most = _MOST_OF_OPTIMIZER * sum(each.nbytes for each in weights_file.tensors.values()) + _RANDOM_BYTES
            if (size := sum(each.nbytes for each in optimizer_file.tensors.values())) > most:
                raise ValueError(f"its optimizer has {size} bytes, more than {most}")
            for name in _FILES:
                if _sha256(path / name) != state["sha256"][name]:
                    raise ValueError(f"{name} is not what was written")
            weights, tensors = (read_tensors(path / name) for name in _FILES)
        return weights, tensors, state

    @contextmanager
    def _whole(self, step: int) -> Iterator[None]:
        """Faults of what a checkpoint holds as a StoreError: whatever wrote it, it was not this version."""
        try:
            yield
        except (
            OSError, ModelFileError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError,
            SafetensorError,
        ) as error:  # fmt: skip
            raise StoreError(f"{self._path(step)} is not whole ({type(error).__name__}: {reason_of(error)})") from None

    def _load(
        self,
        step: int,
        weights: dict[str, Tensor],
        tensors: dict[str, Tensor],
        state: Json,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        groups = state["optimizer"]["param_groups"]
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if [len(group["params"]) for group in groups] != sizes:
            raise self._of_another(step, "other groups")
        merged = _merged(state["optimizer"], tensors)
        check_state(optimizer, merged)
        load_whole(model, weights)
        parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
        optimizer.load_state_dict(spread_state(with_own_settings(optimizer, merged), parameters))

    def _expect_own(self, step: int, shapes: Mapping[str, tuple[int, ...]], model: nn.Module) -> None:
        """ConfigError, before a byte of the weights is read, unless they are those of the model."""
        own = {name: tuple(weight.shape) for name, weight in trained_weights(model).items()}
        wrong = sorted(own.keys() ^ shapes.keys()) or [name for name in sorted(own) if own[name] != shapes[name]]
        if wrong:
            raise self._of_another(step, ", ".join(wrong[:3]))

    def _of_another(self, step: int, what: str) -> ConfigError:
        return ConfigError(
            f"{self._path(step)} is of another model or optimizer ({what}): resume with the settings of the run, or begin "
            "anew in another folder"
        )

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


def _split(state: dict[str, Any]) -> tuple[dict[str, Tensor], Json]:
    """An optimizer's state as tensors by name, and the rest as JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: Json = {"param_groups": state["param_groups"], "state": {}}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = whole_tensor(value).contiguous()
            else:
                numbers["state"].setdefault(str(index), {})[name] = value
    return tensors, numbers


def _merged(numbers: Json, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The inverse of `_split`."""
    state: dict[int, dict[str, Any]] = {}
    for index, entries in numbers["state"].items():
        state.setdefault(int(index), {}).update(entries)
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        if index != "random":
            state.setdefault(int(index), {})[name] = tensor
    groups = [
        {**group, "betas": tuple(group["betas"])} if "betas" in group else group for group in numbers["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def expect_finite(model: nn.Module, step: int) -> None:
    """TrainingError if a weight that is trained is NaN or infinite after a step, as after an update that was too large.

    Processes that share a model in parts all call it.
    """
    trained = ((name, whole_tensor(weight)) for name, weight in model.named_parameters() if weight.requires_grad)
    broken = [name for name, weight in trained if not torch.isfinite(weight).all()]
    if broken:
        raise TrainingError(
            f"the update of step {step} made weights that are not finite ({', '.join(broken[:3])}; {len(broken)} in all), "
            "so they are not saved: begin again with a lower learning rate"
        )


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers that training may change: all but frozen ones, and a tied head once, as the embedding."""
    parameters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    state = model.state_dict()
    return parameters | {name: state[name] for name, _ in model.named_buffers() if name in state}


def _random_tensors() -> dict[str, Tensor]:
    return {"cpu": torch.get_rng_state()} | {
        f"cuda{index}": torch.cuda.get_rng_state(index) for index in range(_gpus())
    }


def _by_process(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The random states of all processes, as tensors by name."""
    return {
        f"{_random_prefix(process)}{name}": each for process, own in enumerate(states) for name, each in own.items()
    }


def _random_prefix(process: int) -> str:
    return f"random.{process}." if process else "random."


def _gpus() -> int:
    """The number of GPUs whose states are kept: none in a run on the CPU, which would take memory of each to ask it."""
    return torch.cuda.device_count() if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]


def _random_numbers() -> Json:
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
    }


def _restore_random(tensors: dict[str, Tensor], state: Json) -> None:
    """Set this process's random states; those of the first one where there were fewer processes.

    Of the GPUs those that are here are set: they may be more or fewer than where it was saved.
    """
    own, others = rank(), state.get("random_of_others", ())
    numbers = others[own - 1] if 0 < own <= len(others) else state["random"]
    prefix = _random_prefix(own if numbers is not state["random"] else 0)
    try:
        torch.set_rng_state(tensors[f"{prefix}cpu"])
        for index in range(_gpus()):
            if (of_gpu := tensors.get(f"{prefix}cuda{index}")) is not None:
                torch.cuda.set_rng_state(of_gpu, index)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    version, internal, gauss = numbers["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = numbers["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with open_ordinary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
