"""DPO: the policy itself as the reward model, trained on pairs by a classification loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.preference_settings import (
    PreferenceSettings,
    expect_above_0,
    preference_loop,
    preference_optimizer,
)
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.train.preference_training import PairNumbers
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train dpo pairs.jsonl --model MODEL --lr 3e-4 --steps 300"


@dataclass(frozen=True)
class Config:
    """Direct preference optimisation (Rafailov et al., 2023, arXiv:2305.18290)."""

    data: str = field(default="", metadata={"positional": True})
    """JSONL with `prompt`, `chosen` and `rejected`."""
    beta: float = 0.1
    """Strength of the tie to the reference (0.1; 0.5 for summaries)."""
    label_smoothing: float = 0.0
    """Share of pairs whose preference is taken to be wrong (conservative DPO)."""
    comparisons: PreferenceSettings = field(default_factory=PreferenceSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=preference_optimizer)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loop: LoopSettings = field(default_factory=preference_loop)

    def __post_init__(self) -> None:
        expect_above_0("beta", self.beta)
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}: expected from 0 to below 0.5")


def loss(pairs: PairNumbers, config: Config) -> Tensor:
    """Equation 7: -log sigmoid(beta (log-ratio of the chosen answer - log-ratio of the rejected one))."""
    from firsthand.train.losses.pair_losses import dpo_loss

    chosen, rejected = pairs.ratios
    return dpo_loss(chosen, rejected, beta=config.beta, label_smoothing=config.label_smoothing)


def dpo(config: Config, run: TrainingRun) -> Path:
    """Train the model; returns its folder."""
    from firsthand.train.preference_training import train_preferences

    return train_preferences(run, config, lambda pairs: loss(pairs, config))
