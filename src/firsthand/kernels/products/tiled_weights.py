"""Blockwise matrices in the layout that the compiled products read.

Weights are tiled: 16 outputs lie together, and a tile is a list of records, one a block, each with 16 scales, 16
minimums where the type has them, and the codes of 4 inputs x 16 outputs a vector of 64 bytes. One stream of memory,
read once from front to back.

Codes of 8 bits are a vector for each group of four inputs. Of smaller ones the low four bits of two groups share a
vector, and what is above them lies in one vector for all groups: the bits of the first group lowest.
"""

# O outputs, K inputs, B inputs of a block, T tiles of 16 outputs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firsthand.kernels.products.blockwise import Blockwise

LANES = 16


class Kind(NamedTuple):
    """The layout of a tile's records."""

    bits: int
    block: int
    has_minimums: bool
    half: bool
    """Scales and minimums are float16 (where that is exact), else float32."""

    @property
    def zero(self) -> int:
        """The code that stands for 0, or for the minimum."""
        return 0 if self.has_minimums else 1 << (self.bits - 1)

    @property
    def groups(self) -> int:
        """Vectors of four inputs x 16 outputs in a block."""
        return self.block // 4

    @property
    def head_bytes(self) -> int:
        """Bytes of a record before its codes."""
        return LANES * (2 if self.half else 4) * (2 if self.has_minimums else 1)

    @property
    def record_bytes(self) -> int:
        """Bytes of a record."""
        return self.head_bytes + LANES * self.block * self.bits // 8


KINDS = (
    Kind(4, 32, True, True),
    Kind(4, 32, False, True),
    Kind(8, 32, False, True),
    Kind(5, 32, False, True),
    Kind(5, 32, True, True),
    Kind(5, 32, True, False),
    Kind(4, 32, True, False),
    Kind(6, 16, False, False),
)
"""Every type becomes one of these: Q4_1; Q4_0; Q8_0 and ours; Q5_0; Q5_1; Q5_K; Q4_K; Q6_K."""


