"""A linear monitor of activations: a direction at one site, a bias and a threshold, in one safetensors file."""

# T tokens, D hidden

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.nn.architecture import Architecture

FORMAT = "firsthand.monitor.1"


@dataclass(frozen=True, eq=False)
class ActivationMonitor:
    """A score for each token: the activation's product with a direction, plus a bias."""

    site: str
    """An activation of D values a token, such as blocks.8.resid.post."""
    direction: Tensor
    """D."""
    bias: float = 0.0
    threshold: float = 0.0
    """A step whose mean score is at or above it is an alarm."""
    name: str = "monitor"
    false_alarms: float = math.nan
    """The share of harmless texts that were alarms when the threshold was chosen; NaN if nobody measured it."""

    def scores(self, values_TD: Tensor) -> list[float]:
        """The score of each token."""
        found: list[float] = (values_TD.float() @ self.direction.to(values_TD.device) + self.bias).tolist()
        return found

    def expect_fits(self, architecture: Architecture) -> None:
        """ConfigError if the direction has another width than the model's hidden states."""
        if len(self.direction) != architecture.hidden_size:
            raise ConfigError(
                f"the monitor {self.name} reads {len(self.direction)} values, and this model's hidden states have "
                f"{architecture.hidden_size}: make one for this model with `firsthand interp probe`"
            )


def write_monitor(monitor: ActivationMonitor, file: Path) -> None:
    """Writes the file; `+monitor:FILE` after a model's name reads it."""
    from safetensors.torch import save_file

    facts = {
        "format": FORMAT, "site": monitor.site, "name": monitor.name, "bias": repr(monitor.bias),
        "threshold": repr(monitor.threshold), "false_alarms": repr(monitor.false_alarms),
    }  # fmt: skip
    save_file({"direction": monitor.direction.float().contiguous()}, file, metadata=facts)


def read_monitor(file: Path | str) -> ActivationMonitor:
    """Reads the file of `write_monitor`. ModelFileError if it is none."""
    from safetensors.torch import load_file

    file = Path(file)
    if not file.is_file():
        raise ConfigError(f"no monitor {str(file)!r}: give a file that `firsthand interp probe --out FILE` wrote")
    facts = read_safetensors(file).metadata
    told = f"{file} is no monitor: give a file that `firsthand interp probe --out FILE` wrote"
    if facts.get("format") != FORMAT:
        raise ModelFileError(told)
    direction = load_file(file).get("direction", torch.zeros(0))
    try:
        numbers = {name: float(facts[name]) for name in ("bias", "threshold", "false_alarms")}
    except (KeyError, ValueError):
        raise ModelFileError(told) from None
    is_sound = direction.ndim == 1 and len(direction) and direction.isfinite().all() and facts.get("site")
    if not is_sound or not all(math.isfinite(numbers[name]) for name in ("bias", "threshold")):
        raise ModelFileError(told)
    return ActivationMonitor(facts["site"], direction.float(), name=facts.get("name", "monitor"), **numbers)
