"""The gated feed-forward layer: SwiGLU with silu, GeGLU with gelu (Shazeer, 2020)."""

# N packed tokens, D hidden, F intermediate

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from firsthand.nn.architecture import Activation, Architecture


class MLP(nn.Module):
    """down(activation(gate(x)) * up(x))."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = architecture
        self.activation = a.activation
        self.gate_proj = nn.Linear(a.hidden_size, a.intermediate_size, bias=a.mlp_bias)
        self.up_proj = nn.Linear(a.hidden_size, a.intermediate_size, bias=a.mlp_bias)
        self.down_proj = nn.Linear(a.intermediate_size, a.hidden_size, bias=a.mlp_bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Each token on its own: N D."""
        out_ND: Tensor = self.down_proj(activate(self.gate_proj(x_ND), self.activation) * self.up_proj(x_ND))
        return out_ND


def activate(x_NF: Tensor, activation: Activation) -> Tensor:
    """The gate's activation, value by value."""
    if activation == "silu":
        return functional.silu(x_NF)
    return functional.gelu(x_NF, approximate="tanh" if activation == "gelu_tanh" else "none")
