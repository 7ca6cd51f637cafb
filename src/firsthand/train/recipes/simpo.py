"""SimPO: mean log-probs as rewards, with a margin and without a reference."""

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
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings, expect_range
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.train.preference_training import PairNumbers
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train simpo pairs.jsonl --model MODEL --lr 3e-4 --steps 300"


@dataclass(frozen=True)
class Config:
    """Simple preference optimisation (Meng et al., 2024, arXiv:2405.14734)."""

    data: str = field(default="", metadata={"positional": True})
    """JSONL with `prompt`, `chosen` and `rejected`."""
    beta: float = 2.0
    """Scale of the mean log-probs."""
    margin: float = 1.0
    """The paper's gamma: the reward margin that is wanted."""
    comparisons: PreferenceSettings = field(default_factory=PreferenceSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=preference_optimizer)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loop: LoopSettings = field(default_factory=preference_loop)

    def __post_init__(self) -> None:
        expect_above_0("beta", self.beta)
        expect_range(self, "margin")


def loss(pairs: PairNumbers, config: Config) -> Tensor:
    """Equation 6: -log sigmoid(beta (mean log-prob of the chosen answer - of the rejected one) - margin)."""
    from firsthand.train.losses.pair_losses import simpo_loss

    chosen, rejected = pairs.means
    return simpo_loss(chosen, rejected, beta=config.beta, margin=config.margin)


def simpo(config: Config, run: TrainingRun) -> Path:
    """Train the model; returns its folder."""
    from firsthand.train.preference_training import train_preferences

    return train_preferences(
        run, config, lambda pairs: loss(pairs, config), lambda pairs: pairs.means, needs_reference=False
    )
