"""Advantages from rewards: within groups of answers to one prompt, by leaving one out, and by GAE from a value function.

Rows with equal `rollouts_S` are branches of one rollout: together they are one member of their group or batch, each with the
same share. Without `rollouts_S` every row is a rollout of its own. Numpy alone. Rewards that are not numbers never get here:
see `episodes`.
"""

# S sequences (branches of rollouts), T sampled tokens of one sequence

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def group_advantages(
    rewards_S: Sequence[float] | Floats, groups_S: Sequence[Any], *, rollouts_S: Sequence[Any] | None = None,
    divide_by_std: bool = True, epsilon: float = 1e-4,
) -> Floats:  # fmt: skip
    """GRPO: the reward less its group's mean, divided by the group's sample standard deviation + epsilon: S.

    Shao et al. (2024), arXiv:2402.03300, section 4.1.2; the sample deviation (G - 1, G rollouts) and the epsilon are TRL's.
    Without `divide_by_std` it is Dr. GRPO's: Liu et al. (2025), arXiv:2503.20783, section 3.2. A group of one rollout, or of
    equal rewards, gives 0.
    """
    rewards, advantages = np.asarray(rewards_S, dtype=np.float64), np.zeros(len(rewards_S))
    shares, members = _shares(rewards, rollouts_S)
    for rows in _rows_of(groups_S):
        count = len(set(members[rows].tolist()))
        if count < 2 or is_constant(rewards[rows]):
            continue
        centred = rewards[rows] - (shares[rows] * rewards[rows]).sum() / count
        deviation = np.sqrt((shares[rows] * centred**2).sum() / (count - 1))
        advantages[rows] = centred / (deviation + epsilon) if divide_by_std else centred
    return advantages


def leave_one_out_advantages(
    rewards_S: Sequence[float] | Floats, groups_S: Sequence[Any], rollouts_S: Sequence[Any] | None = None
) -> Floats:
    """RLOO: the reward less the mean reward of the group's other rollouts, S; 0 in a group of one.

    Ahmadian et al. (2024), arXiv:2402.14740, section 2.3 (Kool et al., 2019). It is G / (G - 1) times Dr. GRPO's.
    """
    rewards, advantages = np.asarray(rewards_S, dtype=np.float64), np.zeros(len(rewards_S))
    shares, members = _shares(rewards, rollouts_S)
    for rows in _rows_of(groups_S):
        count = len(set(members[rows].tolist()))
        if count > 1 and not is_constant(rewards[rows]):
            parts, of = shares[rows] * rewards[rows], members[rows]
            own = np.bincount(of, weights=parts)[of]
            advantages[rows] = rewards[rows] - (parts.sum() - own) / (count - 1)
    return advantages


def batch_advantages(
    rewards_S: Sequence[float] | Floats, baseline: float | None = None, *, rollouts_S: Sequence[Any] | None = None
) -> Floats:
    """REINFORCE with a baseline: the reward less `baseline`, or less the mean of the batch's rollouts, S."""
    rewards = np.asarray(rewards_S, dtype=np.float64)
    if baseline is not None or not len(rewards):
        return rewards - (baseline or 0.0)
    shares, members = _shares(rewards, rollouts_S)
    mean: float = (shares * rewards).sum() / len(set(members.tolist()))
    return rewards - mean


def varied_groups(rewards_S: Sequence[float] | Floats, groups_S: Sequence[Any]) -> NDArray[np.bool_]:
    """DAPO's dynamic sampling: True for the rows of groups whose rewards are not all equal, S.

    Yu et al. (2025), arXiv:2503.14476, equation 11: a group that is all right or all wrong has no gradient.
    """
    rewards, kept = np.asarray(rewards_S, dtype=np.float64), np.zeros(len(rewards_S), dtype=bool)
    for rows in _rows_of(groups_S):
        kept[rows] = not is_constant(rewards[rows])
    return kept


def overlong_penalty(length: int, *, max_length: int, buffer: int) -> float:
    """DAPO's soft punishment of long answers: 0, then falling to -1 over the last `buffer` tokens below `max_length`.

    Yu et al. (2025), arXiv:2503.14476, equation 13.
    """
    if length <= max_length - buffer:
        return 0.0
    return -1.0 if length > max_length else ((max_length - buffer) - length) / buffer


