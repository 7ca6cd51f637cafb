"""REINFORCE with the batch's mean reward as the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.advantages import batch_advantages, whiten
from firsthand.train.episodes import Graded
from firsthand.train.policy_streams import policy_streams
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.rollout_settings import PolicyView, RolloutSettings, policy_loop, policy_optimizer, policy_schedule
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream

if TYPE_CHECKING:
    from firsthand.train.objective import Objective
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train reinforce recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """REINFORCE (Williams, 1992)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    whiten: bool = False
    """Divide the advantages by their standard deviation over the batch (REINFORCE++, arXiv:2501.03262)."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=policy_optimizer)
    schedule: ScheduleSettings = field(default_factory=policy_schedule)
    loop: LoopSettings = field(default_factory=policy_loop)


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """A_i = r_i - mean of the batch's rollouts, for all tokens of answer i."""
    rollouts = [each.rollout for each in graded.episodes]
    advantages = batch_advantages([each.reward for each in graded.episodes], rollouts_S=rollouts)
    if config.whiten:
        advantages = whiten(advantages, rollouts_N=rollouts)
    return policy_streams(graded.episodes, advantages, config.rollouts)


def objective(config: Config) -> Objective:
    """-A log pi, averaged over all tokens of the batch: Williams (1992), equation 11."""
    from firsthand.train.losses.policy_losses import reinforce_loss
    from firsthand.train.policy_objective import policy_objective

    return policy_objective(lambda logprob, old, advantage: reinforce_loss(logprob, advantage), config.rollouts)


def reinforce(config: Config, run: TrainingRun) -> Path:
    """Train the policy; returns its folder."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(run, config, partial(streams, config=config), objective(config))
