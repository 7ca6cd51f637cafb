"""Products of 8-bit activations with blockwise weights, compiled.

The products of a block are summed as integers, which is exact in any order, then scaled and added to a float32 sum, block
after block. So rows are batch-invariant, on any number of threads and with any of the instruction sets (`dot_instructions`).
Weights are `tiled_weights`, rows `rounded_rows`, inner loops `inner_loops`.

Tiles are processed in *bunches*: all rows are multiplied with one bunch while the next is prefetched. With many rows the
codes of a bunch are first expanded to bytes, once for all rows.
"""

# O outputs, K inputs, N rows
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.kernels.jit import allocating, called, kernel, named
from firsthand.kernels.products.dot_instructions import instructions
from firsthand.kernels.products.inner_loops import LINE, piece_loop
from firsthand.kernels.products.rounded_rows import BLOCK, PIECE, RECORD, first_of_piece, pieces_of, round_row
from firsthand.kernels.products.tile_codes import widen, widened
from firsthand.kernels.products.tiled_weights import KINDS, LANES, Kind, Tiles

BUNCH = 1 << 18
"""Approximate bytes of weights that stay in the second-level cache while all rows are multiplied with them."""
FEW = 64
"""Rows up to which a bunch is a pair of tiles; the rows then stay in the cache."""
MANY = 128
"""Rows from which the codes of a bunch are expanded to bytes."""


def _make_multiply(kind: Kind, how: str | None = None) -> Any:
    """A function that multiplies rows with the tiles of one kind, two at a time."""
    how = how or instructions()
    wide = widened(kind)
    # four bits are as quick to read as bytes, and others with minimums are rare
    widens = kind.bits in (5, 6) and not kind.has_minimums
    multiply_piece = piece_loop(kind, range(1, PIECE + 1), how)
    multiply_wide_piece = piece_loop(wide, range(PIECE // 2 + 1, PIECE + 1) if widens else (), how)
    write_out = widen(kind)
    record_bytes, wide_bytes = kind.record_bytes, wide.record_bytes

    @allocating
    @named(f"multiply_{KINDS.index(kind)}_{how}")
    def multiply_kind(
        address: int, tiles: int, tile_bytes: int, inputs: int, first_pair: int, last_pair: int, rows: int, rounded: Any,
        out: Any, column: int, out_stride: int,
    ) -> None:  # fmt: skip
        pieces, blocks = pieces_of(rows), inputs // BLOCK
        is_wide = widens and rows >= MANY
        records = tile_bytes // record_bytes
        kept_bytes = records * wide_bytes if is_wide else tile_bytes
        bunch = 1 if rows <= FEW else max(1, BUNCH // (2 * max(kept_bytes, 1)))
        room = np.empty(2 * bunch * kept_bytes if is_wide else 0, dtype=np.uint8)
        for start in range(first_pair, last_pair, bunch):
            end = min(start + bunch, last_pair)
            following = address + 2 * end * tile_bytes
            left = 2 * (min(end + bunch, last_pair) - end) * tile_bytes
            share = pieces * (end - start) * blocks * LINE
            lines = (left + share - 1) // share
            weights = address + 2 * start * tile_bytes
            if is_wide:
                write_out(weights, min(2 * (end - start), tiles - 2 * start) * records, room.ctypes.data)
                weights = room.ctypes.data
            for piece in range(pieces):
                row, until = first_of_piece(piece, rows), first_of_piece(piece + 1, rows)
                at, to = row * blocks * RECORD, row * out_stride + column
                for pair in range(start, end):
                    one = 2 * pair
                    other = min(one + 1, tiles - 1)  # an odd last tile is computed twice
                    first, second = weights + (one - 2 * start) * kept_bytes, weights + (other - 2 * start) * kept_bytes
                    if left <= 0:
                        lines = 0
                    if is_wide:
                        multiply_wide_piece(until - row, first, second, following, lines, inputs, rounded, at, out,
                                            to + one * LANES, to + other * LANES, out_stride)  # fmt: skip
                    else:
                        multiply_piece(until - row, first, second, following, lines, inputs, rounded, at, out,
                                       to + one * LANES, to + other * LANES, out_stride)  # fmt: skip
                    following += lines * blocks * LINE
                    left -= lines * blocks * LINE

    return multiply_kind


(
    _multiply_0, _multiply_1, _multiply_2, _multiply_3, _multiply_4, _multiply_5, _multiply_6, _multiply_7
) = (_make_multiply(kind) for kind in KINDS)  # fmt: skip


@called
def multiply(
    entry: Any, first_pair: int, last_pair: int, rows: int, rounded: Any, out: Any, column: int, out_stride: int
) -> None:
    """Multiply rows with some pairs of tiles of the matrix of this `Tiles.entry`."""
    address, kind, tiles, tile_bytes, inputs = entry[0], entry[1], entry[2], entry[3], entry[4]
    if kind == 0:
        _multiply_0(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 1:
        _multiply_1(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 2:
        _multiply_2(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 3:
        _multiply_3(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 4:
        _multiply_4(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 5:
        _multiply_5(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 6:
        _multiply_6(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    else:
        _multiply_7(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)


@kernel
def _product(entry: Any, rows: Any, rounded: Any, out: Any) -> None:
    count, width = rows.shape
    flat = rows.reshape(-1)
    for row in range(count):
        round_row(flat, row * width, width, rounded, row, count)
    multiply(entry, 0, (entry[2] + 1) // 2, count, rounded, out.reshape(-1), 0, out.shape[1])


def product(rows_NK: NDArray[np.float32], tiles: Tiles) -> NDArray[np.float32]:
    """Returns rows, rounded to 8 bits, times a matrix: N O; single-threaded."""
    count, width = rows_NK.shape
    rounded = np.empty(count * width // BLOCK * RECORD, dtype=np.uint8)
    out = np.empty((count, tiles.num_tiles * LANES), dtype=np.float32)
    if count:
        _product(np.array(tiles.entry(), dtype=np.int64), rows_NK, rounded, out)
    return out[:, : tiles.outputs]
