"""TopK (Gao et al., 2024, arXiv:2406.04093): each token keeps its k largest latents, so L0 needs no penalty."""

# N tokens, D inputs, M latents, P picks

from __future__ import annotations

import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.interp.saes.sparse_autoencoder import AUXILIARY_WEIGHT, SaeLoss, SparseAutoencoder, l0_of
from firsthand.interp.saes.sparse_products import decoded, encoded, picks_at


class TopKSae(SparseAutoencoder):
    """z = ReLU(TopK(W_enc (x - b_dec) + b_enc)); loss = |x - x^|^2 + AuxK / 32."""

    kind = "topk"

    def __init__(self, d_in: int, d_sae: int, *, k: int = 32, seed: int = 0):
        super().__init__(d_in, d_sae, seed=seed)
        expect_k(k, d_sae)
        self.k = k

    def settings(self) -> dict[str, float | int | list[int]]:
        """The number of latents that a token keeps."""
        return {"k": self.k}

    def activate(self, pre_NM: Tensor) -> Tensor:
        """The k largest of each token, those below 0 as 0: N M."""
        top = pre_NM.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre_NM).scatter(-1, top.indices, top.values.relu())

    def loss(self, x_ND: Tensor, *, is_dead_M: Tensor, progress: float) -> SaeLoss:
        """Squared error and the auxiliary loss; the backward pass touches the rows of active latents alone."""
        with torch.no_grad():
            pre_NM = self.pre_activations(x_ND)
            top = pre_NM.topk(self.k, dim=1, sorted=False)
            flat_P = (top.indices + torch.arange(len(x_ND))[:, None] * self.d_sae)[top.values > 0]
            picks = picks_at(flat_P, len(x_ND), self.d_sae)
            values_P = pre_NM[picks.token, picks.latent]
        z_P = encoded(x_ND - self.decoder_bias, self.encoder, self.encoder_bias, picks, values_P)
        residual_ND = x_ND - decoded(z_P, self.decoder, picks) - self.decoder_bias
        error = residual_ND.square().sum(1).mean()
        auxiliary = self.auxiliary_loss(x_ND, residual_ND, pre_NM, is_dead_M)
        fired_M = torch.bincount(picks.latent, minlength=self.d_sae)
        return SaeLoss(
            error + AUXILIARY_WEIGHT * auxiliary, error.detach(), torch.zeros(()), fired_M, l0_of(fired_M, len(x_ND))
        )


def expect_k(k: int, d_sae: int) -> None:
    """ConfigError if an autoencoder of so many latents cannot keep k of them."""
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= d_sae:
        raise ConfigError(f"k is {k}: expected 1 to the {d_sae} latents there are")
