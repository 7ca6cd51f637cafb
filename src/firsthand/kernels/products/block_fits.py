"""Least-squares fits of scales and minimums to blocks of weights, compiled: the search behind ggml's K types.

A block is 16 or 32 weights that share a scale. `fit_affine` and `fit_symmetric` try several ranges for each block, round the
weights to whole codes in each, solve for the scale (and minimum) of least squared error, and keep the best. Scales are
then rounded to the few bits that a super-block has for them (`block_rounding`), and `round_affine` and `round_symmetric`
choose, among the rounded scale and its neighbours, the one whose codes give the least error.

Sixteen blocks are a tile, one in each lane of a vector: values lie as T B 16, so every sum has a fixed order and results do
not depend on the machine. Importing this file imports numba.
"""

# T tiles of 16 blocks, B weights of a block

# mypy: disallow-untyped-decorators=False

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import inlined, kernel
from firsthand.kernels.vectors import (
    LANES,
    absolute,
    add,
    divide,
    fma,
    larger,
    load,
    mul,
    splat,
    store,
    sub,
    where_less,
)

_MAGIC = np.float32(12582912.0)
"""1.5 * 2**23: added and taken away again, it leaves the nearest whole number, half to even."""
_TINY = np.float32(1e-30)
"""Ranges and scales below this count as 0."""
_HUGE = np.float32(3e38)


@inlined
def _code(x: Any, least: Any, most: Any) -> Any:
    """The nearest whole number from `least` to `most`."""
    inside = where_less(x, most, larger(x, least), most)
    return sub(add(inside, splat(_MAGIC)), splat(_MAGIC))


@inlined
def _inverse(x: Any) -> Any:
    """1 / x, and 0 where x is as good as 0."""
    return where_less(splat(_TINY), absolute(x), divide(splat(np.float32(1)), x), splat(np.float32(0)))


