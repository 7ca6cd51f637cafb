"""What a step does to each token's row between two products: norm, rotation, activation, rounding to 8 bits; compiled.

Every sum has its order written down, so a row's bits depend on nothing but the row. Widths are multiples of 16 (32
where a row is rounded). Nothing is checked here: `nn/fused.py` checks shapes once.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from firsthand.nn.kernels.jit import called, inlined
from firsthand.nn.kernels.vectors import (
    LANES,
    LANES_TYPE,
    add,
    divide,
    exp,
    fma,
    larger,
    largest,
    llvm_function,
    load,
    mul,
    splat,
    store,
    sub,
    total,
)

_intrinsic: Any = intrinsic
_BYTE, _INT, _FLOAT = ir.IntType(8), ir.IntType(32), ir.FloatType()
_BYTES, _INTS, _FLOATS = (ir.VectorType(kind, LANES) for kind in (_BYTE, _INT, _FLOAT))
_ZERO, _ONE, LOWEST = np.float32(0.0), np.float32(1.0), np.float32(-3e38)
_MOST, _ONE_OF_MOST = np.float32(127.0), np.float32(1.0 / 127.0)
BLOCK = 32
"""Inputs that share an activation's scale."""
SILU, GELU_TANH, GELU = 0, 1, 2


@_intrinsic
def absolute(typing: Any, a: Any) -> Any:
    """|a| in each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(llvm_function(builder, "llvm.fabs.v16f32", _FLOATS, [_FLOATS]), args)

    return LANES_TYPE(LANES_TYPE), generate


@_intrinsic
def where_negative(typing: Any, test: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where `test` is below 0, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        negative = builder.fcmp_ordered("<", args[0], ir.Constant(_FLOATS, [0.0] * LANES))
        return builder.select(negative, args[1], args[2])

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), generate


@_intrinsic
def store_rounded(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Round numbers from -127 to 127 to whole ones (ties to even), write them as bytes, and return their sum."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # 1.5 * 2^23 is so large that adding it rounds to whole numbers, which then are the low bits of the sum
        shifted = builder.fadd(args[2], ir.Constant(_FLOATS, [12582912.0] * LANES))
        ints = builder.sub(builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [0x4B400000] * LANES))
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), _BYTES.as_pointer())
        builder.store(builder.trunc(ints, _BYTES), place, align=1)
        return builder.call(llvm_function(builder, "llvm.vector.reduce.add.v16i32", _INT, [_INTS]), [ints])

    return types.int32(array, types.intp, LANES_TYPE), generate


@called
def round_row(
    values: Any, at: int, width: int, codes: Any, codes_at: int, scales: Any, sums: Any, scales_at: int
) -> None:
    """Write a row as bytes from -127 to 127: one scale for each 32 values, and the sum of each 16 bytes.

    A row with a number that is not finite gets scales that are NaN, so that what is computed from it is NaN too.
    """
    strange = splat(_ZERO)
    for block in range(width // BLOCK):
        low, high = load(values, at + block * BLOCK), load(values, at + block * BLOCK + LANES)
        strange = fma(low, splat(_ZERO), fma(high, splat(_ZERO), strange))
        top = largest(larger(absolute(low), absolute(high)))
        inverse = splat(_MOST / top if top > _ZERO else _ZERO)
        scales[scales_at + block] = top * _ONE_OF_MOST
        place = codes_at + block * BLOCK
        sums[2 * (scales_at + block)] = store_rounded(codes, place, mul(low, inverse))
        sums[2 * (scales_at + block) + 1] = store_rounded(codes, place + LANES, mul(high, inverse))
    if total(strange) != _ZERO:
        for block in range(width // BLOCK):
            scales[scales_at + block] = np.float32(np.nan)


@called
def inverse_rms(values: Any, at: int, width: int, eps: Any) -> Any:
    """1 / sqrt(mean of squares + eps)."""
    squares = splat(_ZERO)
    for place in range(at, at + width, LANES):
        lanes = load(values, place)
        squares = fma(lanes, lanes, squares)
    return _ONE / np.float32(math.sqrt(total(squares) / np.float32(width) + eps))


@called
def normalise(values: Any, at: int, width: int, weights: Any, weights_at: int, eps: Any, out: Any, out_at: int) -> None:
    """RMSNorm of a row."""
    factor = splat(inverse_rms(values, at, width, eps))
    for place in range(0, width, LANES):
        lanes = mul(load(values, at + place), factor)
        store(out, out_at + place, mul(lanes, load(weights, weights_at + place)))


@called
def add_row(values: Any, at: int, width: int, more: Any, more_at: int) -> None:
    """values += more."""
    for place in range(0, width, LANES):
        store(values, at + place, add(load(values, at + place), load(more, more_at + place)))


@inlined
def sigmoid(x: Any) -> Any:
    """1 / (1 + e ** -x) in each lane."""
    small = exp(mul(absolute(x), splat(-_ONE)))
    return divide(where_negative(x, small, splat(_ONE)), add(splat(_ONE), small))


@called
def gate_row(gates: Any, at: int, width: int, ups: Any, ups_at: int, activation: int) -> None:
    """gates = activation(gates) * ups."""
    for place in range(0, width, LANES):
        x = load(gates, at + place)
        if activation == SILU:
            mixed = mul(x, sigmoid(x))
        else:  # gelu(x) = x * (1 + tanh(y)) / 2 = x * sigmoid(2 y), y = sqrt(2/pi) (x + 0.044715 x^3)
            cubic = fma(mul(mul(x, x), x), splat(np.float32(0.044715)), x)
            mixed = mul(x, sigmoid(mul(cubic, splat(np.float32(1.5957691216057308)))))
        store(gates, at + place, mul(mixed, load(ups, ups_at + place)))


@called
def gate_row_exactly(gates: Any, at: int, width: int, ups: Any, ups_at: int) -> None:
    """gates = gelu(gates) * ups with the error function, a value at a time."""
    for place in range(width):
        x = gates[at + place]
        half = np.float32(0.5) * x * (_ONE + np.float32(math.erf(x * np.float32(0.7071067811865476))))
        gates[at + place] = half * ups[ups_at + place]


@called
def rotate_head(values: Any, at: int, head_dim: int, cos: Any, sin: Any, angles_at: int) -> None:
    """Turn each pair (i, i + head_dim/2) of a head by its angle."""
    half = head_dim // 2
    for i in range(half):
        first, second = values[at + i], values[at + half + i]
        values[at + i] = first * cos[angles_at + i] - second * sin[angles_at + i]
        values[at + half + i] = second * cos[angles_at + i] + first * sin[angles_at + i]


@called
def highest(values: Any, at: int, width: int) -> Any:
    """The largest of a row; where NaN is among them it may or may not be the answer."""
    whole = width // LANES * LANES
    lanes = splat(LOWEST)
    for place in range(at, at + whole, LANES):
        lanes = larger(load(values, place), lanes)
    top = largest(lanes)
    for place in range(at + whole, at + width):
        top = max(top, values[place])
    return top


@called
def mass(values: Any, at: int, width: int, top: Any, factor: Any) -> float:
    """The sum of e ** ((value - top) * factor), in float64 from pieces of 1,024. `top` is the highest."""
    whole = width // LANES * LANES
    sum_ = 0.0
    for start in range(0, whole, 1024):
        lanes = splat(_ZERO)
        for place in range(at + start, at + min(start + 1024, whole), LANES):
            lanes = add(lanes, exp(mul(sub(load(values, place), splat(top)), splat(factor))))
        sum_ += total(lanes)
    for place in range(at + whole, at + width):
        sum_ += math.exp((values[place] - top) * factor)
    return sum_
