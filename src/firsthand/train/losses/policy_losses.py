"""Policy-gradient losses per token: PPO's clip and its variants, from log-probs, old log-probs and advantages.

`logprob` is under the policy that is trained, `old` under the same policy at the time of sampling. Where another
distribution was sampled, its ratio is in the advantages (see `importance_weights`). Losses are not averaged here: the sum
over tokens, and what it is divided by, are the caller's.
"""

# N packed tokens that the policy sampled, S sequences

from __future__ import annotations

import torch
from torch import Tensor


def clipped_policy_loss(
    logprob_N: Tensor, old_N: Tensor, advantage_N: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """PPO's clipped surrogate with its sign turned: -min(r A, clip(r, 1 - low, 1 + high) A), N.

    r = exp(logprob - old). Schulman et al. (2017), arXiv:1707.06347, equation 7. GRPO (arXiv:2402.03300, equation 3) has it
    per token; DAPO (arXiv:2503.14476, equation 10) raises `clip_high` alone ("clip-higher", .28).
    """
    ratio_N = (logprob_N - old_N).exp()
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_N * advantage_N, clipped_N * advantage_N)


def cispo_loss(
    logprob_N: Tensor, old_N: Tensor, advantage_N: Tensor, *, clip_low: float = 1.0, clip_high: float = 4.0
) -> Tensor:
    """CISPO: REINFORCE weighted by the clipped ratio without its gradient, so that no token loses its gradient, N.

    -sg(clip(r, 1 - low, 1 + high)) A logprob. MiniMax (2025), arXiv:2506.13585, equations 4 and 5; without a lower bound,
    as there, at `clip_low` 1. TRL's `epsilon_high` is 1 + `clip_high`.
    """
    ratio_N = (logprob_N - old_N).exp().clamp(1 - clip_low, 1 + clip_high)
    return -ratio_N.detach() * advantage_N * logprob_N


def reinforce_loss(logprob_N: Tensor, advantage_N: Tensor) -> Tensor:
    """REINFORCE: -A logprob, N. Williams (1992), equation 11, with whatever baseline the advantages have."""
    return -advantage_N * logprob_N


def sequence_ratio_loss(
    logprob_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    sequence_N: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> Tensor:
    """GSPO: the clipped surrogate with one ratio per sequence, the geometric mean of its tokens' ratios, N.

    s = exp(mean over the sequence of logprob - old). Zheng et al. (2025), arXiv:2507.18071, equations 5 and 7. Each token
    gets its sequence's loss, so that the mean over the tokens of a sequence is that loss. `sequence_N` numbers the
    sequences from 0.
    """
    mean_N = mean_of_sequences(logprob_N - old_N, sequence_N)[sequence_N]
    ratio_N = mean_N.exp()
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_N * advantage_N, clipped_N * advantage_N)


def whole_sequence_loss(
    logprob_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    sequence_N: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Tensor:
    """RLOO as TRL trains it: the clipped surrogate with the ratio of whole answers, the product of tokens' ratios, N.

    Ahmadian et al. (2024), arXiv:2402.14740, section 2.3, is REINFORCE on the log-prob of the whole answer; the clip
    is TRL's. Each token gets its sequence's loss. On policy, its gradient is that of REINFORCE.
    """
    ratio_N = sum_of_sequences(logprob_N - old_N, sequence_N)[sequence_N].exp()
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_N * advantage_N, clipped_N * advantage_N)


def clipped_value_loss(value_N: Tensor, old_value_N: Tensor, return_N: Tensor, *, clip: float | None = 0.2) -> Tensor:
    """PPO's value loss per token, half of the larger squared error of the value and of the clipped value: N.

    0.5 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2), as in OpenAI's baselines and TRL's PPO; arXiv:1707.06347,
    equation 9, has the plain squared error, which `clip=None` gives (halved).
    """
    error_N = (value_N - return_N).square()
    if clip is None:
        return 0.5 * error_N
    near_N = torch.maximum(torch.minimum(value_N, old_value_N + clip), old_value_N - clip)
    return 0.5 * torch.maximum(error_N, (near_N - return_N).square())


def sum_of_sequences(values_N: Tensor, sequence_N: Tensor) -> Tensor:
    """The sum of each sequence's tokens: S."""
    count = int(sequence_N.max()) + 1 if sequence_N.numel() else 0
    return values_N.new_zeros(count).index_add(0, sequence_N, values_N)


def mean_of_sequences(values_N: Tensor, sequence_N: Tensor) -> Tensor:
    """The mean of each sequence's tokens: S; 0 for a number without tokens."""
    sizes_S = sum_of_sequences(torch.ones_like(values_N), sequence_N)
    return sum_of_sequences(values_N, sequence_N) / sizes_S.clamp(min=1)