@kernel
def fit_affine(x: Any, size: int, most: int, tops: Any, scales: Any, minimums: Any) -> None:
    """Fits x = scale * code - minimum with codes from 0 to `most`, scale and minimum 0 or more, for each block.

    `x` is T B 16, flat; `size` is B; each of `tops` is the code that the largest weight would get in one try.
    """
    zero, n, top_code = splat(np.float32(0)), splat(np.float32(size)), splat(np.float32(most))
    for tile in range(len(scales) // LANES):
        at = tile * size * LANES
        low, high = zero, load(x, at)
        for i in range(size):
            value = load(x, at + i * LANES)
            low, high = where_less(value, low, value, low), larger(value, high)
        sum_y = zero
        for i in range(size):
            sum_y = add(sum_y, sub(load(x, at + i * LANES), low))
        inverse = _inverse(sub(high, low))
        # the error, less the sum of squares, of no scale at all: the mean, or 0 where that is above
        mean = add(divide(sum_y, n), low)
        best_scale, best_offset = zero, where_less(mean, zero, mean, zero)
        o = sub(best_offset, low)
        best = mul(o, sub(mul(n, o), add(sum_y, sum_y)))
        for index in range(len(tops)):
            stretch = mul(inverse, splat(tops[index]))
            sum_q, sum_qq, sum_yq = zero, zero, zero
            for i in range(size):
                y = sub(load(x, at + i * LANES), low)
                q = _code(mul(y, stretch), zero, top_code)
                sum_q, sum_qq, sum_yq = add(sum_q, q), fma(q, q, sum_qq), fma(y, q, sum_yq)
            # two unknowns; where the minimum would be negative, or all codes are one, it is 0 and the scale alone is left
            over = _inverse(sub(mul(n, sum_qq), mul(sum_q, sum_q)))
            scale = mul(sub(mul(n, sum_yq), mul(sum_y, sum_q)), over)
            offset = add(mul(sub(mul(sum_qq, sum_y), mul(sum_q, sum_yq)), over), low)
            alone = mul(fma(low, sum_q, sum_yq), _inverse(sum_qq))
            bad = where_less(offset, splat(_TINY), over, zero)
            scale = where_less(zero, bad, scale, alone)
            offset = where_less(zero, bad, offset, zero)
            o = sub(offset, low)
            cross = sub(mul(mul(scale, o), sum_q), fma(scale, sum_yq, mul(o, sum_y)))
            error = add(fma(mul(scale, scale), sum_qq, mul(mul(n, o), o)), add(cross, cross))
            takes = where_less(scale, zero, splat(_HUGE), error)
            best_scale = where_less(takes, best, scale, best_scale)
            best_offset = where_less(takes, best, offset, best_offset)
            best = where_less(takes, best, takes, best)
        store(scales, tile * LANES, best_scale)
        store(minimums, tile * LANES, sub(zero, best_offset))


@kernel
def fit_symmetric(x: Any, size: int, least: int, most: int, tops: Any, scales: Any) -> None:
    """Fits x = scale * code with codes from `least` to `most`, for each block; the scale may be negative.

    `x` is T B 16, flat; `size` is B; each of `tops` is the code that the weight of largest magnitude would get in one try.
    """
    zero, low_code, top_code = splat(np.float32(0)), splat(np.float32(least)), splat(np.float32(most))
    for tile in range(len(scales) // LANES):
        at = tile * size * LANES
        largest = zero
        for i in range(size):
            value = load(x, at + i * LANES)
            largest = where_less(absolute(largest), absolute(value), value, largest)
        inverse = _inverse(largest)
        best, best_scale = zero, zero
        for index in range(len(tops)):
            stretch = mul(inverse, splat(tops[index]))
            sum_qq, sum_xq = zero, zero
            for i in range(size):
                value = load(x, at + i * LANES)
                q = _code(mul(value, stretch), low_code, top_code)
                sum_qq, sum_xq = fma(q, q, sum_qq), fma(value, q, sum_xq)
            scale = mul(sum_xq, _inverse(sum_qq))
            gain = mul(scale, sum_xq)
            best_scale = where_less(best, gain, scale, best_scale)
            best = where_less(best, gain, gain, best)
        store(scales, tile * LANES, best_scale)


@kernel
def round_affine(
    x: Any, size: int, most: int, units: Any, minimum_units: Any, last: int, scales: Any, minimums: Any, codes: Any
) -> None:
    """Chooses for each block the whole scale and minimum (0 to `last`) near the given ones, and the codes, of least error.

    A weight is units * scale * code - minimum_units * minimum. `scales` and `minimums` come rounded and are replaced;
    `codes` is int8, T B 16.
    """
    zero, top_code = splat(np.float32(0)), splat(np.float32(most))
    for tile in range(len(scales) // LANES):
        at, first = tile * size * LANES, tile * LANES
        unit, minimum_unit = load(units, first), load(minimum_units, first)
        old_scale, old_minimum = load(scales, first), load(minimums, first)
        best, best_scale, best_minimum = splat(_HUGE), old_scale, old_minimum
        for turn in range(9):
            scale = _code(add(old_scale, splat(np.float32(turn // 3 - 1))), zero, splat(np.float32(last)))
            minimum = _code(add(old_minimum, splat(np.float32(turn % 3 - 1))), zero, splat(np.float32(last)))
            step, offset = mul(unit, scale), mul(minimum_unit, minimum)
            inverse, error = _inverse(step), zero
            for i in range(size):
                y = add(load(x, at + i * LANES), offset)
                miss = sub(y, mul(step, _code(mul(y, inverse), zero, top_code)))
                error = fma(miss, miss, error)
            best_scale = where_less(error, best, scale, best_scale)
            best_minimum = where_less(error, best, minimum, best_minimum)
            best = where_less(error, best, error, best)
        store(scales, first, best_scale)
        store(minimums, first, best_minimum)
        inverse, offset = _inverse(mul(unit, best_scale)), mul(minimum_unit, best_minimum)
        for i in range(size):
            y = add(load(x, at + i * LANES), offset)
            store(codes, at + i * LANES, _code(mul(y, inverse), zero, top_code))


@kernel
def round_symmetric(
    x: Any, size: int, least: int, most: int, units: Any, first_scale: int, last_scale: int, scales: Any, codes: Any
) -> None:
    """Chooses for each block the whole scale near the given one, and the codes, of least error.

    A weight is units * scale * code; scales are `first_scale` to `last_scale`. `scales` come rounded and are replaced;
    `codes` is int8, T B 16.
    """
    low_code, top_code = splat(np.float32(least)), splat(np.float32(most))
    for tile in range(len(scales) // LANES):
        at, first = tile * size * LANES, tile * LANES
        unit, old_scale = load(units, first), load(scales, first)
        best, best_scale = splat(_HUGE), old_scale
        for turn in range(3):
            moved = add(old_scale, splat(np.float32(turn - 1)))
            scale = _code(moved, splat(np.float32(first_scale)), splat(np.float32(last_scale)))
            step = mul(unit, scale)
            inverse, error = _inverse(step), splat(np.float32(0))
            for i in range(size):
                value = load(x, at + i * LANES)
                miss = sub(value, mul(step, _code(mul(value, inverse), low_code, top_code)))
                error = fma(miss, miss, error)
            best_scale = where_less(error, best, scale, best_scale)
            best = where_less(error, best, error, best)
        store(scales, first, best_scale)
        inverse = _inverse(mul(unit, best_scale))
        for i in range(size):
            value = load(x, at + i * LANES)
            store(codes, at + i * LANES, _code(mul(value, inverse), low_code, top_code))
