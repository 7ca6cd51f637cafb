"""REINFORCE with the batch's mean reward as the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.train.advantages import batch_advantages, whiten
from firsthand.train.episodes import Graded
from firsthand.train.policy_streams import policy_streams
from firsthand.train.rollout_settings import PolicySettings, PolicyView, RolloutSettings
from firsthand.train.streams import Stream

if TYPE_CHECKING:
    from firsthand.train.objective import Objective

EXAMPLES = "firsthand train reinforce recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """REINFORCE (Williams, 1992)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    whiten: bool = False
    """Divide the advantages by their standard deviation over the batch (REINFORCE++, arXiv:2501.03262)."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    training: PolicySettings = field(default_factory=PolicySettings)


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """A_i = r_i - mean of the batch, for all tokens of answer i."""
    advantages = batch_advantages([each.reward for each in graded.episodes])
    if config.whiten:
        advantages = whiten(advantages)
    return policy_streams(graded.episodes, advantages, config.rollouts)


def objective(config: Config) -> Objective:
    """-A log pi, averaged over all tokens of the batch: Williams (1992), equation 11."""
    from firsthand.train.losses.policy_losses import reinforce_loss
    from firsthand.train.policy_objective import policy_objective

    return policy_objective(lambda logprob, old, advantage: reinforce_loss(logprob, advantage), config.rollouts)


def reinforce(config: Config) -> Path:
    """Trains the policy; returns the folder of the trained model."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(
        config.benchmark, config.rollouts, config.training, partial(streams, config=config), objective(config),
        recipe="reinforce",
    )  # fmt: skip
