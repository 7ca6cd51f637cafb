"""Rejection sampling: the best of n rollouts of each task is fine-tuned on, round after round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from firsthand.errors import ConfigError
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.episodes import Episode, Graded
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.rollout_settings import PolicyView, RolloutSettings, policy_loop, policy_optimizer, policy_schedule
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream

if TYPE_CHECKING:
    from firsthand.train.objective import Objective
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train rejection recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """Rejection sampling, or best-of-n fine-tuning (RAFT: Dong et al., 2023, arXiv:2304.06767)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    least: float | None = None
    """Only answers with at least this reward are learned."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=policy_optimizer)
    schedule: ScheduleSettings = field(default_factory=policy_schedule)
    loop: LoopSettings = field(default_factory=policy_loop)

    def __post_init__(self) -> None:
        if self.least is not None and not math.isfinite(self.least):
            raise ConfigError(f"least is {self.least}: expected a finite number")


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """Algorithm 1: of each task's answers the one with the highest reward, the first of equal ones.

    Of a rollout of several branches all that have this reward are learned. Tasks whose answers all have one reward, or none
    high enough, teach nothing.
    """
    best: dict[str, Episode] = {}
    for each in graded.episodes:
        if each.group not in best or each.reward > best[each.group].reward:
            best[each.group] = each
    least: dict[str, float] = {}
    for each in graded.episodes:
        least[each.group] = min(each.reward, least.get(each.group, each.reward))
    return [
        Stream(each.ids, ce=each.mask.astype(np.float32), group=each.group, source=each.source, adapter=each.adapter)
        for each in graded.episodes
        if each.source == best[each.group].source and each.reward == best[each.group].reward > least[each.group]
        and (config.least is None or each.reward >= config.least)
    ]  # fmt: skip


def objective(config: Config) -> Objective:
    """Cross-entropy of the sampled tokens."""
    from firsthand.train.objective import Objective

    return Objective(ce=1.0)


def rejection(config: Config, run: TrainingRun) -> Path:
    """Train the policy; returns its folder."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(run, config, partial(streams, config=config), objective(config))
