"""The two arithmetics of a compiled encoder: matrix tiles of split bfloat16 numbers, and 16-bit integers.

Both hold rows and weights in layouts of their own, and compute the encoder's products and attention from them.
"""

# N rows, O outputs, K inputs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firsthand.errors import ConfigError

Floats = NDArray[np.float32]
Precision = Literal["float32", "bfloat16"]
"""Precision of products: as near to float32 as the kernels come, or bfloat16 where that is faster."""
BLOCK = 32
"""Inputs that share a scale, as in `kernels/products/int16_products.py`."""
_LINE = 64
"""Bytes of a cache line: a tile that straddles lines loads at half the speed."""


@dataclass(frozen=True)
class EncoderProduct:
    """The weights of one product."""

    numbers: NDArray[Any]
    """Panels of 32 outputs, in the order in which the kernels read them."""
    scales: Floats
    """The scale of each output's weights; empty if they need none."""
    bias: Floats
    inputs: int
    outputs: int


@dataclass(frozen=True)
class EncoderRows:
    """Rows that are multiplied: numbers in the kernels' order, and the scale of each block; no scales for tiles."""

    numbers: NDArray[np.int16]
    scales: Floats


class Arithmetic(Protocol):
    """Rounds weights and rows, and multiplies them."""

    name: str
    rows: int
    """The number of rows is a multiple of this."""

    def pack(self, weight_OK: Tensor, bias_O: Tensor) -> EncoderProduct:
        """Returns weights as the kernels read them."""
        ...

    def empty(self, rows: int, width: int) -> EncoderRows:
        """Returns room for rows of zeros."""
        ...

    def round(self, values: Floats, rows: int, width: int, into: EncoderRows) -> None:
        """Writes float32 rows as the kernels read them."""
        ...

    def multiply(self, x: EncoderRows, by: EncoderProduct, rows: int, out: Floats) -> None:
        """Writes x times weights plus bias: N O."""
        ...

    def attend(
        self, x: EncoderRows, qkv: EncoderProduct, starts: NDArray[np.int64], counts: NDArray[np.int64], heads: int,
        rows: int, into: EncoderRows,
    ) -> None:  # fmt: skip
        """Writes the attention of each token over its own text; x times weights are queries, keys and values."""
        ...

    def mlp(self, x: EncoderRows, up: EncoderProduct, down: EncoderProduct, rows: int, out: Floats) -> None:
        """Writes gelu(x times `up` plus bias) times `down` plus bias: N O."""
        ...


