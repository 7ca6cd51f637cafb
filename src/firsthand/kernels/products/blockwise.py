"""Blockwise-quantised matrices: small integers in blocks that share a scale, as most GGUF files hold them.

A weight is scale * (code - zero) + minimum, with one scale (and for some types one minimum) per 16 or 32 weights of a
row. The codes of a file are kept, so nothing is lost; `from_values` rounds floats to 8 bits. The layouts are ggml's (Q4_0
to Q8_0, Q4_K to Q6_K). Left out: types of less than 4 bits and those with code books, which come as floats.
"""

# O outputs (rows of the matrix), K inputs, B inputs of a block, U super-blocks of 256 inputs

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SUPER = 256
"""Inputs of one of ggml's super-blocks."""


@dataclass(frozen=True)
class Blockwise:
    """A matrix of O rows and K columns."""

    codes: Bytes
    """O K, each below 2 ** bits."""
    scales: Floats
    """O K/B"""
    minimums: Floats | None
    """O K/B; None is 0 everywhere."""
    zero: int
    """The code that stands for 0 (where there are minimums: for the minimum)."""
    bits: int
    """Bits of a code: 4, 5, 6 or 8."""

    @property
    def block(self) -> int:
        """Inputs that share a scale."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    def values(self) -> Floats:
        """The weights as float32: O K."""
        scales = np.repeat(self.scales, self.block, axis=1)
        values = scales * (self.codes.astype(np.float32) - np.float32(self.zero))
        return values if self.minimums is None else values + np.repeat(self.minimums, self.block, axis=1)

    def rows(self, order: NDArray[np.int64]) -> Blockwise:
        """The same rows in another order."""
        minimums = None if self.minimums is None else self.minimums[order]
        return replace(self, codes=self.codes[order], scales=self.scales[order], minimums=minimums)


def from_values(values_OK: Floats) -> Blockwise:
    """Rounds floats to 8 bits in blocks of 32, as Q8_0; the error is at most 1/254 of the largest of a block."""
    blocks = values_OK.reshape(len(values_OK), -1, 32)
    scales = (np.abs(blocks).max(-1) / np.float32(127)).astype(np.float16).astype(np.float32)
    with np.errstate(divide="ignore"):
        inverse = np.where(scales > 0, np.float32(1) / scales, np.float32(0))
    codes = np.clip(np.rint(blocks * inverse[..., None]), -127, 127) + 128
    return Blockwise(codes.astype(np.uint8).reshape(values_OK.shape), scales, None, 128, 8)


def from_gguf(kind: str, raw: Bytes, shape: tuple[int, ...]) -> Blockwise:
    """Reads the blocks of a tensor of one of `GGUF_TYPES`; `raw` is its bytes, `shape` is (O, K)."""
    bytes_each, read = GGUF_TYPES[kind]
    with np.errstate(all="ignore"):  # hostile scales overflow; that is for the numbers to show
        made = read(np.ascontiguousarray(raw).reshape(-1, bytes_each))
    outputs = shape[0]
    minimums = None if made.minimums is None else made.minimums.reshape(outputs, -1)
    return replace(made, codes=made.codes.reshape(shape), scales=made.scales.reshape(outputs, -1), minimums=minimums)


def _half(raw: Bytes, at: int) -> Floats:
    """A float16 column of the blocks, as float32."""
    return np.ascontiguousarray(raw[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """All low halves, then all high halves, along the last dimension."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _fifth_bits(raw: Bytes, at: int) -> Bytes:
    """Bit i of four bytes as 16 for element i of 32."""
    return np.unpackbits(raw[:, at : at + 4], axis=1, bitorder="little") << np.uint8(4)


def _q4_0(raw: Bytes) -> Blockwise:
    return Blockwise(_nibbles(raw[:, 2:]), _half(raw, 0), None, 8, 4)


def _q4_1(raw: Bytes) -> Blockwise:
    return Blockwise(_nibbles(raw[:, 4:]), _half(raw, 0), _half(raw, 2), 0, 4)


def _q5_0(raw: Bytes) -> Blockwise:
    return Blockwise(_nibbles(raw[:, 6:]) | _fifth_bits(raw, 2), _half(raw, 0), None, 16, 5)


def _q5_1(raw: Bytes) -> Blockwise:
    return Blockwise(_nibbles(raw[:, 8:]) | _fifth_bits(raw, 4), _half(raw, 0), _half(raw, 2), 0, 5)


def _q8_0(raw: Bytes) -> Blockwise:
    return Blockwise(raw[:, 2:] ^ np.uint8(128), _half(raw, 0), None, 128, 8)


def _six_bit_pairs(raw: Bytes) -> tuple[Floats, Floats]:
    """The scales and minimums of a super-block's eight blocks, from 12 bytes: U 8 each."""
    low, high, mixed = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    scales = np.concatenate([low & 63, (mixed & 15) | ((low >> 6) << 4)], axis=1)
    minimums = np.concatenate([high & 63, (mixed >> 4) | ((high >> 6) << 4)], axis=1)
    return _half(raw, 0) * scales.astype(np.float32), -(_half(raw, 2) * minimums.astype(np.float32))


def _four_bit_lines(packed: Bytes) -> Bytes:
    """Four lines of 32 bytes, the low halves of each before its high halves: U 8 32."""
    return _nibbles(packed.reshape(-1, 4, 32)).reshape(-1, 8, 32)


def _q4_k(raw: Bytes) -> Blockwise:
    return Blockwise(_four_bit_lines(raw[:, 16:]), *_six_bit_pairs(raw), zero=0, bits=4)


def _q5_k(raw: Bytes) -> Blockwise:
    fifth = (raw[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[None, :, None]) & np.uint8(1)
    return Blockwise(_four_bit_lines(raw[:, 48:]) | (fifth << np.uint8(4)), *_six_bit_pairs(raw), zero=0, bits=5)


def _q6_k(raw: Bytes) -> Blockwise:
    low = _nibbles(raw[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    high = (raw[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]) & np.uint8(3)
    scales = raw[:, 192:208].view(np.int8).astype(np.float32)
    return Blockwise(low | (high << np.uint8(4)), _half(raw, 208) * scales, None, 32, 6)


GGUF_TYPES: dict[str, tuple[int, Callable[[Bytes], Blockwise]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
}
"""By ggml's name: bytes of a block (of a super-block for the K types), and the function that reads it."""
