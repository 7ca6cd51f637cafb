"""Root-mean-square normalisation (Zhang and Sennrich, 2019)"""

# ... any leading dimensions, D normalised dimension

from __future__ import annotations

import torch
from torch import Tensor, nn

from firsthand.nn.architecture import Architecture


class RMSNorm(nn.Module):
    """x / rms(x) * weight, or with `unit_offset` x / rms(x) * (1 + weight) with the product in float32 (Gemma)."""

    def __init__(self, size: int, eps: float, *, unit_offset: bool = False):
        super().__init__()
        self.eps = eps
        self.unit_offset = unit_offset
        self.weight = nn.Parameter(torch.zeros(size) if unit_offset else torch.ones(size))

    def forward(self, x_D: Tensor) -> Tensor:
        """Normalises over the last dimension in the input's dtype; the mean is computed in float32."""
        wide_D = x_D.float()
        wide_D = wide_D * torch.rsqrt(wide_D.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.unit_offset:
            return (wide_D * (1.0 + self.weight.float())).to(x_D.dtype)
        return self.weight * wide_D.to(x_D.dtype)  # Llama casts before it multiplies; in bfloat16 the order shows


def norm_of(a: Architecture) -> RMSNorm | nn.LayerNorm:
    """A norm of hidden states, of the kind that the architecture has."""
    if a.norm == "rms":
        return RMSNorm(a.hidden_size, a.norm_eps, unit_offset=a.norm_unit_offset)
    return nn.LayerNorm(a.hidden_size, a.norm_eps, bias=a.norm == "layer")
