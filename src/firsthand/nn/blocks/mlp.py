"""Feed-forward layers: gated ones (SwiGLU with silu, GeGLU with gelu; Shazeer, 2020), and plain ones (ReLU, GELU, SoLU)."""

# N packed tokens, D hidden, F intermediate

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from firsthand.nn.architecture import Activation, Architecture
from firsthand.nn.blocks.projections import add_projections
from firsthand.nn.matrices import GATED_MLP, PLAIN_MLP
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
        self.activation, self.limit = architecture.activation, architecture.activation_limit
        add_projections(self, self.MATRICES, architecture)

    def forward(self, x_ND: Tensor, tap: TapFunction | None = None) -> Tensor:
        """Transforms each token on its own: N D."""
        if self.activation == "clamped_silu":
            act_NF = clamped_silu(self.gate_proj(x_ND), self.up_proj(x_ND), self.limit)
        else:
            act_NF = activate(self.gate_proj(x_ND), self.activation) * self.up_proj(x_ND)
        if tap is not None:
            act_NF = tap("act", act_NF)
        out_ND: Tensor = self.down_proj(act_NF)
        return out_ND


class PlainMLP(nn.Module):
    """down(activation(up(x))), as in the Transformer of 2017 and GPT-2."""

    MATRICES = PLAIN_MLP
    SITES = ("act",)
    up_proj: nn.Linear
    down_proj: nn.Linear

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.activation = architecture.activation
        add_projections(self, self.MATRICES, architecture)

    def forward(self, x_ND: Tensor, tap: TapFunction | None = None) -> Tensor:
        """Transforms each token on its own: N D."""
        act_NF = activate(self.up_proj(x_ND), self.activation)
        if tap is not None:
            act_NF = tap("act", act_NF)
        out_ND: Tensor = self.down_proj(act_NF)
        return out_ND


def mlp_of(architecture: Architecture) -> MLP | PlainMLP:
    """The MLP of an architecture, of `intermediate_size`."""
    return MLP(architecture) if architecture.is_gated else PlainMLP(architecture)


def activate(x_NF: Tensor, activation: Activation) -> Tensor:
    """Applies the activation to each value; `solu` multiplies by a softmax over each token (Elhage et al., 2022)."""
    if activation == "silu":
        return functional.silu(x_NF)
    if activation == "relu":
        return functional.relu(x_NF)
    if activation == "solu":
        return x_NF * x_NF.softmax(-1)
    assert activation != "clamped_silu", "it has two inputs"
    return functional.gelu(x_NF, approximate="tanh" if activation == "gelu_tanh" else "none")


def clamped_silu(gate_NF: Tensor, up_NF: Tensor, limit: float) -> Tensor:
    """(up + 1) * gate * sigmoid(1.702 gate), both clamped first, the gate from above alone (gpt-oss)."""
    gate_NF, up_NF = gate_NF.clamp(max=limit), up_NF.clamp(-limit, limit)
    return (up_NF + 1) * (gate_NF * torch.sigmoid(1.702 * gate_NF))
