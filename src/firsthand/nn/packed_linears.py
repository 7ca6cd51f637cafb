"""Matrices packed in 32-bit integers, as AutoGPTQ and AWQ save them in safetensors: read to floats, and written.

A weight is scale * (code - zero), with a scale and a zero for each output and group of inputs. Matrices lie transposed:

| tensor | GPTQ | AWQ |
|---|---|---|
| `qweight` | K * bits / 32, O: inputs share an integer, the first lowest | K, O / 8: outputs share one, in `_ORDER` |
| `qzeros` | G, O * bits / 32, less one in format v1 | G, O / 8, in the same order |
| `scales` | G, O | G, O |
| `g_idx` | K: each input's group; files without it count them in order | |
"""

# O outputs, K inputs, G groups of inputs

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from firsthand.errors import ModelFileError
from firsthand.nn.packed_format import PackedFormat, packed_shape

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def unpack(read: Callable[[str], Tensor | None], of: PackedFormat, name: str) -> Tensor:
    """Returns a packed matrix as floats: O K. `read` gives one of `PARTS` by its name, None if there is none."""
    codes, zeros, scales_GO = read("qweight"), read("qzeros"), read("scales")
    if codes is None or zeros is None or scales_GO is None:
        raise ModelFileError(f"{name} is packed and lacks its qweight, qzeros or scales")
    outputs, inputs = packed_shape(tuple(codes.shape), of)
    group = inputs if of.group == -1 else of.group
    groups = -(-inputs // group)
    each = 32 // of.bits
    if tuple(scales_GO.shape) != (groups, outputs) or tuple(zeros.shape) != (groups, outputs // each):
        raise ModelFileError(
            f"{name} has scales of shape {tuple(scales_GO.shape)} and zeros of {tuple(zeros.shape)}: expected "
            f"{(groups, outputs)} and {(groups, outputs // each)} for groups of {group}"
        )
    codes_KO = _split(codes, of, rows=of.method == "gptq")
    zeros_GO = (_split(zeros, of, rows=False) + of.zero_offset) & ((1 << of.bits) - 1)
    index_K = read("g_idx")
    if index_K is None:
        index_K = torch.arange(inputs) // group
    if tuple(index_K.shape) != (inputs,) or int(index_K.min()) < 0 or int(index_K.max()) >= groups:
        raise ModelFileError(
            f"{name} has a g_idx that names groups outside 0 to {groups - 1}, or not one for each input"
        )
    chosen = index_K.long()
    return ((codes_KO - zeros_GO[chosen]).float() * scales_GO.float()[chosen]).T.contiguous()


def _split(packed: Tensor, of: PackedFormat, *, rows: bool) -> Tensor:
    """The codes of 32-bit integers, along rows or columns."""
    each = 32 // of.bits
    order = _ORDER if of.method == "awq" else tuple(range(each))
    places = [order.index(position) for position in range(each)]
    wide = packed.long() & 0xFFFFFFFF
    parts = torch.stack([(wide >> (of.bits * place)) & ((1 << of.bits) - 1) for place in places], dim=1 if rows else 2)
    return parts.reshape(-1, packed.shape[1]) if rows else parts.reshape(packed.shape[0], -1)


def _join(codes: Tensor, of: PackedFormat, *, rows: bool) -> Tensor:
    """The reverse of `_split`."""
    each = 32 // of.bits
    order = _ORDER if of.method == "awq" else tuple(range(each))
    parts = codes.reshape(-1, each, codes.shape[1]) if rows else codes.reshape(codes.shape[0], -1, each)
    wide = torch.zeros_like(parts.select(1 if rows else 2, 0), dtype=torch.long)
    for place, position in enumerate(order):
        wide |= parts.select(1 if rows else 2, position).long() << (of.bits * place)
    return torch.from_numpy(wide.numpy().astype(np.uint32).view(np.int32))


@dataclass(frozen=True, eq=False)
class RoundedMatrix:
    """A matrix as codes, with a scale and a zero for each output and group of inputs."""

    codes: Tensor
    """O K, each below 2 ** bits."""
    scales: Tensor
    """O G, float32 with the values of float16."""
    zeros: Tensor
    """O G, whole numbers."""

    def values(self) -> Tensor:
        """The weights: O K, float32."""
        size = self.codes.shape[1] // self.scales.shape[1]
        scales, zeros = (each.repeat_interleave(size, dim=1) for each in (self.scales, self.zeros))
        return (self.codes.float() - zeros) * scales

    def tensors(self, of: PackedFormat) -> dict[str, Tensor]:
        """The tensors of a file, by the last part of their names."""
        saved = (self.zeros.long() - of.zero_offset) & ((1 << of.bits) - 1)
        inputs, groups = self.codes.shape[1], self.scales.shape[1]
        index_K = (torch.arange(inputs) // (inputs // groups)).int()  # packages' readers expect it, reordered or not
        return {
            "qweight": _join(self.codes.T.contiguous(), of, rows=of.method == "gptq"),
            "qzeros": _join(saved.T.contiguous(), of, rows=False),
            "scales": self.scales.T.contiguous().half(),
            **({"g_idx": index_K} if of.method == "gptq" else {}),
        }


def rows_joined(parts: Sequence[RoundedMatrix]) -> RoundedMatrix:
    """The matrix with the rows of these one after another, as fused projections lie in a file."""
    codes, scales, zeros = zip(*((each.codes, each.scales, each.zeros) for each in parts), strict=True)
    return RoundedMatrix(torch.cat(codes), torch.cat(scales), torch.cat(zeros))


def round_groups(weight_OK: Tensor, bits: int, group: int) -> RoundedMatrix:
    """Rounds each group of a row between its smallest and largest weight, 0 included."""
    scales, zeros = group_grid(weight_OK, bits, group)
    spread = weight_OK.reshape(len(weight_OK), -1, group) / scales[:, :, None] + zeros[:, :, None]
    return RoundedMatrix(spread.round().clamp(0, 2**bits - 1).flatten(1).to(torch.uint8), scales, zeros)


def group_grid(weight_OK: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """The scale and zero of each group: O G."""
    parts = weight_OK.reshape(len(weight_OK), -1, group)
    low, high = parts.amin(2).clamp(max=0), parts.amax(2).clamp(min=0)
    scales = ((high - low) / (2**bits - 1)).clamp(min=2.0**-14).half().float()
    return scales, (-low / scales).round().clamp(0, 2**bits - 1)
