"""The `Objective` of a policy-gradient algorithm, from a loss of log-probs, old log-probs and advantages."""

# M sampled tokens

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from firsthand.train.objective import Objective, Targets, k3, squared_error
from firsthand.train.rollout_batches import MAX_GAP
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.sampled_policy import sampled_policy

TokenLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log-probs, old log-probs, advantages) -> losses, all M."""
AnswerLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""The same, with the number of each token's answer."""


def policy_objective(
    loss: TokenLoss | None = None,
    sampled: RolloutSettings | None = None,
    *,
    answer_loss: AnswerLoss | None = None,
    kl: float = 0.0,
    answer_length: float | None = None,
    value: float = 0.0,
    value_loss: Callable[[Targets, Tensor], Tensor] | None = None,
    ce: float = 0.0,
) -> Objective:
    """The objective with one of the losses, a weight for the KL to the reference (k3), values and cross-entropy.

    With `answer_length` the policy gradient and the KL are divided by the answers of a step times this, in place of the sum
    of their weights. The log-probs are those of the distribution that was sampled, or of the model itself with
    `correct_to_model`.
    """
    sampled = sampled or RolloutSettings()

    def of_targets(targets: Targets, logprobs_M: Tensor) -> Tensor:
        if answer_loss is not None:
            return answer_loss(logprobs_M, targets.behaviour, targets.advantage, targets.row)
        assert loss is not None
        return loss(logprobs_M, targets.behaviour, targets.advantage)

    return Objective(
        pg=1.0,
        ref_kl=kl,
        value=value,
        ce=ce,
        policy_loss=of_targets,
        policy_logprobs=None if sampled.correct_to_model else sampled_policy(sampled.sampling),
        answer_length=answer_length,
        watch=watched_with_kl if kl and answer_length else watched,
        value_loss=squared_error if value_loss is None else value_loss,
    )


def watched(targets: Targets, logprobs_M: Tensor) -> Mapping[str, Tensor]:
    """Metrics of each sampled token: ratio, KL to the sampled policy, surprisal, share off the sampler's log-probs."""
    log_ratio_M = logprobs_M - targets.behaviour
    return {
        "ratio": log_ratio_M.exp(),
        "approx_kl": log_ratio_M.expm1() - log_ratio_M,
        "surprisal": -logprobs_M,
        "gap_share": (log_ratio_M.abs() > MAX_GAP).to(torch.float32),
    }


def watched_with_kl(targets: Targets, logprobs_M: Tensor) -> Mapping[str, Tensor]:
    """The same, and the KL to the reference in nats per token, whatever the loss divides it by."""
    return {**watched(targets, logprobs_M), "ref_kl": k3(targets, logprobs_M)}
