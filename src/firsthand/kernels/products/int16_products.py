"""16-bit integer products for encoders, compiled: less error than float16, at twice the speed of float32.

Numbers are rounded in blocks of 32 inputs, each block of a row with a scale of its own. Scales are chosen so that a block's
Euclidean length stays below the root of 2 ** 31: by Cauchy-Schwarz no sum of a block's products can then leave 32 bits. Sums
of a block are whole numbers, exact in any order; they are added up as float32, block after block. So rows are
batch-invariant. x86 with AVX-512 VNNI multiplies and adds 32 pairs per instruction; elsewhere LLVM uses what there is.

Shapes are not checked here: `nn/compiled_encoder.py` does. Widths are multiples of 32.
"""

# N rows, a multiple of 6 of which the last may be unused, O outputs, K inputs
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from firsthand.kernels.jit import inlined, kernel
from firsthand.kernels.vectors import (
    FLOATS,
    INTS,
    LANES,
    LANES_TYPE,
    SHORTS,
    emit_loop,
    fma,
    larger,
    largest,
    llvm_function,
    load,
    mul,
    pointer_to,
    splat,
    splat_in,
    store,
    total,
    where_less,
)

_intrinsic: Any = intrinsic
BLOCK = 32
"""Inputs that share a scale."""
PANEL = 32
"""Outputs computed together."""
ROWS = 6
"""Rows computed together: 12 vectors of whole numbers, 12 of float32 and those at work fill the 32 registers of AVX-512."""
_NEAR = 12
"""Blocks of a panel's weights that stay in the nearest cache (24 KiB) while all rows pass by."""
_ACROSS, _PAIRS = PANEL // LANES, BLOCK // 2
_INT, _LONG = ir.IntType(32), ir.IntType(64)
_MOST = np.float32(46336.0)  # the root of 2 ** 31, less what rounding can add to the length of a block
_LARGEST = np.float32(32767.0)
_ROUND = np.float32(12582912.0)  # added to a number below 2 ** 22 it leaves the nearest whole number in the low bits
_ZERO, _ONE, _HALF, _TINY = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(1e-30)
_FAR, _SQUARE = np.float32(5.2), np.float32(2 / 5.2**2)
"""Beyond it gelu(x) is taken as x or 0, 5e-7 off."""
_NORMAL = tuple(
    np.float32(c)
    for c in (
        0.13594993,
        -0.0677435125,
        0.0500304372,
        -0.0399385291,
        0.0319024488,
        -0.0246121846,
        0.0184153711,
        -0.0130529896,
        0.00748804743,
        -0.00356328582,
        0.00292945205,
        -0.00248030485,
        0.000828966656,
    )
)
"""(Phi(x) - 1/2) / x for |x| up to 5.2 as a polynomial in 2 (x / 5.2) ** 2 - 1, the constant first."""


def offset(builder: Any, base: Any, *steps: Any) -> Any:
    """The address that lies the sum of some products of 64-bit numbers behind another one."""
    for step, count in steps:
        base = builder.gep(base, [builder.mul(step, count)])
    return base


def number(value: int) -> Any:
    """A constant of 64 bits."""
    return ir.Constant(_LONG, value)


def vector_at(builder: Any, pointer: Any, index: int, kind: Any) -> Any:
    """The address of a vector that begins at an index."""
    return builder.bitcast(builder.gep(pointer, [number(index)]), kind.as_pointer())


def _add_pairs(builder: Any, sums: Any, a: Any, b: Any) -> Any:
    """sums + the products of the low and of the high halves, in each of 16 lanes; LLVM has one instruction for it."""
    narrow, wide = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(_INT, 2 * LANES)
    products = builder.mul(*(builder.sext(builder.bitcast(each, narrow), wide) for each in (a, b)))
    low, high = (
        builder.shuffle_vector(products, products, ir.Constant(INTS, list(range(first, 2 * LANES, 2))))
        for first in (0, 1)
    )
    return builder.add(sums, builder.add(low, high))


@_intrinsic
def add_blocks(
    typing: Any, x: Any, x_at: Any, x_row: Any, weights: Any, w_at: Any, scales: Any, s_at: Any, s_row: Any,
    count: Any, fresh: Any, out: Any, out_at: Any, out_row: Any,
) -> Any:  # fmt: skip
    """Add the products of `count` blocks, scaled, to 6 rows x 32 outputs, or put them there if `fresh`.

    A number of `x` and of `weights` is a pair of 16-bit ones.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_from, w_from, s_from, out_from = (pointer_to(builder, context, signature, args, i) for i in (0, 3, 5, 10))
        rows, scale_rows, targets = (
            [offset(builder, start, (stride, number(r))) for r in range(ROWS)]
            for start, stride in ((x_from, args[2]), (s_from, args[7]), (out_from, args[12]))
        )
        places = [vector_at(builder, target, c * LANES, FLOATS) for target in targets for c in range(_ACROSS)]
        zero, fused = (
            ir.Constant(FLOATS, [0.0] * LANES),
            llvm_function(builder, "llvm.fma.v16f32", FLOATS, [FLOATS] * 3),
        )

        def pair_of_inputs(k: Any, sums: list[Any]) -> list[Any]:
            panel = offset(builder, w_from, (k, number(PANEL)))
            columns = [builder.load(vector_at(builder, panel, c * LANES, INTS), align=4) for c in range(_ACROSS)]
            results = []
            for r in range(ROWS):
                pair = splat_in(builder, builder.load(builder.gep(rows[r], [k])), INTS)
                results += [_add_pairs(builder, sums[r * _ACROSS + c], pair, columns[c]) for c in range(_ACROSS)]
            return results

        def block(b: Any, floats: list[Any]) -> list[Any]:
            first = builder.mul(b, number(_PAIRS))
            nothing = [ir.Constant(INTS, [0] * LANES)] * (ROWS * _ACROSS)
            sums = emit_loop(
                builder, number(_PAIRS), nothing, lambda k, held: pair_of_inputs(builder.add(first, k), held)
            )
            results = []
            for r in range(ROWS):
                scale = splat_in(builder, builder.load(builder.gep(scale_rows[r], [b])), FLOATS)
                for i in range(r * _ACROSS, (r + 1) * _ACROSS):
                    results.append(builder.call(fused, [builder.sitofp(sums[i], FLOATS), scale, floats[i]]))
            return results

        before = [builder.select(args[9], zero, builder.load(place, align=4)) for place in places]
        for place, value in zip(places, emit_loop(builder, args[8], before, block), strict=True):
            builder.store(value, place, align=4)
        return context.get_dummy_value()

    i = types.intp
    return types.void(x, i, i, weights, i, scales, i, i, i, types.boolean, out, i, i), generate


@_intrinsic
def store_short(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the low 16 bits of each lane, whose whole number lies there once `_ROUND` was added."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        short = builder.trunc(builder.bitcast(args[2], INTS), SHORTS)
        place = builder.bitcast(pointer_to(builder, context, signature, args, 0), SHORTS.as_pointer())
        builder.store(short, place, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES_TYPE), generate


@_intrinsic
def signed_like(typing: Any, magnitude: Any, sign: Any) -> Any:
    """Each lane of `magnitude` with the sign of `sign`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(llvm_function(builder, "llvm.copysign.v16f32", FLOATS, [FLOATS] * 2), args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), generate