@dataclass(frozen=True)
class Tiles:
    """A matrix in the memory layout of the inner loops."""

    memory: NDArray[np.uint8]
    """The records of all tiles; begins at a multiple of 64 bytes."""
    kind: int
    """Index into KINDS."""
    outputs: int
    inputs: int

    @property
    def num_tiles(self) -> int:
        """Tiles of 16 outputs; the last may hold fewer."""
        return -(-self.outputs // LANES)

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile."""
        return KINDS[self.kind].record_bytes * (self.inputs // KINDS[self.kind].block)

    def entry(self) -> list[int]:
        """Address, kind, tiles, bytes of a tile, inputs: a row of the compiled step's table."""
        return [
            self.memory.ctypes.data,
            self.kind,
            self.num_tiles,
            self.tile_bytes,
            self.inputs,
        ]


def tile(matrix: Blockwise) -> Tiles:
    """The matrix as tiles, with rows of zeros up to a multiple of 16."""
    outputs, inputs = matrix.codes.shape
    number = _kind_of(matrix)
    kind, count = KINDS[number], -(-outputs // LANES)
    blocks = inputs // kind.block
    heads = [matrix.scales] if matrix.minimums is None else [matrix.scales, matrix.minimums]
    parts = [_head(_padded(head, count), count, kind.half) for head in heads]
    codes = _padded(matrix.codes, count, kind.zero).reshape(count, LANES, blocks, kind.groups, 4)
    codes = _packed(codes.transpose(0, 2, 3, 1, 4).reshape(count, blocks, kind.groups, 4 * LANES), kind)
    records = np.concatenate([*parts, codes.reshape(count, blocks, -1)], axis=2)
    memory = aligned(records.size)
    memory[:] = records.reshape(-1)
    return Tiles(memory, number, outputs, inputs)


def untile(tiles: Tiles) -> Blockwise:
    """The inverse of `tile`."""
    kind = KINDS[tiles.kind]
    blocks = tiles.inputs // kind.block
    records = tiles.memory.reshape(tiles.num_tiles, blocks, kind.record_bytes)
    heads = records[:, :, : kind.head_bytes].reshape(tiles.num_tiles, blocks, -1, LANES * (2 if kind.half else 4))
    numbers = np.ascontiguousarray(heads).view(np.float16 if kind.half else np.float32).astype(np.float32)
    scales, *minimums = (
        numbers[:, :, i].transpose(0, 2, 1).reshape(-1, blocks)[: tiles.outputs] for i in range(numbers.shape[2])
    )
    codes = _unpacked(records[:, :, kind.head_bytes :].reshape(tiles.num_tiles, blocks, -1, 4 * LANES), kind)
    codes = codes.reshape(tiles.num_tiles, blocks, kind.groups, LANES, 4).transpose(0, 3, 1, 2, 4)
    flat = codes.reshape(-1, tiles.inputs)[: tiles.outputs]
    return Blockwise(flat, scales, minimums[0] if minimums else None, kind.zero, kind.bits)


def _packed(codes: NDArray[np.uint8], kind: Kind) -> NDArray[np.uint8]:
    """Codes as they lie in the records: T, blocks, vectors, 64 from T, blocks, groups, 64."""
    if kind.bits == 8:
        return codes
    low = codes & np.uint8(15)
    vectors = low[:, :, 0::2] | (low[:, :, 1::2] << np.uint8(4))
    if kind.bits == 4:
        return vectors
    high = np.zeros((*codes.shape[:2], 1, 4 * LANES), dtype=np.uint8)
    for group in range(kind.groups):
        high[:, :, 0] |= (codes[:, :, group] >> np.uint8(4)) << np.uint8(group * (kind.bits - 4))
    return np.concatenate([vectors, high], axis=2)


def _unpacked(vectors: NDArray[np.uint8], kind: Kind) -> NDArray[np.uint8]:
    """The reverse of `_packed`."""
    if kind.bits == 8:
        return vectors
    low = vectors[:, :, : kind.groups // 2]
    codes = np.stack([low & 15, low >> 4], axis=3).reshape(*vectors.shape[:2], kind.groups, 4 * LANES)
    if kind.bits > 4:
        shifts = np.arange(kind.groups, dtype=np.uint8)[:, None] * np.uint8(kind.bits - 4)
        codes |= ((vectors[:, :, -1:] >> shifts) & np.uint8((1 << (kind.bits - 4)) - 1)) << np.uint8(4)
    return codes


def _kind_of(matrix: Blockwise) -> int:
    heads = [matrix.scales] if matrix.minimums is None else [matrix.scales, matrix.minimums]
    with np.errstate(over="ignore"):
        half = all(np.array_equal(head, head.astype(np.float16).astype(np.float32), equal_nan=True) for head in heads)
    wanted = Kind(matrix.bits, matrix.block, matrix.minimums is not None, half)
    assert matrix.zero == wanted.zero, f"{wanted} with a zero of {matrix.zero}"
    for kind in (wanted, wanted._replace(half=False)):
        if kind in KINDS:
            return KINDS.index(kind)
    raise AssertionError(f"no inner loop for {wanted}")


def _padded(values: NDArray[Any], tiles: int, fill: int = 0) -> NDArray[Any]:
    missing = tiles * LANES - len(values)
    return np.pad(values, ((0, missing), (0, 0)), constant_values=fill) if missing else values


def _head(values: NDArray[np.float32], tiles: int, half: bool) -> NDArray[np.uint8]:
    """Scales or minimums as bytes: T, blocks, 16 numbers."""
    turned = np.ascontiguousarray(values.reshape(tiles, LANES, -1).transpose(0, 2, 1))
    return turned.astype(np.float16 if half else np.float32).view(np.uint8)


def aligned(size: int) -> NDArray[np.uint8]:
    """Returns so many bytes of memory, aligned to 64."""
    room = np.empty(size + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size]
