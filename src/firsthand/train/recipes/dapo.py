"""DAPO: clip-higher, dynamic sampling, a mean over tokens, and a penalty for answers near the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.advantages import group_advantages, overlong_penalty
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

EXAMPLES = "firsthand train dapo recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """Decoupled clip and dynamic sampling policy optimisation (Yu et al., 2025, arXiv:2503.14476)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    clip_low: float = 0.2
    """The ratio is clipped to 1 - this."""
    clip_high: float = 0.28
    """The ratio is clipped to 1 + this (clip-higher, equation 10)."""
    overlong_buffer: int = 0
    """Answers in the last so many tokens before `max_tokens` lose reward, up to 1 (equation 13); 0 punishes none.
    A rollout of several turns loses what its longest answer does."""
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
        expect_range(self, "overlong_buffer", most=self.rollouts.max_tokens)


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """Equation 9: A_i = (r_i - mean(r)) / std(r), with the punishment of equation 13 in r; every token counts alike.

    Groups of equal rewards do not come here: further rollouts take their place (equation 11). Of several branches each is
    punished for its own longest answer, and their rollout is the mean of them.
    """
    episodes, limit, buffer = graded.episodes, config.rollouts.max_tokens, config.overlong_buffer
    rewards = [
        each.reward + (overlong_penalty(each.longest, max_length=limit, buffer=buffer) if buffer else 0.0)
        for each in episodes
    ]
    groups, rollouts = [each.group for each in episodes], [each.rollout for each in episodes]
    advantages = group_advantages(rewards, groups, rollouts_S=rollouts, epsilon=config.epsilon)
    return policy_streams(episodes, advantages, config.rollouts)


def objective(config: Config) -> Objective:
    """Equations 8 and 12: the clipped ratio, averaged over all tokens of the batch; no KL."""
    from firsthand.train.losses.policy_losses import clipped_policy_loss
    from firsthand.train.policy_objective import policy_objective

    loss = partial(clipped_policy_loss, clip_low=config.clip_low, clip_high=config.clip_high)
    return policy_objective(loss, config.rollouts)


def dapo(config: Config, run: TrainingRun) -> Path:
    """Train the policy; returns its folder."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(run, config, partial(streams, config=config), objective(config), dynamic=True)
