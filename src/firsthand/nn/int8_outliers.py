"""LLM.int8: products in 8 bits, but for the input features that hold outliers (Dettmers et al., 2022, arXiv:2208.07339).

Weights have a scale for each output and activations one for each token, so that a product of whole numbers is multiplied by
both. A few features of large models are far above the others and would leave them no bits: those of magnitude `threshold`
or more in any token are multiplied in floats, by dequantised weights.
"""

# N tokens, O outputs, K inputs, F features with outliers

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.nn.quant import frozen_product

THRESHOLD = 6.0
"""The paper's: from it on features matter for perplexity."""


class OutlierLinear(nn.Module):
    """A Linear with frozen 8-bit weights and mixed-precision products; gradients pass through to the inputs."""

    codes: Tensor
    """O K, int8."""
    scales: Tensor
    """O, float32: largest magnitude of a row / 127."""
    bias: Tensor | None

    def __init__(self, weight_OK: Tensor, bias: Tensor | None, *, threshold: float = THRESHOLD):
        super().__init__()
        wide_OK = weight_OK.detach().float()
        if not bool(torch.isfinite(wide_OK).all()):
            raise ConfigError("the weights hold values that are no finite numbers: they cannot be rounded to 8 bits")
        self.out_features, self.in_features = weight_OK.shape
        self.threshold = threshold
        scales_O = wide_OK.abs().amax(1) / 127
        self.register_buffer("codes", (wide_OK / scales_O.clamp(min=1e-30)[:, None]).round().to(torch.int8))
        self.register_buffer("scales", scales_O)
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    @property
    def weight(self) -> Tensor:
        """Dequantises the weights: O K, float32."""
        return self.codes.float() * self.scales[:, None]

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights and their scales."""
        return self.codes.nbytes + self.scales.nbytes

    def forward(self, x_NK: Tensor) -> Tensor:
        """Returns x times the weights plus bias: N O."""
        out_NO = frozen_product(x_NK, self)
        return out_NO if self.bias is None else out_NO + self.bias

    def product(self, x_NK: Tensor) -> Tensor:
        """Returns x times the weights, without gradient: N O, in x's dtype."""
        rows_NK = x_NK.detach().reshape(-1, self.in_features).float()
        outliers_K = (rows_NK.abs() >= self.threshold).any(0)
        features = outliers_K.nonzero()[:, 0]
        plain_NK = rows_NK.masked_fill(outliers_K, 0.0)
        scales_N = plain_NK.abs().amax(1) / 127
        codes_NK = (plain_NK / scales_N.clamp(min=1e-30)[:, None]).round().to(torch.int8)
        # float64 holds every sum of products of bytes; torch has no such product of int8 on every CPU
        whole_NO = (codes_NK.double() @ self.codes.double().T).float()
        out_NO = whole_NO * scales_N[:, None] * self.scales
        if len(features):
            out_NO += rows_NK[:, features] @ (self.codes[:, features].float() * self.scales[:, None]).T
        return out_NO.to(x_NK.dtype).reshape(*x_NK.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, outliers from {self.threshold:g}"


def to_int8_outliers(
    model: nn.Module, names: Collection[str] | None = None, *, threshold: float = THRESHOLD
) -> nn.Module:
    """Replaces the Linears of blocks by 8-bit ones in place and returns the model; all of them, or those named.

    The head stays as it is, as in the paper's models.
    """
    for name, module in list(model.named_modules()):
        wanted = name.startswith("layers.") if names is None else name in names
        if isinstance(module, nn.Linear) and wanted:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, OutlierLinear(module.weight, module.bias, threshold=threshold))
    return model
