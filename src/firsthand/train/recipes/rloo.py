"""RLOO: REINFORCE on whole answers, with the mean reward of the group's others as the baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.advantages import leave_one_out_advantages
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

EXAMPLES = "firsthand train rloo recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """REINFORCE leave-one-out (Ahmadian et al., 2024, arXiv:2402.14740)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    kl: float = 0.05
    """Weight of the KL to the policy before training, in the reward; 0 needs no reference model."""
    clip: float = 0.2
    """The ratio of whole answers is clipped to 1 - clip and 1 + clip; it matters only with several updates."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=policy_optimizer)
    schedule: ScheduleSettings = field(default_factory=policy_schedule)
    loop: LoopSettings = field(default_factory=policy_loop)

    def __post_init__(self) -> None:
        expect_groups(self.rollouts)
        expect_range(self, "clip", "kl")


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """Section 2.3: R_i = r_i - kl log(pi(y_i) / ref(y_i)), and A_i = R_i - mean of the group's other R.

    y_i is all that rollout i sampled, in all of its branches.
    """
    episodes, kl = graded.episodes, defaultdict[tuple[str, str], float](float)
    if config.kl:
        for each, reference in zip(episodes, policy.references(episodes), strict=True):
            at, old = each.sampled, each.own if config.rollouts.correct_to_model else each.behaviour
            kl[each.rollout] += float((each.mask[at] * (old[at] - reference[at])).sum())
    rewards = [each.reward - config.kl * kl[each.rollout] for each in episodes]
    groups, rollouts = [each.group for each in episodes], [each.rollout for each in episodes]
    advantages = leave_one_out_advantages(rewards, groups, rollouts)
    return policy_streams(episodes, advantages, config.rollouts, mean_per_branch=True)


def objective(config: Config) -> Objective:
    """The ratio of whole answers, clipped as TRL does; each answer counts as one. On policy it is REINFORCE."""
    from firsthand.train.losses.policy_losses import whole_sequence_loss
    from firsthand.train.policy_objective import policy_objective

    loss = partial(whole_sequence_loss, clip_low=config.clip, clip_high=config.clip)
    return policy_objective(None, config.rollouts, answer_loss=loss)


def rloo(config: Config, run: TrainingRun) -> Path:
    """Train the policy; returns its folder."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(
        run, config, partial(streams, config=config), objective(config), needs_reference=bool(config.kl)
    )
