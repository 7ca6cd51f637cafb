"""The loss of a step: weights of its parts, and the pure functions that an algorithm plugs in.

A part's function sees only the tokens that count for it, as flat tensors, and returns one loss per token; `fit` multiplies
by the weights of the streams, sums over the whole step and divides by the part's own count.
"""

# M tokens of a micro-batch that count, S streams of it

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.train.losses import kl_estimators
from firsthand.train.streams import PackedStreams, Stream, counts, num_answers

PARTS = ("ce", "pg", "ref_kl", "value", "pair", "soft")


@dataclass(frozen=True, eq=False)
class Targets:
    """The tokens of a micro-batch that count, in the order of their streams; every tensor is M."""

    ids: Tensor
    row: Tensor
    """The stream of each token, numbered within the micro-batch."""
    ce: Tensor
    pg: Tensor
    ref_kl: Tensor
    value: Tensor
    advantage: Tensor
    behaviour: Tensor
    reference: Tensor
    returns: Tensor
    old_values: Tensor

    def of(self, chosen_M: Tensor) -> Targets:
        """The chosen tokens alone."""
        return replace(self, **{each.name: getattr(self, each.name)[chosen_M] for each in fields(self)})


@dataclass(frozen=True, eq=False)
class Comparisons:
    """The streams of a micro-batch that belong to comparisons; every tensor is S, a comparison's streams are all here."""

    pair: Tensor
    """The comparison of each stream."""
    label: Tensor
    """Chosen +1, rejected -1, or rank or desirability."""
    logprob: Tensor
    """Log-prob of each stream under the policy, summed with the weights `ce`; carries the gradient."""
    reference: Tensor
    """The same sum of the reference's log-probs, zeros if the streams have none."""
    length: Tensor
    """Sum of the weights `ce`: the tokens that were summed."""
    value: Tensor | None
    """The value head at the last token, which is a reward model's score; None without a head."""


PartLoss = Callable[[Targets, Tensor], Tensor]
"""(targets, the policy's log-probs M) -> loss of each token M."""


def policy_gradient(targets: Targets, logprobs_M: Tensor) -> Tensor:
    """Importance-weighted policy gradient without a clip: -A exp(log pi - log mu); its gradient on policy is REINFORCE's."""
    return -targets.advantage * torch.exp(logprobs_M - targets.behaviour)


def k3(targets: Targets, logprobs_M: Tensor) -> Tensor:
    """KL(pi || reference) of each token by the estimator k3 (GRPO, arXiv:2402.03300, equation 4)."""
    return kl_estimators.k3(logprobs_M, targets.reference)


def squared_error(targets: Targets, values_M: Tensor) -> Tensor:
    """Half the squared error of the values against the returns."""
    return 0.5 * (values_M - targets.returns).square()


SoftLoss = Callable[[PackedStreams, Tensor, Tensor], Tensor]
"""(packed streams, the places M of the tokens in them, the policy's logits M V) -> loss of each token M."""


@dataclass(frozen=True)
class Objective:
    """Weights of the parts of the loss, and the functions of the parts that differ between algorithms."""

    ce: float = 0.0
    """Weight of the cross-entropy."""
    pg: float = 0.0
    """Weight of the policy-gradient term."""
    ref_kl: float = 0.0
    """Weight of the divergence from the reference."""
    value: float = 0.0
    """Weight of the value loss."""
    pair: float = 0.0
    """Weight of the loss of comparisons."""
    soft: float = 0.0
    """Weight of the divergence from a teacher's distribution, at the tokens that count for `ce` and with their weights."""
    policy_loss: PartLoss = policy_gradient
    kl_loss: PartLoss = k3
    value_loss: PartLoss = squared_error
    """Reads values in place of log-probs."""
    pair_loss: Callable[[Comparisons], Tensor] | None = None
    """Losses of any shape, which are summed and divided by the number of comparisons of the step."""
    soft_loss: SoftLoss | None = None
    policy_logprobs: Callable[[Tensor, Targets], Tensor] | None = None
    """(logits M V, targets) -> log-probs M under the distribution that was sampled, for `pg` and `ref_kl`; None is the
    model's own distribution. Give it where rollouts are sampled with a temperature or cuts."""
    divisors: Mapping[str, float] = field(default_factory=dict)
    """Constants in place of a part's own count."""
    answer_length: float | None = None
    """`pg` and `ref_kl` are divided by the answers of a step times this, as Dr. GRPO divides by a constant length."""
    watch: Callable[[Targets, Tensor], Mapping[str, Tensor]] | None = None
    """(targets, log-probs M) of the tokens that count for `pg` -> further metrics M; the weighted mean of each is logged."""

    def __post_init__(self) -> None:
        for part in PARTS:
            if not (math.isfinite(getattr(self, part)) and getattr(self, part) >= 0):
                raise ConfigError(f"the weight {part} of an objective is {getattr(self, part)}: expected 0 or more")
        if not any(getattr(self, part) for part in PARTS):
            raise ConfigError(f"an objective without any weight trains nothing: give one of {', '.join(PARTS)}")
        if self.pair and self.pair_loss is None:
            raise ConfigError("an objective with a weight for pairs needs a pair_loss")
        if self.soft and self.soft_loss is None:
            raise ConfigError("an objective with a weight for soft targets needs a soft_loss")
        if self.answer_length is not None and not (math.isfinite(self.answer_length) and self.answer_length > 0):
            raise ConfigError(f"answer_length is {self.answer_length}: expected a number above 0")
        for part, divisor in self.divisors.items():
            if part not in PARTS or not (math.isfinite(divisor) and divisor > 0):
                raise ConfigError(f"divisor {part}={divisor}: expected a number above 0 for one of {', '.join(PARTS)}")

    def divisors_of(self, streams: Sequence[Stream]) -> dict[str, float]:
        """The divisor of each part of the loss of a step, and that of watched metrics."""
        found = counts(streams)
        divisors = found | dict(self.divisors) | {"watch": found["pg"]}
        if self.answer_length is not None:
            divisors |= dict.fromkeys(("pg", "ref_kl"), num_answers(streams) * self.answer_length)
        return divisors


def token_logprobs(logits_MV: Tensor, ids_M: Tensor) -> Tensor:
    """The log-prob of each id under its row of logits: M."""
    return -functional.cross_entropy(logits_MV, ids_M, reduction="none")
