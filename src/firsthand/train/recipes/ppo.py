"""PPO of InstructGPT: a value head, GAE, the KL to the reference in each token's reward, and a pretraining mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from firsthand.errors import ConfigError
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.advantages import gae, kl_penalised_rewards, whiten
from firsthand.train.episodes import Graded
from firsthand.train.policy_streams import policy_streams
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings, expect_range
from firsthand.train.rollout_settings import PolicyView, RolloutSettings, policy_loop, policy_optimizer, policy_schedule
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream

if TYPE_CHECKING:
    from torch import Tensor

    from firsthand.train.objective import Objective, Targets
    from firsthand.train.training_run import TrainingRun

EXAMPLES = "firsthand train ppo recurrence --model MODEL --lr 3e-4 --steps 100 --max-tokens 12"


@dataclass(frozen=True)
class Config:
    """Proximal policy optimisation from a reward (Ouyang et al., 2022, arXiv:2203.02155)."""

    benchmark: str = field(default="", metadata={"positional": True})
    """The benchmark whose tasks are asked and whose first score is the reward."""
    clip: float = 0.2
    """The ratio is clipped to 1 - clip and 1 + clip."""
    kl: float = 0.02
    """Weight of the KL to the policy before training, paid token by token in the reward (0.02: InstructGPT)."""
    discount: float = 1.0
    """Of later rewards."""
    trace_decay: float = 0.95
    """GAE's lambda."""
    value: float = 0.1
    """Weight of the value loss."""
    value_init: Literal["zero", "reward"] = "zero"
    """The value head begins at 0, or as the head of `--reward-model` (InstructGPT, appendix C.4, whose value function begins
    as the reward model)."""
    value_clip: float = 0.2
    """The value is clipped to its old one plus or minus this."""
    ptx: Path | None = None
    """JSONL with `text`, `messages`, or `prompt` and `completion`, whose cross-entropy is mixed in (PPO-ptx)."""
    ptx_weight: float = 1.0
    """Weight of that cross-entropy per token, beside that of the policy loss per token."""
    ptx_batch: int = 32
    """Its sequences for each batch of rollouts."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=policy_optimizer)
    schedule: ScheduleSettings = field(default_factory=policy_schedule)
    loop: LoopSettings = field(default_factory=policy_loop)

    def __post_init__(self) -> None:
        expect_range(self, "clip", "kl", "value", "value_clip", "ptx_weight")
        expect_range(self, "discount", "trace_decay", most=1)
        if self.ptx_batch < 1:
            raise ConfigError(f"ptx_batch is {self.ptx_batch}: expected 1 or more")
        if self.value_init == "reward" and self.rollouts.reward_model is None:
            raise ConfigError(
                "value_init is reward, and there is no reward model: give one with `--reward-model FOLDER`"
            )


def streams(graded: Graded, policy: PolicyView, config: Config) -> Sequence[Stream]:
    """Equation 2: r_t = -kl log(pi / ref), the score at the last token; GAE (arXiv:1506.02438) gives A_t and the returns.

    Advantages are whitened over the batch's tokens, of which one that branches share counts once. Observations are no steps:
    a turn's last token is followed by the next turn's first.
    """
    advantages, more, episodes = [], [], graded.episodes
    references, values = policy.references(episodes), policy.values(episodes)
    for episode, reference, value in zip(episodes, references, values, strict=True):
        at = episode.sampled
        old = (episode.own if config.rollouts.correct_to_model else episode.behaviour)[at]
        rewards = kl_penalised_rewards(episode.reward, old, reference[at], kl_weight=config.kl)
        found = gae(rewards, value[at], discount=config.discount, trace_decay=config.trace_decay)
        advantage, returns = np.zeros(len(episode.ids)), np.zeros(len(episode.ids))
        advantage[at], returns[at] = found.advantages, found.returns
        advantages.append(advantage)
        more.append({"value": episode.mask, "returns": returns, "old_values": value})
    found_N = [each[episode.sampled] for each, episode in zip(advantages, episodes, strict=True)]
    weights_N = [episode.mask[episode.sampled] for episode in episodes]
    white = whiten(np.concatenate(found_N), weights_N=np.concatenate(weights_N))
    for advantage, episode in zip(advantages, episodes, strict=True):
        advantage[episode.sampled], white = white[: len(episode.sampled)], white[len(episode.sampled) :]
    return policy_streams(episodes, advantages, config.rollouts, more=more)


def objective(config: Config) -> Objective:
    """The clipped ratio (arXiv:1707.06347, equation 7), half of the clipped squared error of values, and the mix."""
    from firsthand.train.losses.policy_losses import clipped_policy_loss, clipped_value_loss
    from firsthand.train.policy_objective import policy_objective

    def value_loss(targets: Targets, values_M: Tensor) -> Tensor:
        return clipped_value_loss(values_M, targets.old_values, targets.returns, clip=config.value_clip)

    loss = partial(clipped_policy_loss, clip_low=config.clip, clip_high=config.clip)
    ptx = config.ptx_weight if config.ptx else 0.0
    return policy_objective(loss, config.rollouts, value=config.value, value_loss=value_loss, ce=ptx)


def ppo(config: Config, run: TrainingRun) -> Path:
    """Train the policy; returns its folder."""
    from firsthand.train.reinforcement import train_policy

    return train_policy(
        run,
        config,
        partial(streams, config=config),
        objective(config),
        has_values=True,
        values_from=config.rollouts.reward_model if config.value_init == "reward" else None,
        needs_reference=True,
        mixed_in=config.ptx,
        mixed_batch=config.ptx_batch,
    )
