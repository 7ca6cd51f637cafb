"""`SparseAutoencoder`: encoder, decoder and auxiliary loss of all kinds; a kind's file has its activation and loss."""

# N tokens, D inputs, M latents

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError

AUXILIARY_WEIGHT = 1 / 32
"""Weight of the loss of dead latents (Gao et al., 2024, arXiv:2406.04093, appendix A.2)."""


@dataclass(frozen=True)
class SaeLoss:
    """The loss of a batch, and what it says about the latents."""

    loss: Tensor
    error: Tensor
    """Squared error summed over inputs, mean over tokens."""
    sparsity: Tensor
    """The penalty without its weight; 0 for kinds that fix the number of active latents."""
    fired: Tensor
    """M: tokens on which each latent was active."""
    l0: float
    """Active latents of a token, mean."""


class SparseAutoencoder(nn.Module):
    """x is about decode(encode(x)), with few latents above 0: z = f(W_enc (x - b_dec) + b_enc), x^ = W_dec z + b_dec."""

    kind: ClassVar[str]
    unit_norm: ClassVar[bool] = True
    """Training keeps the decoder's rows at norm 1."""

    def __init__(self, d_in: int, d_sae: int, *, seed: int = 0):
        super().__init__()
        if d_in < 1 or d_sae < 1:
            raise ConfigError(f"an autoencoder of {d_in} inputs and {d_sae} latents came: expected 1 or more of each")
        generator = torch.Generator().manual_seed(seed)
        rows_MD = torch.randn(d_sae, d_in, generator=generator)
        rows_MD = rows_MD / rows_MD.norm(dim=1, keepdim=True)
        self.decoder = nn.Parameter(rows_MD.clone())
        self.encoder = nn.Parameter(rows_MD.clone())  # the transpose of the decoder at first (Gao et al.)
        self.encoder_bias = nn.Parameter(torch.zeros(d_sae))
        self.decoder_bias = nn.Parameter(torch.zeros(d_in))

    @property
    def d_in(self) -> int:
        """Inputs."""
        return self.decoder.shape[1]

    @property
    def d_sae(self) -> int:
        """Latents."""
        return self.decoder.shape[0]

    def settings(self) -> dict[str, float | int | list[int]]:
        """The arguments that make an autoencoder of this kind, besides its sizes."""
        return {}

    def pre_activations(self, x_ND: Tensor) -> Tensor:
        """W_enc (x - b_dec) + b_enc: N M."""
        return torch.addmm(self.encoder_bias, x_ND - self.decoder_bias, self.encoder.T)

    def activate(self, pre_NM: Tensor) -> Tensor:
        """The activation of a trained autoencoder: N M."""
        raise NotImplementedError

    def encode(self, x_ND: Tensor) -> Tensor:
        """Latents, 0 or more: N M. ConfigError for inputs of another width."""
        if x_ND.shape[-1] != self.d_in:
            raise ConfigError(
                f"activations of width {x_ND.shape[-1]} came for an autoencoder of width {self.d_in}: "
                "it was trained on another site or model"
            )
        return self.activate(self.pre_activations(x_ND))

    def decode(self, z_NM: Tensor) -> Tensor:
        """The reconstruction: N D."""
        return torch.addmm(self.decoder_bias, z_NM, self.decoder)

    def forward(self, x_ND: Tensor) -> Tensor:
        """The reconstruction of x: N D."""
        return self.decode(self.encode(x_ND))

    def loss(self, x_ND: Tensor, *, is_dead_M: Tensor, progress: float) -> SaeLoss:
        """The training loss of a batch; `progress` is the share of the run that is done, for penalties that warm up."""
        raise NotImplementedError

    def auxiliary_loss(self, x_ND: Tensor, residual_ND: Tensor, pre_NM: Tensor, is_dead_M: Tensor) -> Tensor:
        """The d/2 strongest dead latents reconstruct what the others left (AuxK, Gao et al.): mean over tokens.

        The gradient of the living latents is theirs alone: the residual is a constant here. 0 without dead latents.
        """
        dead = is_dead_M.nonzero().flatten()
        if not len(dead):
            return x_ND.new_zeros(())
        count = min(len(dead), max(1, self.d_in // 2))
        if pre_NM.requires_grad:
            dead_pre_NM = pre_NM[:, dead]
        else:
            dead_pre_NM = torch.addmm(self.encoder_bias[dead], x_ND - self.decoder_bias.detach(), self.encoder[dead].T)
        top = dead_pre_NM.topk(count, dim=1, sorted=False)
        z_NM = torch.zeros_like(dead_pre_NM).scatter(1, top.indices, top.values.relu())
        error = (residual_ND.detach() - z_NM @ self.decoder[dead]).square().sum(1).mean()
        return torch.nan_to_num(error)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring the decoder's rows back to norm 1, if the kind keeps them there."""
        if self.unit_norm:
            self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp_min(1e-8))

    @torch.no_grad()
    def before_step(self) -> None:
        """Take the part of the decoder's gradient away that would change the norms of its rows."""
        gradient = self.decoder.grad
        if self.unit_norm and gradient is not None:
            gradient -= (gradient * self.decoder).sum(1, keepdim=True) * self.decoder

    @torch.no_grad()
    def fold_scale(self, scale: float) -> None:
        """Take inputs as they are after training on inputs times `scale`; latents keep their values."""
        if not (math.isfinite(scale) and scale > 0):
            raise ConfigError(f"scale is {scale}: expected a number above 0")
        self.encoder.mul_(scale)
        self.decoder.div_(scale)
        self.decoder_bias.div_(scale)


def l0_of(fired_M: Tensor, num_tokens: int) -> float:
    """Active latents of a token, mean."""
    return float(fired_M.sum()) / num_tokens
