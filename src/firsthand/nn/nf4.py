"""NF4: frozen weights in 4 bits whose levels are quantiles of a normal distribution (QLoRA, Dettmers et al., 2023).

Weights are cut into blocks of 64, each divided by its largest magnitude (absmax) and rounded to the nearest of 16 levels.
With double quantisation the absmax of 256 blocks share a float32 scale and become 8-bit integers, after their mean is
removed: 4 + 8 / 64 + 32 / (64 * 256) = 4.127 bits per weight. The paper keeps them as 8-bit floats, whose steps are finer
around 0 and coarser elsewhere. Evenly spaced 4-bit levels (`int4`) are there to compare.
"""

# O outputs, K inputs, N rows, W weights, B blocks of 64, G groups of 256 blocks

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.nn.quant import frozen_product

BLOCK, GROUP = 64, 256
"""Weights that share an absmax, and absmax that share a scale."""
Levels = Literal["nf4", "int4"]
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The paper's appendix E: quantiles of N(0, 1), scaled to [-1, 1], with an exact 0."""
INT4 = tuple(level / 7 for level in range(-7, 8))
LEVELS: dict[str, tuple[float, ...]] = {"nf4": NF4, "int4": INT4}


@dataclass(frozen=True, eq=False)
class FourBits:
    """A matrix in 4 bits."""

    shape: tuple[int, int]
    levels: Levels
    codes: Tensor
    """Two per byte, the first in the high half: uint8, W / 2 rounded up to whole blocks."""
    absmax: Tensor
    """int8 with `scales` and `mean` (double quantisation), else float32: B."""
    scales: Tensor | None = None
    """float32: G."""
    mean: Tensor | None = None
    """float32, of all absmax."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(each.nbytes for each in (self.codes, self.absmax, self.scales, self.mean) if each is not None)

    @property
    def bits_per_weight(self) -> float:
        """Bits of storage for each weight of the matrix."""
        return 8 * self.size_bytes / (self.shape[0] * self.shape[1])

    def values(self) -> Tensor:
        """Returns the weights: O K, float32."""
        table = torch.tensor(LEVELS[self.levels], dtype=torch.float32, device=self.codes.device)
        codes = torch.stack((self.codes >> 4, self.codes & 15), dim=-1).reshape(-1, BLOCK)
        values = table[codes.int()] * self.absmax_values()[:, None]
        return values.reshape(-1)[: self.shape[0] * self.shape[1]].reshape(self.shape)

    def absmax_values(self) -> Tensor:
        """Returns the largest magnitude of each block: B, float32."""
        if self.scales is None or self.mean is None:
            return self.absmax
        scales_B = self.scales.repeat_interleave(GROUP)[: len(self.absmax)]
        return self.absmax.float() * scales_B + self.mean


def four_bits(weight_OK: Tensor, *, levels: Levels = "nf4", double: bool = True) -> FourBits:
    """Rounds a matrix to 4 bits per weight, each to the nearest level; `double` quantises the absmax too.

    Raises ConfigError if a weight is not finite.
    """
    if weight_OK.dim() != 2:
        raise ConfigError(f"a tensor of shape {tuple(weight_OK.shape)} came: 4 bits are for matrices")
    flat = weight_OK.detach().float().reshape(-1)
    if not bool(torch.isfinite(flat).all()):
        raise ConfigError("the weights hold values that are no finite numbers: they cannot be rounded to 4 bits")
    blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).reshape(-1, BLOCK)
    absmax_B = blocks.abs().amax(dim=1)
    shape = (weight_OK.shape[0], weight_OK.shape[1])
    packed = FourBits(shape, levels, torch.empty(0), *(_doubly(absmax_B) if double else (absmax_B,)))
    used_B = packed.absmax_values()  # codes make good for the rounding of the absmax
    table = torch.tensor(LEVELS[levels], dtype=torch.float32, device=flat.device)
    middles = (table[1:] + table[:-1]) / 2
    codes = torch.bucketize(blocks / torch.where(used_B > 0, used_B, 1.0)[:, None], middles).to(torch.uint8)
    pairs = codes.reshape(-1, 2)
    return FourBits(shape, levels, pairs[:, 0] << 4 | pairs[:, 1], packed.absmax, packed.scales, packed.mean)


def _doubly(absmax_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The absmax in 8 bits, a scale for each group, and the mean that was removed first."""
    mean = absmax_B.mean()
    spread = nn.functional.pad(absmax_B - mean, (0, -len(absmax_B) % GROUP)).reshape(-1, GROUP)
    scales_G = spread.abs().amax(dim=1) / 127
    codes = torch.round(spread / torch.where(scales_G > 0, scales_G, 1.0)[:, None]).clamp(-127, 127)
    return codes.to(torch.int8).reshape(-1)[: len(absmax_B)], scales_G, mean


class FourBitLinear(nn.Module):
    """A Linear with frozen 4-bit weights; activations keep their dtype, and gradients pass through to the inputs."""

    codes: Tensor
    absmax: Tensor
    scales: Tensor | None
    mean: Tensor | None
    bias: Tensor | None

    def __init__(self, matrix: FourBits, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = matrix.shape
        self.levels: Levels = matrix.levels
        for name in ("codes", "absmax", "scales", "mean"):
            self.register_buffer(name, getattr(matrix, name))
        self.register_buffer("bias", None if bias is None else bias.detach())

    @property
    def matrix(self) -> FourBits:
        """The weights in 4 bits."""
        shape = (self.out_features, self.in_features)
        return FourBits(shape, self.levels, self.codes, self.absmax, self.scales, self.mean)

    @property
    def weight(self) -> Tensor:
        """Dequantises the weights: O K, float32."""
        return self.matrix.values()

    def forward(self, x_NK: Tensor) -> Tensor:
        """Returns x times the dequantised weights plus bias: N O."""
        out_NO = frozen_product(x_NK, self)
        return out_NO if self.bias is None else out_NO + self.bias

    def product(self, x_NK: Tensor) -> Tensor:
        """Returns x times the dequantised weights: N O, in x's dtype."""
        return nn.functional.linear(x_NK, self.weight.to(x_NK.dtype))

    def extra_repr(self) -> str:
        """Sizes for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.levels}"


def to_four_bits(model: nn.Module, names: Collection[str] | None = None, *, levels: Levels = "nf4") -> nn.Module:
    """Replaces float Linears by frozen 4-bit ones in place and returns the model; all of them, or those named."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and (names is None or name in names):
            parent, _, leaf = name.rpartition(".")
            made = FourBitLinear(four_bits(module.weight, levels=levels), module.bias)
            setattr(model.get_submodule(parent), leaf, made)
    return model
