"""Dot products of one query with many rows of bytes, in the 8-bit instructions that the processor has.

A row is unsigned bytes, 128 more than its whole numbers from -127 to 127, and a scale. A query is split into a coarse and a
fine part of signed bytes, so that its own rounding does not count. All processors give the same scores.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from firsthand.kernels.jit import kernel
from firsthand.kernels.products.dot_instructions import BYTES, add_products, instructions
from firsthand.kernels.search.byte_rows import OFFSET, PIECE
from firsthand.kernels.vectors import INT, INTS, LONG, emit_loop, llvm_function, pointer_to

_intrinsic: Any = intrinsic
_HOW = instructions()


@_intrinsic
def _two_products(typing: Any, codes: Any, at: Any, query: Any, first: Any, pieces: Any) -> Any:
    """The dot products of a row with the query's coarse and fine parts, which lie one after the other."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = pointer_to(builder, context, signature, args, 0)
        parts = pointer_to(builder, context, signature, args, 2)
        pieces = args[4]

        def load(pointer: Any, kind: Any) -> Any:
            return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=1)

        def step(k: Any, sums: list[Any]) -> list[Any]:
            place = builder.mul(k, ir.Constant(LONG, PIECE))
            fine = builder.add(place, builder.mul(pieces, ir.Constant(LONG, PIECE)))
            code = load(builder.gep(row, [place]), BYTES)
            return [
                add_products(builder, each, code, load(builder.gep(parts, [start]), INTS), _HOW)
                for each, start in zip(sums, (place, fine), strict=True)
            ]

        sums = emit_loop(builder, pieces, [ir.Constant(INTS, [0] * INTS.count)] * 2, step)
        reduce = llvm_function(builder, "llvm.vector.reduce.add.v16i32", INT, [INTS])
        wide = [builder.sext(builder.call(reduce, [each]), LONG) for each in sums]
        return context.make_tuple(builder, signature.return_type, wide)

    return types.UniTuple(types.int64, 2)(codes, types.intp, query, types.intp, types.intp), generate


@kernel
def byte_scores(
    codes: Any, width: int, scales: Any, query: Any, coarse: float, fine: float, rows: Any, scores: Any
) -> None:
    """scores[i] = the dot product of row rows[i] with the query, to float32.

    `codes` is flat, `width` bytes a row; `query` has 2 x width signed bytes, the coarse part and the fine one, whose units
    are `coarse` and `fine`.
    """
    pieces = width // PIECE
    first = 0.0
    for place in range(width):
        first += OFFSET * (coarse * query[place] + fine * query[width + place])
    for i in range(rows.shape[0]):
        row = rows[i]
        high, low = _two_products(codes, row * width, query, 0, pieces)
        scores[i] = scales[row] * (coarse * high + fine * low - first)