class Tiles:
    """Matrix tiles (AMX): each number is the sum of two bfloat16 ones, within 2 ** -16 of float32, or with one part, one."""

    rows = 16

    def __init__(self, parts: Literal[1, 2] = 2) -> None:
        from firsthand.kernels.products.amx_products import has_tiles

        if not has_tiles():  # its instructions would end the process
            raise ConfigError("this machine has no matrix tiles (AMX), or they are not allowed: use Shorts")
        self.parts = parts
        self.name = "bfloat16 pairs" if parts == 2 else "bfloat16"

    def pack(self, weight_OK: Tensor, bias_O: Tensor) -> EncoderProduct:
        """Returns panels of 32 outputs; in each, for every 32 inputs, two tiles of high parts, then the low ones."""
        outputs, inputs = weight_OK.shape
        weight = weight_OK.detach().float()
        high = weight.bfloat16()
        low = (weight - high.float()).bfloat16()
        parts = torch.stack([high, low][: self.parts]).view(torch.int16)
        # part, panel, half, output, step, pair, 2 -> panel, step, part, half, pair, output, 2
        tiles = parts.reshape(self.parts, outputs // 32, 2, 16, inputs // 32, 16, 2).permute(1, 4, 0, 2, 5, 3, 6)
        numbers = aligned(self.parts * outputs * inputs, np.int16)
        numbers[:] = tiles.reshape(-1).numpy()
        return EncoderProduct(numbers, np.zeros(0, np.float32), flat(bias_O), inputs, outputs)

    def empty(self, rows: int, width: int) -> EncoderRows:
        """Returns room for rows of zeros."""
        return EncoderRows(aligned(self.parts * rows * width, np.int16), np.zeros(0, np.float32))

    def round(self, values: Floats, rows: int, width: int, into: EncoderRows) -> None:
        """Writes float32 rows as tiles."""
        from firsthand.kernels.products import amx_products

        amx_products.round_rows(values, rows, width, into.numbers, self.parts)

    def multiply(self, x: EncoderRows, by: EncoderProduct, rows: int, out: Floats) -> None:
        """Writes x times weights plus bias: N O."""
        from firsthand.kernels.products import amx_products

        amx_products.products(x.numbers, by.numbers, by.bias, rows, by.inputs, by.outputs, out, self.parts)

    def attend(
        self, x: EncoderRows, qkv: EncoderProduct, starts: NDArray[np.int64], counts: NDArray[np.int64], heads: int,
        rows: int, into: EncoderRows,
    ) -> None:  # fmt: skip
        """Writes the attention of each token over its own text."""
        from firsthand.kernels.step import amx_attention

        head_dim = qkv.inputs // heads
        one_head = aligned(3 * rows * head_dim, np.float32)
        amx_attention.attend(
            x.numbers, qkv.numbers, qkv.bias, starts, counts, heads, head_dim, np.float32(head_dim**-0.5), rows,
            one_head, into.numbers, self.parts,
        )  # fmt: skip

    def mlp(self, x: EncoderRows, up: EncoderProduct, down: EncoderProduct, rows: int, out: Floats) -> None:
        """Writes gelu(x times `up` plus bias) times `down` plus bias: N O."""
        from firsthand.kernels.products import amx_products

        wide = aligned(self.parts * rows * amx_products.wide_steps(up.outputs) * amx_products.STEP, np.int16)
        sums = aligned(2 * amx_products.ROWS * amx_products.PANEL, np.float32)
        amx_products.mlp(
            x.numbers,
            up.numbers,
            up.bias,
            down.numbers,
            down.bias,
            rows,
            up.inputs,
            up.outputs,
            wide,
            sums,
            out,
            self.parts,
        )


class Shorts:
    """16-bit integers with a scale for every 32 inputs, for AVX-512 VNNI; attention in float32."""

    name = "int16"
    rows = 6

    def pack(self, weight_OK: Tensor, bias_O: Tensor) -> EncoderProduct:
        """Returns 16-bit weights with one scale per output such that no block of 32 can overflow.

        In each panel of 32 outputs, for every two inputs, stand 32 pairs of numbers.
        """
        outputs, inputs = weight_OK.shape
        weight = weight_OK.detach().double()
        lengths = weight.reshape(outputs, -1, BLOCK).norm(dim=-1).amax(1)
        scales = torch.minimum(46336.0 / lengths.clamp_min(1e-30), 32767.0 / weight.abs().amax(1).clamp_min(1e-30))
        codes = torch.round(weight * scales[:, None]).to(torch.int16)
        panels = codes.reshape(outputs // 32, 32, inputs // 2, 2).transpose(1, 2).contiguous()
        pairs = panels.numpy().reshape(-1).view(np.int32)
        return EncoderProduct(pairs, flat(1 / scales), flat(bias_O), inputs, outputs)

    def empty(self, rows: int, width: int) -> EncoderRows:
        """Returns room for rows of zeros."""
        return EncoderRows(np.zeros(rows * width, np.int16), np.zeros(rows * (width // BLOCK), np.float32))

    def round(self, values: Floats, rows: int, width: int, into: EncoderRows) -> None:
        """Writes float32 rows as 16-bit numbers with a scale for each block."""
        from firsthand.kernels.products import int16_products

        int16_products.round_rows(values, rows, width, into.numbers, into.scales)

    def multiply(self, x: EncoderRows, by: EncoderProduct, rows: int, out: Floats) -> None:
        """Writes x times weights plus bias: N O."""
        self._multiply(x, by, rows, out, 32, by.outputs)

    def attend(
        self, x: EncoderRows, qkv: EncoderProduct, starts: NDArray[np.int64], counts: NDArray[np.int64], heads: int,
        rows: int, into: EncoderRows,
    ) -> None:  # fmt: skip
        """Writes the attention of each token over its own text."""
        from firsthand.kernels.step import encoder_ops

        width, head_dim = qkv.inputs, qkv.inputs // heads
        panels, mixed = np.empty(rows * qkv.outputs, np.float32), np.zeros(rows * width, np.float32)
        self._multiply(x, qkv, rows, panels, 32 * rows, 32)
        encoder_ops.attend(panels, starts, counts, heads, head_dim, np.float32(head_dim**-0.5), 32 * rows, mixed)
        self.round(mixed, rows, width, into)

    def mlp(self, x: EncoderRows, up: EncoderProduct, down: EncoderProduct, rows: int, out: Floats) -> None:
        """Writes gelu(x times `up` plus bias) times `down` plus bias: N O."""
        from firsthand.kernels.products import int16_products

        wide = self.empty(rows, up.outputs)
        int16_products.gelu_products(
            x.numbers.view(np.int32), x.scales, up.numbers, up.scales, up.bias, rows, up.inputs, up.outputs,
            wide.numbers, wide.scales,
        )  # fmt: skip
        self.multiply(wide, down, rows, out)

    def _multiply(self, x: EncoderRows, by: EncoderProduct, rows: int, out: Floats, aside: int, line: int) -> None:
        """Panels of 32 outputs lie `aside` numbers apart in `out`, the rows of a panel `line`."""
        from firsthand.kernels.products import int16_products

        int16_products.products(
            x.numbers.view(np.int32), x.scales, by.numbers, by.scales, by.bias, rows, by.inputs, by.outputs,
            out, aside, line,
        )  # fmt: skip


def flat(values: Tensor) -> Floats:
    """Returns a tensor's numbers as a flat float32 array."""
    numbers: Floats = values.detach().float().contiguous().numpy().reshape(-1)
    return numbers


def aligned(count: int, dtype: Any) -> NDArray[Any]:
    """Returns zeros that begin at a cache line."""
    size = np.dtype(dtype).itemsize
    raw = np.zeros(count + _LINE // size, dtype)
    skipped = -raw.ctypes.data % _LINE // size
    return raw[skipped : skipped + count]
