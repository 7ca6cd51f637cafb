"""Reward model: Bradley-Terry over all pairs of a prompt's answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.system.terminal import console
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.preference_settings import PreferenceSettings, preference_loop, preference_optimizer
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings, expect_range
from firsthand.train.schedules import ScheduleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.train.objective import Comparisons
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train reward pairs.jsonl --model MODEL --lr 3e-4 --steps 300"


@dataclass(frozen=True)
class Config:
    """Reward model of InstructGPT (Ouyang et al., 2022, arXiv:2203.02155)."""

    data: str = field(default="", metadata={"positional": True})
    """JSONL with `prompt`, and `chosen` and `rejected` or `answers`, the best first."""
    centering: float = 0.0
    """Weight of the squared sum of a pair's rewards, which keeps them near 0 (arXiv:2312.09244)."""
    comparisons: PreferenceSettings = field(default_factory=PreferenceSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=preference_optimizer)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loop: LoopSettings = field(default_factory=preference_loop)

    def __post_init__(self) -> None:
        expect_range(self, "centering")


def loss(answers: Comparisons, config: Config) -> Tensor:
    """Equation 1: -1 / C(K, 2) sum over pairs of log sigmoid(r_better - r_worse), for each prompt."""
    from torch import unique

    from firsthand.train.losses.pair_losses import bradley_terry_loss

    assert answers.value is not None
    groups = unique(answers.pair, return_inverse=True)[1]
    return bradley_terry_loss(answers.value, answers.label, groups, centering=config.centering)


def reward(config: Config, run: TrainingRun) -> Path:
    """Train the model; returns its folder."""
    from firsthand.train.preference_training import train_reward_model

    folder, accuracy = train_reward_model(run, config, lambda answers: loss(answers, config))
    if accuracy is not None:
        console().print(f"held-out pairs in the right order: {accuracy:.1%}")
    return folder
