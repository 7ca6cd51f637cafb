"""Estimators of KL(policy || reference) from log-probs of tokens that the policy sampled.

Schulman (2020), "Approximating KL divergence": k1 is unbiased and may be negative, k2 is biased and has low variance, k3 is
unbiased and never negative. As a loss they differ: the gradient of k1's mean is 0 in expectation, that of k2 is the
gradient of the KL, and that of k3 is the gradient of the reverse KL near the reference (Tang & Munos, 2025,
arXiv:2506.09477), which is why KL enters PPO's reward as k1 and GRPO's loss as k3.
"""

# N packed tokens that the policy sampled

from __future__ import annotations

from torch import Tensor


def k1(logprob_N: Tensor, reference_N: Tensor) -> Tensor:
    """log(pi / ref): unbiased, N."""
    return logprob_N - reference_N


def k2(logprob_N: Tensor, reference_N: Tensor) -> Tensor:
    """Half of log(pi / ref) squared: biased, N."""
    return 0.5 * (logprob_N - reference_N).square()


def k3(logprob_N: Tensor, reference_N: Tensor) -> Tensor:
    """ref / pi - 1 - log(ref / pi): unbiased and never negative, N. GRPO, arXiv:2402.03300, equation 4."""
    log_ratio_N = reference_N - logprob_N
    return log_ratio_N.expm1() - log_ratio_N
