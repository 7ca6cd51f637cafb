"""A linear monitor of activations: a direction at one site, a bias and a threshold, in one safetensors file."""

# T tokens, D hidden

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn.architecture import Architecture
from firsthand.nn.direction_file import Direction, read_direction, write_direction

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
        """ConfigError if the direction has another width than the activation at its site."""
        inside = self.site.endswith(".mlp.act")
        width = architecture.intermediate_size if inside else architecture.hidden_size
        if len(self.direction) != width:
            named = self.site if inside else "hidden states"
            raise ConfigError(
                f"the monitor {self.name} reads {len(self.direction)} values, and this model's {named} have "
                f"{width}: make one for this model with `firsthand interp probe`"
            )


def write_monitor(monitor: ActivationMonitor, file: Path) -> None:
    """Writes the file; `+monitor:FILE` after a model's name reads it."""
    numbers = {"bias": monitor.bias, "threshold": monitor.threshold, "false_alarms": monitor.false_alarms}
    write_direction(file, FORMAT, Direction(monitor.site, monitor.direction, monitor.name, numbers))


def read_monitor(file: Path | str) -> ActivationMonitor:
    """Reads the file of `write_monitor`. ConfigError if it is missing, ModelFileError if it is none."""
    numbers = ("bias", "threshold", "false_alarms")
    found = read_direction(file, FORMAT, "monitor", "firsthand interp probe --out FILE", numbers)
    if not all(math.isfinite(found.numbers[name]) for name in ("bias", "threshold")):
        raise ModelFileError(f"{file} has a bias or a threshold that is no number: make the monitor again")
    return ActivationMonitor(found.site, found.values, name=found.name, **found.numbers)