class Gae(NamedTuple):
    """Advantages and returns of one sequence's sampled tokens."""

    advantages: Floats
    """T"""
    returns: Floats
    """T: advantage and value together."""


def gae(
    rewards_T: Sequence[float] | Floats,
    values_T: Sequence[float] | Floats,
    *,
    discount: float = 1.0,
    trace_decay: float = 0.95,
) -> Gae:
    """Generalised advantage estimation over the sampled tokens of one finished sequence.

    delta_t = r_t + discount V_{t+1} - V_t, A_t = sum over l of (discount trace_decay)^l delta_{t+l}; V after the last token
    is 0. Schulman et al. (2016), arXiv:1506.02438, equation 16. `values_T` are those before each token; returns
    are A + V. Tokens of observations are no steps: a turn's last token is followed by the next turn's first.
    """
    rewards, values = np.asarray(rewards_T, dtype=np.float64), np.asarray(values_T, dtype=np.float64)
    advantages, after, running = np.zeros(len(rewards)), 0.0, 0.0
    for t in range(len(rewards) - 1, -1, -1):
        running = rewards[t] + discount * after - values[t] + discount * trace_decay * running
        advantages[t], after = running, values[t]
    return Gae(advantages, advantages + values)


def kl_penalised_rewards(
    score: float, logprobs_T: Sequence[float] | Floats, references_T: Sequence[float] | Floats, *, kl_weight: float
) -> Floats:
    """PPO's reward of each token: -kl_weight log(pi / ref), and the score at the last token: T.

    Ouyang et al. (2022), arXiv:2203.02155, equation 2 without its pretraining term; per token as in Stiennon et al. (2020),
    arXiv:2009.01325, section 3.4.
    """
    rewards = -kl_weight * (np.asarray(logprobs_T, dtype=np.float64) - np.asarray(references_T, dtype=np.float64))
    if len(rewards):
        rewards[-1] += score
    return rewards


def whiten(
    values_N: Floats, *, rollouts_N: Sequence[Any] | None = None, weights_N: Floats | None = None,
    shift_mean: bool = True, epsilon: float = 1e-8,
) -> Floats:  # fmt: skip
    """Values of mean 0 and variance 1 over the whole batch, as PPO's implementations do with advantages: N.

    Without `shift_mean` the mean is kept. TRL's `masked_whiten`: sample variance, epsilon inside the root. With `rollouts_N`
    mean and variance are those of rollouts; with `weights_N` a value counts as much as its weight, as a token by its mask.
    """
    if weights_N is None:
        shares, members = _shares(values_N, rollouts_N)
        count: float = len(set(members.tolist()))
    else:
        shares, count = weights_N, round(float(weights_N.sum()), 6)  # thirds of a token add up to one
    mean: float = (shares * values_N).sum() / max(1, count)
    if count < 2:
        return values_N - mean if shift_mean else values_N
    variance = (shares * (values_N - mean) ** 2).sum() / (count - 1)
    centred: Floats = (values_N - mean) / np.sqrt(variance + epsilon)
    return centred if shift_mean else centred + mean


def is_constant(rewards: Floats) -> bool:
    """True if all rewards are equal, up to rounding."""
    return bool(np.ptp(rewards) <= 1e-9 * max(1.0, float(np.abs(rewards).max()))) if len(rewards) else True


def _rows_of(groups_S: Sequence[Any]) -> list[NDArray[np.int64]]:
    """The rows of each group, in the order in which groups first come."""
    rows: dict[Any, list[int]] = {}
    for row, group in enumerate(groups_S):
        rows.setdefault(group, []).append(row)
    return [np.array(each) for each in rows.values()]


def _shares(rows_S: Floats, rollouts_S: Sequence[Any] | None) -> tuple[Floats, NDArray[np.int64]]:
    """1 / the number of branches of each row's rollout, and the rollout's number: S and S."""
    numbers: dict[Any, int] = {}
    given = range(len(rows_S)) if rollouts_S is None else rollouts_S
    members = np.array([numbers.setdefault(each, len(numbers)) for each in given], dtype=np.int64)
    return 1 / np.bincount(members)[members] if len(members) else np.zeros(0), members
