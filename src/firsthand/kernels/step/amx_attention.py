"""Attention of packed texts on a processor's matrix tiles (AMX), compiled; numbers are split as in `amx_products`.

Texts are batch-invariant. Shapes are not checked here: `nn/compiled_encoder.py` does. A head's width is a multiple of 32.
"""

# N rows, D hidden, T length of a text
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from firsthand.kernels.jit import inlined, kernel
from firsthand.kernels.products.amx_products import (
    PANEL,
    ROWS,
    STEP,
    TILE,
    add_tiles,
    ahead,
    place_of,
    store_parts,
    tiles_off,
    tiles_on,
)
from firsthand.kernels.products.int16_products import vector_at
from firsthand.kernels.vectors import (
    INTS,
    LANES,
    SHORTS,
    add,
    exp,
    larger,
    largest,
    load,
    mul,
    pointer_to,
    splat,
    sub,
    total,
    where_between,
)

_intrinsic: Any = intrinsic
QUERIES = 2 * ROWS
"""Queries of a text that are computed together."""
_ZERO, _ONE, _LOWEST = np.float32(0.0), np.float32(1.0), np.float32(-1e30)


@_intrinsic
def _turn_tile(typing: Any, source: Any, at: Any, target: Any, to: Any) -> Any:
    """Write a tile's pairs of numbers with rows and columns exchanged."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        come, go = (pointer_to(builder, context, signature, args, i) for i in (0, 2))
        rows = [builder.load(vector_at(builder, come, r * STEP, INTS), align=2) for r in range(ROWS)]
        for apart in (1, 2, 4, 8):  # exchange the squares of this size that lie off the diagonal
            for r in range(ROWS):
                if r & apart:
                    continue
                upper, lower = rows[r], rows[r + apart]
                kept = [lane if not lane & apart else lane - apart + LANES for lane in range(LANES)]
                moved = [lane + apart if not lane & apart else lane + LANES for lane in range(LANES)]
                rows[r] = builder.shuffle_vector(upper, lower, ir.Constant(INTS, kept))
                rows[r + apart] = builder.shuffle_vector(upper, lower, ir.Constant(INTS, moved))
        for r, row in enumerate(rows):
            builder.store(row, vector_at(builder, go, r * STEP, INTS), align=2)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), generate


@_intrinsic
def _interleave(typing: Any, numbers: Any, at: Any, second: Any, out: Any, to: Any) -> Any:
    """Write 16 numbers and those at `second` behind them in turns."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, go = pointer_to(builder, context, signature, args, 0), pointer_to(builder, context, signature, args, 3)
        other = builder.gep(base, [args[2]])
        one, two = (builder.load(builder.bitcast(each, SHORTS.as_pointer()), align=2) for each in (base, other))
        order = [lane // 2 + lane % 2 * LANES for lane in range(2 * LANES)]
        turns = builder.shuffle_vector(one, two, ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), order))
        builder.store(turns, builder.bitcast(go, turns.type.as_pointer()), align=2)
        return context.get_dummy_value()

    i = types.intp
    return types.void(numbers, i, i, out, i), generate


