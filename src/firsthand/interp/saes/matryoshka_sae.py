"""Matryoshka BatchTopK (Bussmann et al., 2025, arXiv:2503.17547): every prefix of the latents reconstructs on its own."""

# N tokens, D inputs, M latents, P picks

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.interp.saes.batch_topk_sae import BatchTopKSae
from firsthand.interp.saes.sparse_autoencoder import AUXILIARY_WEIGHT, SaeLoss, l0_of
from firsthand.interp.saes.sparse_products import Picks, decoded, encoded


class MatryoshkaSae(BatchTopKSae):
    """Loss = the mean over widths m of |x - x^_m|^2, x^_m from the first m latents, + AuxK / 32.

    A general feature cannot be absorbed by specific ones: narrow prefixes must reconstruct without them.
    """

    kind = "matryoshka"

    def __init__(self, d_in: int, d_sae: int, *, k: int = 32, widths: Sequence[int] = (), seed: int = 0):
        """`widths` rise and end with all latents; by default an eighth, a quarter, a half and all."""
        super().__init__(d_in, d_sae, k=k, seed=seed)
        chosen = list(widths) or sorted({max(1, d_sae // part) for part in (8, 4, 2, 1)})
        if chosen != sorted(set(chosen)) or chosen[0] < 1 or chosen[-1] != d_sae:
            raise ConfigError(f"widths are {chosen}: expected rising numbers of latents that end with {d_sae}")
        self.widths = chosen

    def settings(self) -> dict[str, float | int | list[int]]:
        """The mean number of latents that a token keeps, and the nested widths."""
        return {"k": self.k, "widths": self.widths}

    def loss(self, x_ND: Tensor, *, is_dead_M: Tensor, progress: float) -> SaeLoss:
        """The mean of the prefixes' squared errors, and the auxiliary loss on what the whole dictionary left."""
        picks, values_P, pre_NM = self.chosen(x_ND)
        z_P = encoded(x_ND - self.decoder_bias, self.encoder, self.encoder_bias, picks, values_P)
        left_ND = x_ND - self.decoder_bias
        errors, start = [], 0
        for width in self.widths:  # the part of the latents from one width to the next is decoded once
            inside_P = (picks.latent >= start) & (picks.latent < width)
            part = Picks(picks.token[inside_P], picks.latent[inside_P], picks.num_tokens, picks.num_latents)
            left_ND = left_ND - decoded(z_P[inside_P], self.decoder, part)
            errors.append(left_ND.square().sum(1).mean())
            start = width
        auxiliary = self.auxiliary_loss(x_ND, left_ND, pre_NM, is_dead_M)
        fired_M = torch.bincount(picks.latent, minlength=self.d_sae)
        loss = torch.stack(errors).mean() + AUXILIARY_WEIGHT * auxiliary
        return SaeLoss(loss, errors[-1].detach(), torch.zeros(()), fired_M, l0_of(fired_M, len(x_ND)))
