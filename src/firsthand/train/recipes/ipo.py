"""IPO: DPO with a squared loss, which wants a margin and no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

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

EXAMPLES = "firsthand train ipo pairs.jsonl --model MODEL --lr 3e-4 --steps 300"


@dataclass(frozen=True)
class Config:
    """Identity preference optimisation (Azar et al., 2023, arXiv:2310.12036)."""

    data: str = field(default="", metadata={"positional": True})
    """JSONL with `prompt`, `chosen` and `rejected`."""
    beta: float = 0.1
    """The paper's tau: the margin of log-ratios that is wanted is 1 / (2 beta)."""
    per_token: bool = False
    """Divide each log-ratio by its answer's length first, as TRL does; the paper sums."""
    comparisons: PreferenceSettings = field(default_factory=PreferenceSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=preference_optimizer)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loop: LoopSettings = field(default_factory=preference_loop)

    def __post_init__(self) -> None:
        expect_above_0("beta", self.beta)


def loss(pairs: PairNumbers, config: Config) -> Tensor:
    """Equation 17: (log-ratio of the chosen answer - log-ratio of the rejected one - 1 / (2 beta))^2."""
    from firsthand.train.losses.pair_losses import ipo_loss

    chosen, rejected = rewards(pairs, config)
    return ipo_loss(chosen, rejected, beta=config.beta)


def rewards(pairs: PairNumbers, config: Config) -> tuple[Tensor, Tensor]:
    """The log-ratios that are compared."""
    return pairs.mean_ratios if config.per_token else pairs.ratios


def ipo(config: Config, run: TrainingRun) -> Path:
    """Train the model; returns its folder."""
    from firsthand.train.preference_training import train_preferences

    return train_preferences(run, config, lambda pairs: loss(pairs, config), lambda pairs: rewards(pairs, config))
