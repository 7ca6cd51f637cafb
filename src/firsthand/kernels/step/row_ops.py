"""Operations on a token's row between two products, compiled: norm, rotation, activation. Rounding is in `rounded_rows`.

Every sum has a fixed order, so rows are batch-invariant. Widths are multiples of 16 (32
where a row is rounded). Nothing is checked here: `nn/compiled_decoder.py` checks shapes once.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic

from firsthand.kernels.jit import called, inlined
from firsthand.kernels.vectors import (
    LANES,
    LANES_TYPE,
    absolute,
    add,
    divide,
    exp,
    fma,
    larger,
    largest,
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
SILU, GELU_TANH, GELU = 0, 1, 2


@_intrinsic
def where_negative(typing: Any, test: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where `test` is below 0, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        negative = builder.fcmp_ordered("<", args[0], ir.Constant(_FLOATS, [0.0] * LANES))
        return builder.select(negative, args[1], args[2])

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), generate


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
