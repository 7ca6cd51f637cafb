"""The gated feed-forward layer: SwiGLU with silu, GeGLU with gelu (Shazeer, 2020)."""

# N packed tokens, D hidden, F intermediate

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from firsthand.nn.architecture import Activation, Architecture
from firsthand.nn.blocks.projections import add_projections
from firsthand.nn.matrices import GATED_MLP
from firsthand.nn.sites import TapFunction


class MLP(nn.Module):
    """down(activation(gate(x)) * up(x))."""

    MATRICES = GATED_MLP
    SITES = ("act",)
    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.activation = architecture.activation
        add_projections(self, self.MATRICES, architecture)

    def forward(self, x_ND: Tensor, tap: TapFunction | None = None) -> Tensor:
        """Transforms each token on its own: N D."""
        act_NF = activate(self.gate_proj(x_ND), self.activation) * self.up_proj(x_ND)
        if tap is not None:
            act_NF = tap("act", act_NF)
        out_ND: Tensor = self.down_proj(act_NF)
        return out_ND


def activate(x_NF: Tensor, activation: Activation) -> Tensor:
    """Applies the gate's activation to each value."""
    if activation == "silu":
        return functional.silu(x_NF)
    return functional.gelu(x_NF, approximate="tanh" if activation == "gelu_tanh" else "none")
