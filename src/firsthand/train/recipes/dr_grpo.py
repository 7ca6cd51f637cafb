"""Dr. GRPO: GRPO without its two biases, the deviation of the group and the length of the answer."""

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

EXAMPLES = "firsthand train dr_grpo recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """GRPO done right (Liu et al., 2025, arXiv:2503.20783)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    clip: float = 0.2
    """The ratio is clipped to 1 - clip and 1 + clip."""
    kl: float = 0.0
    """Weight of the KL to the policy before training (the paper has none)."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=policy_optimizer)
    schedule: ScheduleSettings = field(default_factory=policy_schedule)
    loop: LoopSettings = field(default_factory=policy_loop)

    def __post_init__(self) -> None:
        expect_groups(self.rollouts)
        expect_range(self, "clip", "kl")


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """Section 3.2: A_i = r_i - mean(r) for all tokens of answer i, and every token counts alike."""
    episodes = graded.episodes
    rewards, groups = [each.reward for each in episodes], [each.group for each in episodes]
    advantages = group_advantages(rewards, groups, rollouts_S=[each.rollout for each in episodes], divide_by_std=False)
    references = policy.references(episodes) if config.kl else None
    return policy_streams(episodes, advantages, config.rollouts, references=references)


def objective(config: Config) -> Objective:
    """PPO's clip and the KL summed over tokens, over the number of answers times the longest answer, a constant."""
    from firsthand.train.losses.policy_losses import clipped_policy_loss
    from firsthand.train.policy_objective import policy_objective

    sampled = config.rollouts
    loss = partial(clipped_policy_loss, clip_low=config.clip, clip_high=config.clip)
    return policy_objective(loss, sampled, kl=config.kl, answer_length=sampled.max_tokens)


def dr_grpo(config: Config, run: TrainingRun) -> Path:
    """Train the policy; returns its folder."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(run, config, partial(streams, config=config), objective(config))
