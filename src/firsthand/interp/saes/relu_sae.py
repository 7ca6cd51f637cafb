"""ReLU with an L1 penalty: the first recipe (Bricken et al., 2023), with the penalty of Anthropic's update of April 2024."""

# N tokens, D inputs, M latents

from __future__ import annotations

import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.interp.saes.sparse_autoencoder import AUXILIARY_WEIGHT, SaeLoss, SparseAutoencoder, l0_of


class ReluSae(SparseAutoencoder):
    """z = ReLU(W_enc (x - b_dec) + b_enc); loss = |x - x^|^2 + l1 sum_i z_i |W_dec_i|.

    The penalty counts a latent times its decoder's norm, so that growing decoders do not evade it, and norms are free. It
    rises over the first twentieth of the run.
    """

    kind = "relu"
    unit_norm = False
    WARMUP = 0.05

    def __init__(self, d_in: int, d_sae: int, *, l1: float = 5.0, seed: int = 0):
        super().__init__(d_in, d_sae, seed=seed)
        if not 0 <= l1 < float("inf"):
            raise ConfigError(f"l1 is {l1}: expected 0 or more")
        self.l1 = l1

    def settings(self) -> dict[str, float | int | list[int]]:
        """The weight of the penalty."""
        return {"l1": self.l1}

    def activate(self, pre_NM: Tensor) -> Tensor:
        """max(0, pre): N M."""
        return pre_NM.relu()

    def loss(self, x_ND: Tensor, *, is_dead_M: Tensor, progress: float) -> SaeLoss:
        """Squared error, L1 of the latents' contributions, and the auxiliary loss."""
        pre_NM = self.pre_activations(x_ND)
        z_NM = self.activate(pre_NM)
        residual_ND = x_ND - self.decode(z_NM)
        error = residual_ND.square().sum(1).mean()
        penalty = (z_NM * self.decoder.norm(dim=1)).sum(1).mean()
        auxiliary = self.auxiliary_loss(x_ND, residual_ND, pre_NM, is_dead_M)
        weight = self.l1 * min(1.0, progress / self.WARMUP)
        fired_M = (z_NM.detach() > 0).sum(0)
        loss = error + weight * penalty + AUXILIARY_WEIGHT * auxiliary
        return SaeLoss(loss, error.detach(), penalty.detach(), fired_M, l0_of(fired_M, len(x_ND)))

    @torch.no_grad()
    def normalised(self) -> None:
        """Move each decoder row's norm into the encoder; the reconstruction stays, and latents are comparable."""
        norm_M = self.decoder.norm(dim=1).clamp_min(1e-8)
        self.decoder.div_(norm_M[:, None])
        self.encoder.mul_(norm_M[:, None])
        self.encoder_bias.mul_(norm_M)