@inlined
def _keys(qkv: Any, at: int, length: int, steps: int, aside: int, rows: Any, keys: Any, parts: int) -> None:
    """Write a head's keys as panels of weights: 32 keys are the outputs, the head's width the inputs."""
    for first in range(0, length, ROWS):
        for step in range(steps):
            for r in range(ROWS):
                line = at + step * aside + (first + r) * PANEL
                for c in range(0, STEP, LANES):
                    value = load(qkv, line + c) if first + r < length else splat(_ZERO)
                    store_parts(rows, r * STEP + c, value, parts)
            place = (first // PANEL * steps + step) * 2 * parts * TILE + first % PANEL // ROWS * TILE
            for low in range(parts):
                _turn_tile(rows, low * TILE, keys, place + low * 2 * TILE)


@inlined
def _values(
    qkv: Any, at: int, length: int, span: int, steps: int, aside: int, rows: Any, values: Any, parts: int
) -> None:
    """Write a head's values as panels of weights: the head's width is the outputs, tokens are the inputs."""
    for t in range(0, span, 2):
        for step in range(steps):
            for r in range(2):
                for c in range(0, STEP, LANES):
                    line = at + step * aside + (t + r) * PANEL + c
                    value = load(qkv, line) if t + r < length else splat(_ZERO)
                    store_parts(rows, r * STEP + c, value, parts)
            place = (step * (span // STEP) + t // STEP) * 2 * parts * TILE + t % STEP // 2 * STEP
            for c in range(2):
                for low in range(parts):
                    _interleave(rows, low * TILE + c * LANES, STEP, values, place + low * 2 * TILE + c * TILE)


@inlined
def _softmax(scores: Any, at: int, length: int, weights: Any, row: int, steps: int, parts: int) -> Any:
    """Write exp(score - the largest) of a row as numbers of tiles, 0 behind the last; returns 1 over their sum."""
    most, whole = splat(_LOWEST), length // LANES * LANES
    for t in range(0, whole, LANES):
        most = larger(most, load(scores, at + t))
    if whole < length:
        most = larger(most, where_between(0, length - whole, load(scores, at + whole), splat(_LOWEST)))
    peak, sums = splat(largest(most)), splat(_ZERO)
    for t in range(0, whole, LANES):
        weight = exp(sub(load(scores, at + t), peak))
        store_parts(weights, place_of(row, t // STEP, steps, parts) + t % STEP, weight, parts)
        sums = add(sums, weight)
    for t in range(whole, steps * STEP, LANES):
        weight = where_between(0, length - t, exp(sub(load(scores, at + t), peak)), splat(_ZERO))
        store_parts(weights, place_of(row, t // STEP, steps, parts) + t % STEP, weight, parts)
        sums = add(sums, weight)
    return _ONE / total(sums)


@kernel
def attend(
    rows: Any, weights: Any, bias: Any, starts: Any, lengths: Any, num_heads: int, head_dim: int, scale: Any,
    num_rows: int, qkv: Any, out: Any, parts: int,
) -> None:  # fmt: skip
    """Attention of each token over its own text, as tiles of bfloat16 numbers: N D.

    `rows` times `weights` are the heads' queries, keys and values; they are computed and used head by head, so that they
    stay in the cache: `qkv` has room for one head's.
    """
    width, steps = num_heads * head_dim, head_dim // STEP
    inputs, aside = width // STEP, num_rows * PANEL
    longest = (lengths.max() + STEP - 1) // STEP * STEP
    keys, values = np.zeros(longest * head_dim * 2, np.int16), np.zeros(longest * head_dim * 2, np.int16)
    queries, tile = np.zeros(QUERIES * head_dim * 2, np.int16), np.zeros(2 * TILE, np.int16)
    shared = np.zeros(QUERIES * longest * 2, np.int16)
    scores = np.zeros(QUERIES * (longest + LANES), np.float32)
    mixed, shares = np.zeros(QUERIES * head_dim, np.float32), np.zeros(QUERIES, np.float32)
    nothing = np.zeros(PANEL, np.float32)
    tiles_on()
    for h in range(num_heads):
        for kind in range(3):
            for step in range(steps):
                panel = kind * inputs + h * steps + step
                for row in range(0, num_rows, 2 * ROWS):
                    add_tiles(
                        rows, row // ROWS * inputs * parts * TILE, inputs * parts * TILE,
                        weights, panel * inputs * 2 * parts * TILE, inputs, ahead(row, inputs, parts),
                        bias, panel * PANEL, True,
                        qkv, (kind * steps + step) * aside + row * PANEL, PANEL, row + ROWS < num_rows, parts,
                    )  # fmt: skip
        for text in range(len(starts)):
            start, length = starts[text], lengths[text]
            span = (length + STEP - 1) // STEP * STEP
            line = span + LANES  # no power of two: its rows would share few places in the cache
            at = start * PANEL
            _keys(qkv, at + steps * aside, length, steps, aside, tile, keys, parts)
            _values(qkv, at + 2 * steps * aside, length, span, steps, aside, tile, values, parts)
            for first in range(0, length, QUERIES):
                count = min(QUERIES, length - first)
                tall = count > ROWS
                for r in range(count):
                    for step in range(steps):
                        place, column = place_of(r, step, steps, parts), at + step * aside + (first + r) * PANEL
                        for c in range(0, STEP, LANES):
                            store_parts(queries, place + c, mul(load(qkv, column + c), splat(scale)), parts)
                for t in range(0, span, PANEL):
                    add_tiles(
                        queries, 0, steps * parts * TILE, keys, t // PANEL * steps * 2 * parts * TILE, steps, 0,
                        nothing, 0, True, scores, t, line, tall, parts,
                    )  # fmt: skip
                for r in range(count):
                    shares[r] = _softmax(scores, r * line, length, shared, r, span // STEP, parts)
                for step in range(steps):
                    add_tiles(
                        shared, 0, span // STEP * parts * TILE,
                        values, step * (span // STEP) * 2 * parts * TILE, span // STEP, 0,
                        nothing, 0, True, mixed, step * PANEL, head_dim, tall, parts,
                    )  # fmt: skip
                for r in range(count):
                    for step in range(steps):
                        place = place_of(start + first + r, h * steps + step, num_heads * steps, parts)
                        for c in range(0, STEP, LANES):
                            value = mul(load(mixed, r * head_dim + step * STEP + c), splat(shares[r]))
                            store_parts(out, place + c, value, parts)
    tiles_off()
