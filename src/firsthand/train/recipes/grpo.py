"""GRPO: advantages within a group of answers, PPO's clip per token, and a KL to the reference in the loss."""

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

EXAMPLES = "firsthand train grpo recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """Group relative policy optimisation (Shao et al., 2024, arXiv:2402.03300)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    clip: float = 0.2
    """The ratio is clipped to 1 - clip and 1 + clip."""
    kl: float = 0.04
    """Weight of the KL to the policy before training, by the estimator k3; 0 needs no reference model."""
    epsilon: float = 1e-4
    """Added to the standard deviation of a group's rewards."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=policy_optimizer)
    schedule: ScheduleSettings = field(default_factory=policy_schedule)
    loop: LoopSettings = field(default_factory=policy_loop)

    def __post_init__(self) -> None:
        expect_groups(self.rollouts)
        expect_range(self, "clip", "kl", "epsilon")


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """Equation 3 with outcome supervision (section 4.1.2): A_i = (r_i - mean(r)) / std(r) for all tokens of answer i.

    Each answer's mean over its own tokens counts as one (1 / |o_i|).
    """
    episodes = graded.episodes
    rewards, groups = [each.reward for each in episodes], [each.group for each in episodes]
    advantages = group_advantages(
        rewards, groups, rollouts_S=[each.rollout for each in episodes], epsilon=config.epsilon
    )
    references = policy.references(episodes) if config.kl else None
    return policy_streams(episodes, advantages, config.rollouts, mean_per_answer=True, references=references)


def objective(config: Config) -> Objective:
    """min(r A, clip(r) A) - kl k3, r the ratio of a token to when it was sampled (equations 3 and 4)."""
    from firsthand.train.losses.policy_losses import clipped_policy_loss
    from firsthand.train.policy_objective import policy_objective

    loss = partial(clipped_policy_loss, clip_low=config.clip, clip_high=config.clip)
    return policy_objective(loss, config.rollouts, kl=config.kl)


def grpo(config: Config, run: TrainingRun) -> Path:
    """Train the policy; returns its folder."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(run, config, partial(streams, config=config), objective(config))
