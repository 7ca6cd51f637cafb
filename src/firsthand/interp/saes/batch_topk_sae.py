"""BatchTopK (Bussmann et al., 2024, arXiv:2412.06410): a batch keeps its k x N largest latents, so tokens share a budget."""

# N tokens, D inputs, M latents, P picks

from __future__ import annotations

import torch
from torch import Tensor

from firsthand.interp.saes.sparse_autoencoder import AUXILIARY_WEIGHT, SaeLoss, SparseAutoencoder, l0_of
from firsthand.interp.saes.sparse_products import Picks, decoded, encoded, picks_at
from firsthand.interp.saes.topk_sae import expect_k


class BatchTopKSae(SparseAutoencoder):
    """z = the k x N largest of max(0, W_enc (x - b_dec) + b_enc) over a batch; loss = |x - x^|^2 + AuxK / 32.

    A trained one looks at each token alone: latents above a threshold, the running mean of the batches' smallest kept value.
    """

    kind = "batch_topk"
    MOMENTUM = 0.9

    def __init__(self, d_in: int, d_sae: int, *, k: int = 32, seed: int = 0):
        super().__init__(d_in, d_sae, seed=seed)
        expect_k(k, d_sae)
        self.k = k
        self.register_buffer("threshold", torch.tensor(-1.0))
        self.threshold: Tensor

    def settings(self) -> dict[str, float | int | list[int]]:
        """The mean number of latents that a token keeps."""
        return {"k": self.k}

    def activate(self, pre_NM: Tensor) -> Tensor:
        """The latents above the threshold: N M."""
        return pre_NM.relu() * (pre_NM > self.threshold)

    def chosen(self, x_ND: Tensor) -> tuple[Picks, Tensor, Tensor]:
        """The picks of a batch, their values P, and all pre-activations N M, without gradient; moves the threshold."""
        with torch.no_grad():
            pre_NM = self.pre_activations(x_ND)
            flat = pre_NM.flatten()
            count = min(self.k * len(x_ND), flat.numel())
            above = candidates(flat, self.threshold)
            if len(above) < count:
                above = torch.arange(flat.numel())
            top = flat[above].topk(count, sorted=False)
            flat_P = above[top.indices][top.values > 0]
            picks = picks_at(flat_P, len(x_ND), self.d_sae)
            smallest = top.values.min().clamp_min(0)
            is_first = bool(self.threshold < 0)
            self.threshold.copy_(smallest if is_first else torch.lerp(smallest, self.threshold, self.MOMENTUM))
            return picks, pre_NM[picks.token, picks.latent], pre_NM

    def loss(self, x_ND: Tensor, *, is_dead_M: Tensor, progress: float) -> SaeLoss:
        """Squared error and the auxiliary loss; the backward pass touches the rows of active latents alone."""
        picks, values_P, pre_NM = self.chosen(x_ND)
        z_P = encoded(x_ND - self.decoder_bias, self.encoder, self.encoder_bias, picks, values_P)
        residual_ND = x_ND - decoded(z_P, self.decoder, picks) - self.decoder_bias
        error = residual_ND.square().sum(1).mean()
        auxiliary = self.auxiliary_loss(x_ND, residual_ND, pre_NM, is_dead_M)
        fired_M = torch.bincount(picks.latent, minlength=self.d_sae)
        return SaeLoss(
            error + AUXILIARY_WEIGHT * auxiliary, error.detach(), torch.zeros(()), fired_M, l0_of(fired_M, len(x_ND))
        )


def candidates(flat: Tensor, threshold: Tensor) -> Tensor:
    """Places that may be among the largest: those above most of the last threshold, which are few and quick to sort."""
    return (flat > threshold * 0.8).nonzero().flatten()
