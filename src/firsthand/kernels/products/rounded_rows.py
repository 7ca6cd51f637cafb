"""Rows rounded to 8 bits, in the layout that the compiled products read.

Activations are rounded in blocks of 32 values, as ggml does: codes from -127 to 127 and a scale. A block is a record with
all that a product needs, so nothing is recomputed per tile of a matrix:

    0  32 codes, int8            40  -128 x the sum of the codes, int32: what codes of weights with a zero of 128 add
    32 scale, float32            44  the same for the first 16 codes
    36 scale x sum of the codes  48  and for the last 16

The inner loops take a few rows at once, a *piece*. Its records lie side by side, block after block, so a loop reads one
stream of memory, and every row is at a distance that is known when the loop is compiled.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from firsthand.kernels.jit import called
from firsthand.kernels.products.dot_instructions import instructions
from firsthand.kernels.vectors import (
    INT,
    INTS,
    LANES,
    LANES_TYPE,
    absolute,
    constant,
    fma,
    larger,
    largest,
    llvm_function,
    load,
    mul,
    splat,
    total,
)

_intrinsic: Any = intrinsic
BLOCK = 32
"""Values that share a scale."""
SCALE, SHIFT, OFFSET, HALF_OFFSETS, RECORD = 32, 36, 40, 44, 52
"""Bytes of a record before each of its parts, and all of them."""
PIECE = 6 if instructions() == "vnni512" else 4
"""Maximum rows of an inner loop, such that all sums are in registers."""
_ZERO, _MOST, _ONE_OF_MOST = np.float32(0.0), np.float32(127.0), np.float32(1.0 / 127.0)


@_intrinsic
def _store_rounded(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Round numbers from -127 to 127 to whole ones (ties to even), write them as bytes, and return their sum."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # 1.5 * 2^23 is so large that adding it rounds to whole numbers, which then are the low bits of the sum
        shifted = builder.fadd(args[2], constant(args[2].type, 12582912.0))
        ints = builder.sub(builder.bitcast(shifted, INTS), constant(INTS, 0x4B400000))
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        bytes_ = ir.VectorType(ir.IntType(8), LANES)
        place = builder.bitcast(builder.gep(data, [args[1]]), bytes_.as_pointer())
        builder.store(builder.trunc(ints, bytes_), place, align=1)
        return builder.call(llvm_function(builder, "llvm.vector.reduce.add.v16i32", INT, [INTS]), [ints])

    return types.int32(array, types.intp, LANES_TYPE), generate


@_intrinsic
def _store_number(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write an int32 or float32 into bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), args[2].type.as_pointer())
        builder.store(args[2], place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@called
def pieces_of(rows: Any) -> Any:
    """The number of pieces that rows are cut into: as few as possible, of about equal size."""
    return (rows + PIECE - 1) // PIECE


@called
def first_of_piece(piece: Any, rows: Any) -> Any:
    """The first row of a piece."""
    pieces = pieces_of(rows)
    return piece * (rows // pieces) + min(piece, rows % pieces)


@called
def _piece_with(row: Any, rows: Any) -> Any:
    pieces = pieces_of(rows)
    each, longer = rows // pieces, rows % pieces
    if row < longer * (each + 1):
        return row // (each + 1)
    return longer + (row - longer * (each + 1)) // each


@called
def round_row(values: Any, at: int, width: int, rounded: Any, row: int, rows: int) -> None:
    """Write a row, one of so many, as records.

    A row with a non-finite number gets NaN scales, so its results are NaN too.
    """
    piece = _piece_with(row, rows)
    first = first_of_piece(piece, rows)
    step = (first_of_piece(piece + 1, rows) - first) * RECORD
    start = first * (width // BLOCK) * RECORD + (row - first) * RECORD
    strange = splat(_ZERO)
    for block in range(width // BLOCK):
        low, high = load(values, at + block * BLOCK), load(values, at + block * BLOCK + LANES)
        strange = fma(low, splat(_ZERO), fma(high, splat(_ZERO), strange))
        top = largest(larger(absolute(low), absolute(high)))
        inverse = splat(_MOST / top if top > _ZERO else _ZERO)
        scale = top * _ONE_OF_MOST
        place = start + block * step
        one = _store_rounded(rounded, place, mul(low, inverse))
        other = _store_rounded(rounded, place + LANES, mul(high, inverse))
        _store_number(rounded, place + SCALE, scale)
        _store_number(rounded, place + SHIFT, scale * np.float32(one + other))
        _store_number(rounded, place + OFFSET, np.int32(-128 * (one + other)))
        _store_number(rounded, place + HALF_OFFSETS, np.int32(-128 * one))
        _store_number(rounded, place + HALF_OFFSETS + 4, np.int32(-128 * other))
    if total(strange) != _ZERO:
        for block in range(width // BLOCK):
            _store_number(rounded, start + block * step + SCALE, np.float32(np.nan))
