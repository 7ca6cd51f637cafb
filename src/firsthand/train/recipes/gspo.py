"""GSPO: GRPO with one ratio for each answer, the geometric mean of its tokens' ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.advantages import group_advantages
from firsthand.train.episodes import Graded
from firsthand.train.policy_streams import policy_streams
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings, expect_range
from firsthand.train.rollout_settings import (
    PolicyView,
    RolloutSettings,
    expect_groups,
    policy_loop,
    policy_optimizer,
    policy_schedule,
)
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream

if TYPE_CHECKING:
    from firsthand.train.objective import Objective
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train gspo recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """Group sequence policy optimisation (Zheng et al., 2025, arXiv:2507.18071)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    clip_low: float = 3e-4
    """The answer's ratio is clipped to 1 - this (section 5.1)."""
    clip_high: float = 4e-4
    """The answer's ratio is clipped to 1 + this."""
    epsilon: float = 1e-4
    """Added to the standard deviation of a group's rewards."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=policy_optimizer)
    schedule: ScheduleSettings = field(default_factory=policy_schedule)
    loop: LoopSettings = field(default_factory=policy_loop)

    def __post_init__(self) -> None:
        expect_groups(self.rollouts)
        expect_range(self, "clip_low", "clip_high", "epsilon")


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """Equation 6: A_i = (r_i - mean(r)) / std(r) for answer i, and each answer counts as one."""
    episodes = graded.episodes
    rewards, groups = [each.reward for each in episodes], [each.group for each in episodes]
    advantages = group_advantages(
        rewards, groups, rollouts_S=[each.rollout for each in episodes], epsilon=config.epsilon
    )
    return policy_streams(episodes, advantages, config.rollouts, mean_per_answer=True)


def objective(config: Config) -> Objective:
    """Equations 5 and 7: min(s A, clip(s) A) with s = (pi(y) / pi_old(y))^(1 / |y|)."""
    from firsthand.train.losses.policy_losses import sequence_ratio_loss
    from firsthand.train.policy_objective import policy_objective

    loss = partial(sequence_ratio_loss, clip_low=config.clip_low, clip_high=config.clip_high)
    return policy_objective(None, config.rollouts, answer_loss=loss)


def gspo(config: Config, run: TrainingRun) -> Path:
    """Train the policy; returns its folder."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(run, config, partial(streams, config=config), objective(config))
