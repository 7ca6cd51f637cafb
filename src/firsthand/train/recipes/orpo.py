"""ORPO: fine-tuning on the chosen answer and an odds ratio against the rejected one, without a reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.preference_settings import PreferenceSettings, preference_loop, preference_optimizer
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings, expect_range
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.train.preference_training import PairNumbers
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train orpo pairs.jsonl --model MODEL --lr 3e-4 --steps 300"


@dataclass(frozen=True)
class Config:
    """Odds ratio preference optimisation (Hong et al., 2024, arXiv:2403.07691)."""

    data: str = field(default="", metadata={"positional": True})
    """JSONL with `prompt`, `chosen` and `rejected`."""
    weight: float = 0.1
    """The paper's lambda: weight of the odds ratio."""
    comparisons: PreferenceSettings = field(default_factory=PreferenceSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=preference_optimizer)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loop: LoopSettings = field(default_factory=preference_loop)

    def __post_init__(self) -> None:
        expect_range(self, "weight")


def loss(pairs: PairNumbers, config: Config) -> Tensor:
    """Equation 6: the mean cross-entropy of the chosen answer's tokens, and the odds ratio (equation 7)."""
    from firsthand.train.losses.pair_losses import orpo_loss

    chosen, rejected = pairs.means
    return orpo_loss(chosen, rejected, weight=config.weight) - chosen


def orpo(config: Config, run: TrainingRun) -> Path:
    """Train the model; returns its folder."""
    from firsthand.train.preference_training import train_preferences

    return train_preferences(
        run, config, lambda pairs: loss(pairs, config), lambda pairs: pairs.means, needs_reference=False
    )
