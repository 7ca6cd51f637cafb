"""JumpReLU (Rajamanoharan et al., 2024, arXiv:2407.14435): a learned threshold for each latent, trained straight through."""

# N tokens, D inputs, M latents

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.interp.saes.sparse_autoencoder import AUXILIARY_WEIGHT, SaeLoss, SparseAutoencoder, l0_of


class JumpReluSae(SparseAutoencoder):
    """z = pre * H(pre - theta); loss = |x - x^|^2 + weight * (|z|_0 / target - 1)^2 (the paper's appendix on a fixed L0).

    H's gradient is that of a rectangle of width `bandwidth` around theta, whose logarithm is learned. The penalty rises over
    the first tenth of the run.
    """

    kind = "jumprelu"
    WARMUP = 0.1

    def __init__(
        self, d_in: int, d_sae: int, *, k: float = 32, weight: float = 1.0, bandwidth: float = 0.1, seed: int = 0
    ):
        super().__init__(d_in, d_sae, seed=seed)
        if not (0 < k <= d_sae and weight >= 0 and bandwidth > 0):
            raise ConfigError(
                f"k is {k}, weight {weight} and bandwidth {bandwidth}: expected a target L0 of at most {d_sae}, a weight of "
                "0 or more, and a width above 0"
            )
        self.k, self.weight, self.bandwidth = k, weight, bandwidth
        self.log_threshold = nn.Parameter(torch.full((d_sae,), 0.1).log())

    def settings(self) -> dict[str, float | int | list[int]]:
        """Target L0, weight of the penalty, and width of the rectangle."""
        return {"k": self.k, "weight": self.weight, "bandwidth": self.bandwidth}

    @property
    def threshold(self) -> Tensor:
        """theta: M."""
        return self.log_threshold.exp()

    def activate(self, pre_NM: Tensor) -> Tensor:
        """The latents above their thresholds: N M."""
        return pre_NM.relu() * (pre_NM > self.threshold)

    def loss(self, x_ND: Tensor, *, is_dead_M: Tensor, progress: float) -> SaeLoss:
        """Squared error, the distance of L0 from its target, and the auxiliary loss."""
        pre_NM = self.pre_activations(x_ND)
        threshold_M = self.threshold
        z_NM = _Jump.apply(pre_NM, threshold_M, self.bandwidth)  # type: ignore[no-untyped-call]
        residual_ND = x_ND - self.decode(z_NM)
        error = residual_ND.square().sum(1).mean()
        l0 = _Step.apply(pre_NM, threshold_M, self.bandwidth).sum(1).mean()  # type: ignore[no-untyped-call]
        penalty = (l0 / self.k - 1).square()
        auxiliary = self.auxiliary_loss(x_ND, residual_ND, pre_NM, is_dead_M)
        fired_M = (z_NM.detach() > 0).sum(0)
        scale = self.weight * min(1.0, progress / self.WARMUP)
        return SaeLoss(
            error + scale * penalty + AUXILIARY_WEIGHT * auxiliary,
            error.detach(), penalty.detach(), fired_M, l0_of(fired_M, len(x_ND)),
        )  # fmt: skip


class _Jump(torch.autograd.Function):
    """pre * H(pre - theta); d/dtheta = -theta / bandwidth inside the rectangle (the paper's eq. 11)."""

    @staticmethod
    def forward(ctx: Any, pre_NM: Tensor, threshold_M: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre_NM, threshold_M)
        ctx.bandwidth = bandwidth
        return pre_NM.relu() * (pre_NM > threshold_M)

    @staticmethod
    def backward(ctx: Any, grad_NM: Tensor) -> Any:
        pre_NM, threshold_M = ctx.saved_tensors
        near_NM = (pre_NM - threshold_M).abs() < ctx.bandwidth / 2
        to_threshold_M = (grad_NM * near_NM).sum(0) * (-threshold_M / ctx.bandwidth)
        return grad_NM * (pre_NM > threshold_M), to_threshold_M, None


class _Step(torch.autograd.Function):
    """H(pre - theta); d/dtheta = -1 / bandwidth inside the rectangle, and nothing for pre (eq. 12)."""

    @staticmethod
    def forward(ctx: Any, pre_NM: Tensor, threshold_M: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre_NM, threshold_M)
        ctx.bandwidth = bandwidth
        return (pre_NM > threshold_M).to(pre_NM.dtype)

    @staticmethod
    def backward(ctx: Any, grad_NM: Tensor) -> Any:
        pre_NM, threshold_M = ctx.saved_tensors
        near_NM = (pre_NM - threshold_M).abs() < ctx.bandwidth / 2
        return None, (grad_NM * near_NM).sum(0) * (-1 / ctx.bandwidth), None
