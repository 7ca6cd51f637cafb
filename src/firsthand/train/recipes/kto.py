"""KTO: single answers that are desirable or not, against the mean KL of the batch."""

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
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings, expect_range
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.train.objective import Comparisons
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train kto answers.jsonl --model MODEL --lr 3e-4 --steps 300"


@dataclass(frozen=True)
class Config:
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2024, arXiv:2402.01306)."""

    data: str = field(default="", metadata={"positional": True})
    """JSONL with `prompt`, `completion` and `label`, or with `chosen` and `rejected`, which are taken as two."""
    beta: float = 0.1
    """Steepness of the value function."""
    desirable_weight: float = 1.0
    """Weight of desirable answers."""
    undesirable_weight: float = 1.0
    """Weight of undesirable answers."""
    comparisons: PreferenceSettings = field(default_factory=PreferenceSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=preference_optimizer)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loop: LoopSettings = field(default_factory=preference_loop)

    def __post_init__(self) -> None:
        expect_above_0("beta", self.beta)
        expect_range(self, "desirable_weight", "undesirable_weight")
        if self.comparisons.batch_size < 2:
            raise ConfigError(
                f"batch_size is {self.comparisons.batch_size}: KTO's baseline comes from other answers of a batch, so give "
                "2 or more; --micro-tokens saves memory"
            )


def loss(answers: Comparisons, config: Config) -> Tensor:
    """Equation 8. The baseline z0 is in the references already (`KtoBatches`)."""
    from firsthand.train.losses.pair_losses import kto_loss

    return kto_loss(
        answers.logprob - answers.reference, answers.label, baseline=0.0, beta=config.beta,
        desirable_weight=config.desirable_weight, undesirable_weight=config.undesirable_weight,
    )  # fmt: skip


def kto(config: Config, run: TrainingRun) -> Path:
    """Train the model; returns its folder."""
    from firsthand.train.preference_training import train_kto

    return train_kto(run, config, lambda answers: loss(answers, config))
