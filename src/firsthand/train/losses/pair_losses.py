"""Losses of comparisons: DPO, IPO, ORPO, SimPO and soft labels on pairs, KTO on answers, Bradley-Terry on ranked ones.

Inputs are log-probs of whole answers, summed over their tokens, or rewards; each loss is one number per comparison.
"""

# P pairs, S answers, K answers of one prompt

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_loss(chosen_P: Tensor, rejected_P: Tensor, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta (chosen - rejected)), P; the inputs are log-ratios log(pi / ref) of whole answers.

    Rafailov et al. (2023), arXiv:2305.18290, equation 7. With `label_smoothing` e it is conservative DPO: (1 - e) times this
    and e times the loss of the turned pair (Mitchell, 2023).
    """
    margin_P = beta * (chosen_P - rejected_P)
    return -(1 - label_smoothing) * logsigmoid(margin_P) - label_smoothing * logsigmoid(-margin_P)


def ipo_loss(chosen_P: Tensor, rejected_P: Tensor, *, beta: float = 0.1) -> Tensor:
    """(chosen - rejected - 1 / (2 beta))^2, P; the inputs are log-ratios log(pi / ref).

    Azar et al. (2023), arXiv:2310.12036, equation 17, where beta is tau and log-ratios are of whole answers. TRL divides
    each log-ratio by its answer's length first.
    """
    return (chosen_P - rejected_P - 1 / (2 * beta)).square()


def kto_loss(
    log_ratio_S: Tensor,
    label_S: Tensor,
    *,
    baseline: Tensor | float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """w (1 - sigmoid(beta (log-ratio - z0))) for desirable answers, w (1 - sigmoid(beta (z0 - log-ratio))) else, S.

    Ethayarajh et al. (2024), arXiv:2402.01306, equation 8 (7 in its first version); `baseline` is z0, an estimate of
    KL(pi || ref) of 0 or more, without gradient: see `kto_baseline`. A label above 0 is desirable.
    """
    desirable_S = label_S > 0
    sign_S = torch.where(desirable_S, 1.0, -1.0).to(log_ratio_S.dtype)
    weight_S = torch.where(desirable_S, desirable_weight, undesirable_weight).to(log_ratio_S.dtype)
    return weight_S * torch.sigmoid(-sign_S * beta * (log_ratio_S - baseline))


def kto_baseline(mismatched_S: Tensor) -> Tensor:
    """z0: the mean log-ratio of answers put after other prompts of the batch, at least 0, without gradient.

    Ethayarajh et al. (2024), arXiv:2402.01306, section 4.1 and the equation of z0 there.
    """
    return mismatched_S.detach().mean().clamp(min=0)


def orpo_loss(chosen_P: Tensor, rejected_P: Tensor, *, weight: float = 0.1) -> Tensor:
    """-weight log sigmoid(log odds(chosen) - log odds(rejected)), P: the odds-ratio part of ORPO.

    Hong et al. (2024), arXiv:2403.07691, equations 4, 6 and 7; odds(y) = p / (1 - p), and log p is the mean over an answer's
    tokens. `weight` is lambda there and beta in TRL. The whole loss adds the cross-entropy of the chosen answer.
    """
    odds_P = chosen_P - rejected_P - (_log1mexp(chosen_P) - _log1mexp(rejected_P))
    return -weight * logsigmoid(odds_P)


def simpo_loss(chosen_P: Tensor, rejected_P: Tensor, *, beta: float = 2.0, margin: float = 1.0) -> Tensor:
    """-log sigmoid(beta (chosen - rejected) - margin), P; the inputs are mean log-probs of an answer's tokens.

    Meng et al. (2024), arXiv:2405.14734, equation 6, where the margin is gamma. No reference policy.
    """
    return -logsigmoid(beta * (chosen_P - rejected_P) - margin)


def soft_preference_loss(margin_P: Tensor, preferred_P: Tensor) -> Tensor:
    """-p log sigmoid(margin) - (1 - p) log sigmoid(-margin), P; p is the probability that the first answer is preferred.

    The margin is a difference of rewards (Bai et al., 2022, arXiv:2212.08073, section 4.1: labels of an AI as log-probs), or
    beta times one of log-ratios, which is DPO with soft labels.
    """
    return -preferred_P * logsigmoid(margin_P) - (1 - preferred_P) * logsigmoid(-margin_P)


def bradley_terry_loss(reward_S: Tensor, rank_S: Tensor, group_S: Tensor, *, centering: float = 0.0) -> Tensor:
    """The mean over all pairs of a prompt's K answers of -log sigmoid(r_better - r_worse): one number per prompt.

    Ouyang et al. (2022), arXiv:2203.02155, equation 1. A higher rank number is better; answers of equal rank are no pair,
    and a prompt without any pair gives 0. `centering` c adds c (r_better + r_worse)^2, which fixes the free constant of
    rewards at 0 (Eisenstein et al., 2023, arXiv:2312.09244, section 4; TRL's `center_rewards_coefficient`).
    """
    losses = []
    for group in range(int(group_S.max()) + 1 if group_S.numel() else 0):
        reward_K, rank_K = reward_S[group_S == group], rank_S[group_S == group]
        better, worse = (rank_K[:, None] > rank_K[None, :]).nonzero(as_tuple=True)
        if not better.numel():
            losses.append(reward_K.sum() * 0.0)
            continue
        loss = -logsigmoid(reward_K[better] - reward_K[worse])
        losses.append((loss + centering * (reward_K[better] + reward_K[worse]).square()).mean())
    return torch.stack(losses) if losses else reward_S.new_zeros(0)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) of x < 0, exact near 0 and far from it (Mächler, 2012); x of 0 is taken as the nearest below."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > -0.6931471805599453
    inside = torch.where(near, -torch.expm1(x), -torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, torch.log(torch.where(near, inside, 1.0)), torch.log1p(torch.where(near, -0.5, inside)))
