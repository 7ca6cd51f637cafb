"""Trains a sparse autoencoder on batches of activations, and can stop and go on: `SaeTrainer`.

Inputs are scaled to a mean norm of sqrt(D) (Anthropic, April 2024), so that rates and penalties carry over between sites;
the scale is folded into the weights at the end.
"""

# N tokens, D inputs, M latents

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, DataError, ModelFileError, TrainingError, reason_of
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.interp.saes.sae_kinds import KINDS
from firsthand.interp.saes.sparse_autoencoder import SaeLoss, SparseAutoencoder
from firsthand.nn.tensor_file import read_tensors
from firsthand.system.new_file import replacing


@dataclass(frozen=True)
class SaeSettings:
    """A training run of a sparse autoencoder."""

    steps: int
    """Batches."""
    lr: float = 1e-3
    """Adam's rate; it rises over the first hundredth of the run and falls linearly to 0 over the last fifth."""
    dead_tokens: int = 100_000
    """A latent that was silent for so many tokens is dead, and trained by the auxiliary loss."""
    clip_norm: float = 1.0
    """Bound of the gradient's norm."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.lr < 1 or self.dead_tokens < 1 or self.clip_norm <= 0:
            raise ConfigError(
                f"steps are {self.steps}, lr {self.lr}, dead_tokens {self.dead_tokens} and clip_norm {self.clip_norm}: "
                "expected 1 or more, a rate between 0 and 1, 1 or more, and a bound above 0"
            )


class SaeTrainer:
    """The optimizer of an autoencoder, the tokens since each latent fired, and the scale of the inputs."""

    def __init__(self, sae: SparseAutoencoder, settings: SaeSettings):
        self.sae, self.settings = sae, settings
        self.step_number = 0
        self.tokens = 0
        self.scale = 0.0
        self.silent_M = torch.zeros(sae.d_sae, dtype=torch.long)
        self.made_from: dict[str, str] = {}
        """Hashes of the model and the texts, by which a run that goes on knows them again."""
        self.parameters = list(sae.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.lr, betas=(0.9, 0.999), fused=True)

    def train(self, batches: Iterable[Tensor]) -> SaeLoss:
        """Takes batches to the end of the run; returns the last step's loss. DataError if they end before."""
        found = None
        iterator = iter(batches)
        while self.step_number < self.settings.steps:
            batch = next(iterator, None)
            if batch is None:
                raise DataError(
                    f"the activations ended at step {self.step_number} of {self.settings.steps}: give more text, or fewer "
                    "tokens"
                )
            found = self.step(batch)
        if found is None:
            raise TrainingError(f"the run has ended at step {self.step_number}: nothing is left to train")
        return found

    def step(self, x_ND: Tensor) -> SaeLoss:
        """One update. ConfigError for another width, TrainingError for activations or a loss that are not finite."""
        if x_ND.ndim != 2 or x_ND.shape[1] != self.sae.d_in:
            raise ConfigError(f"activations of shape {tuple(x_ND.shape)} came: expected rows of width {self.sae.d_in}")
        if not self.scale:
            self._begin(x_ND)
        x_ND = x_ND.float() * self.scale
        is_dead_M = self.silent_M >= self.settings.dead_tokens
        found = self.sae.loss(x_ND, is_dead_M=is_dead_M, progress=self.step_number / self.settings.steps)
        self.optimizer.zero_grad(set_to_none=True)
        found.loss.backward()  # type: ignore[no-untyped-call]
        self.sae.before_step()
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm))
        if not (math.isfinite(norm) and math.isfinite(float(found.loss.detach()))):
            raise TrainingError(
                f"step {self.step_number + 1} has the loss {float(found.loss.detach()):g} and a gradient of norm {norm:g}: "
                "look for activations that are not finite, or lower the learning rate"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * rate_at(self.step_number, self.settings.steps)
        self.optimizer.step()
        self.sae.after_step()
        self.silent_M = torch.where(found.fired > 0, 0, self.silent_M + len(x_ND))
        self.step_number += 1
        self.tokens += len(x_ND)
        return found

    def finished(self) -> SparseAutoencoder:
        """The autoencoder for inputs as they are; no step may follow."""
        self.sae.fold_scale(self.scale or 1.0)
        self.scale, self.step_number = 1.0, self.settings.steps
        return self.sae

    def _begin(self, x_ND: Tensor) -> None:
        norm = float(x_ND.float().norm(dim=1).mean())
        if not (math.isfinite(norm) and norm > 0):
            raise TrainingError(
                f"the first activations have a mean norm of {norm:g}: expected finite numbers that are not all 0"
            )
        self.scale = math.sqrt(self.sae.d_in) / norm
        with torch.no_grad():
            self.sae.decoder_bias.copy_(x_ND.float().mean(0) * self.scale)

    def save(self, folder: Path) -> None:
        """Write weights, moments and counters; what was there stays whole until the new file is complete."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        facts = {
            "kind": self.sae.kind, "d_in": self.sae.d_in, "d_sae": self.sae.d_sae, "sae": self.sae.settings(),
            "settings": asdict(self.settings), "step": self.step_number, "tokens": self.tokens, "scale": self.scale,
            "made_from": self.made_from,
        }  # fmt: skip
        tensors["silent"] = self.silent_M
        state = {"state": json.dumps(facts)}
        with replacing(folder / "training.safetensors") as part:
            save_file({name: value.contiguous() for name, value in tensors.items()}, part, state)

    @staticmethod
    def load(folder: Path) -> SaeTrainer:
        """The trainer that `save` wrote; ModelFileError if the file is not one."""
        path = folder / "training.safetensors"
        try:
            file = read_safetensors(path)
            facts = json.loads(file.metadata["state"])
            decoder = file.tensors["sae.decoder"].shape
            if decoder != (facts["d_sae"], facts["d_in"]):  # before anything of that size is made
                raise ValueError(
                    f"its decoder is {decoder}, and d_sae and d_in are {facts['d_sae']} and {facts['d_in']}"
                )
            tensors = read_tensors(path)
            sae = KINDS[facts["kind"]](facts["d_in"], facts["d_sae"], **facts["sae"])
            trainer = SaeTrainer(sae, SaeSettings(**facts["settings"]))
            sae.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("sae.")})
            state = trainer.optimizer.state_dict()
            for name, value in tensors.items():
                if name.startswith("adam."):
                    _, index, moment = name.split(".")
                    state["state"].setdefault(int(index), {})[moment] = value
            trainer.optimizer.load_state_dict(state)
            trainer.step_number, trainer.tokens, trainer.scale = facts["step"], facts["tokens"], facts["scale"]
            trainer.silent_M = tensors["silent"]
            trainer.made_from = dict(facts.get("made_from", {}))
        except (ModelFileError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(
                f"{path} is no training state of a sparse autoencoder ({reason_of(error)}): remove it to begin again"
            ) from error
        return trainer


def rate_at(step: int, steps: int) -> float:
    """The share of the peak rate at a step from 0: a short rise, constant, and a linear fall over the last fifth."""
    rise, fall = max(1, steps // 100), max(1, steps // 5)
    return min(1.0, (step + 1) / rise, (steps - step) / fall)
