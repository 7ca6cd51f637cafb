"""Settings that the recipes of preference learning share. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from firsthand.errors import ConfigError
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings


@dataclass(frozen=True)
class PreferenceSettings:
    """The model, and how its comparisons are taken."""

    model: str = "smollm2"
    """The model to begin with: a name, a .gguf file, or a folder."""
    batch_size: int = 64
    """Comparisons of a step."""
    too_long: Literal["skip", "cut", "refuse"] = "skip"
    """Comparisons with an answer longer than the context are left out and counted, cut to their beginning, or an error."""
    holdout: float = 0.0
    """The fraction of comparisons that is held out, all of a prompt together: their loss and pair accuracy are logged about
    ten times over a run; of a reward model the pair accuracy is printed at the end."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= self.holdout < 1:
            raise ConfigError(
                f"batch_size is {self.batch_size} and holdout {self.holdout}: expected 1 or more, and from 0 to below 1"
            )


def preference_optimizer() -> OptimizerSettings:
    """AdamW at 1e-6 (DPO) without decay; a model of 100,000 parameters takes 3e-4."""
    return OptimizerSettings(lr=1e-6, beta2=0.999, weight_decay=0.0)


def preference_loop() -> LoopSettings:
    """500 steps."""
    return LoopSettings(steps=500)


class PreferenceConfig(Protocol):
    """The settings that every recipe of preference learning has."""

    @property
    def data(self) -> str: ...
    @property
    def comparisons(self) -> PreferenceSettings: ...
    @property
    def adapter(self) -> AdapterSettings: ...
    @property
    def optimizer(self) -> OptimizerSettings: ...
    @property
    def schedule(self) -> ScheduleSettings: ...


def expect_above_0(name: str, value: float) -> None:
    """ConfigError unless the value is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}: expected a number above 0")