@inlined
def gelu(x: Any) -> Any:
    """x / 2 * (1 + erf(x / root 2)) in each lane, to 1.5e-6."""
    near = larger(x, splat(-_FAR))
    near = where_less(near, splat(_FAR), near, splat(_FAR))
    u = fma(mul(near, near), splat(_SQUARE), splat(-_ONE))
    series = fma(splat(_NORMAL[12]), u, splat(_NORMAL[11]))
    for power in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        series = fma(series, u, splat(_NORMAL[power]))
    return mul(x, fma(near, series, splat(_HALF)))


@inlined
def round_block(values: Any, at: int, shorts: Any, short_at: int, scales: Any, scale_at: int) -> None:
    """Write a block of numbers as 16-bit ones with their scale."""
    squares, most = splat(_ZERO), splat(_ZERO)
    for c in range(0, BLOCK, LANES):
        x = load(values, at + c)
        squares = fma(x, x, squares)
        most = larger(most, signed_like(x, splat(_ONE)))
    length, peak = np.sqrt(total(squares)), largest(most)
    scale = min(_MOST / max(length, _TINY), _LARGEST / max(peak, _TINY))
    for c in range(0, BLOCK, LANES):
        store_short(shorts, short_at + c, fma(load(values, at + c), splat(scale), splat(_ROUND)))
    scales[scale_at] = _ONE / scale


@kernel
def round_rows(values: Any, num_rows: int, width: int, shorts: Any, scales: Any) -> None:
    """Write rows as 16-bit numbers with a scale for each block."""
    for block in range(num_rows * (width // BLOCK)):
        round_block(values, block * BLOCK, shorts, block * BLOCK, scales, block)


@inlined
def _panel(
    pairs: Any, scales: Any, weights: Any, panel: int, num_rows: int, width: int, out: Any, start: int, line: int
) -> None:
    """Sums of products for all rows and 32 outputs, still without the weights' own scales; rows lie `line` apart."""
    blocks = width // BLOCK
    for first in range(0, blocks, _NEAR):
        for row in range(0, num_rows, ROWS):
            add_blocks(
                pairs, row * (width // 2) + first * _PAIRS, width // 2,
                weights, (panel * blocks + first) * _PAIRS * PANEL,
                scales, row * blocks + first, blocks,
                min(_NEAR, blocks - first), first == 0,
                out, start + row * line, line,
            )  # fmt: skip


@kernel
def products(
    pairs: Any, scales: Any, weights: Any, own: Any, bias: Any, num_rows: int, width: int, outputs: int,
    out: Any, aside: int, line: int,
) -> None:  # fmt: skip
    """out = rows times weights, plus bias. `own` has the scale of each output's weights.

    Panels of 32 outputs lie `aside` numbers apart in `out`, the rows of a panel `line`: 32 and O for a plain N O.
    """
    for panel in range(outputs // PANEL):
        _panel(pairs, scales, weights, panel, num_rows, width, out, panel * aside, line)
        for row in range(num_rows):
            for c in range(0, PANEL, LANES):
                place, column = panel * aside + row * line + c, panel * PANEL + c
                store(out, place, fma(load(out, place), load(own, column), load(bias, column)))


@kernel
def gelu_products(
    pairs: Any, scales: Any, weights: Any, own: Any, bias: Any, num_rows: int, width: int, outputs: int,
    shorts: Any, out_scales: Any,
) -> None:  # fmt: skip
    """gelu(rows times weights, plus bias), as 16-bit numbers at once: all of it never lies in memory as floats."""
    panels = outputs // PANEL
    sums = np.empty(num_rows * PANEL, np.float32)
    for panel in range(panels):
        _panel(pairs, scales, weights, panel, num_rows, width, sums, 0, PANEL)
        for row in range(num_rows):
            for c in range(0, PANEL, LANES):
                place, column = row * PANEL + c, panel * PANEL + c
                store(sums, place, gelu(fma(load(sums, place), load(own, column), load(bias, column))))
            block = row * panels + panel  # a panel of outputs is a block of inputs of the next product
            round_block(sums, row * PANEL, shorts, block * BLOCK, out_scales, block)
