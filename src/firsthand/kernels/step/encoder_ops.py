"""The encoder's operations between products, compiled: embeddings, residual sums with LayerNorm, attention.

Rows and texts are batch-invariant. Products are in `int16_products` and `amx_products`.
Shapes are not checked here: `nn/compiled_encoder.py` does. Widths are multiples of 32, a head's too.
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
from firsthand.kernels.products.int16_products import PANEL, number, offset, vector_at
from firsthand.kernels.vectors import (
    FLOATS,
    LANES,
    add,
    emit_loop,
    exp,
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
    sub,
    total,
    where_between,
)

_intrinsic: Any = intrinsic
QUERIES = 8
"""Queries of a text that are computed together."""
_ZERO, _ONE, _LOWEST = np.float32(0.0), np.float32(1.0), np.float32(-1e30)


@_intrinsic
def multiply(
    typing: Any, a: Any, a_at: Any, a_row: Any, b: Any, b_at: Any, b_row: Any, count: Any,
    out: Any, out_at: Any, out_row: Any,
) -> Any:  # fmt: skip
    """out[r, c] = the sum over `count` of a[r, k] * b[k, c], for 8 rows r and 32 columns c."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a_from, b_from, out_from = (pointer_to(builder, context, signature, args, i) for i in (0, 3, 7))
        rows = [offset(builder, a_from, (args[2], number(r))) for r in range(QUERIES)]
        fused = llvm_function(builder, "llvm.fma.v16f32", FLOATS, [FLOATS] * 3)

        def step(k: Any, sums: list[Any]) -> list[Any]:
            line = offset(builder, b_from, (k, args[5]))
            columns = [builder.load(vector_at(builder, line, c * LANES, FLOATS), align=4) for c in range(2)]
            results = []
            for r in range(QUERIES):
                each = splat_in(builder, builder.load(builder.gep(rows[r], [k])), FLOATS)
                results += [builder.call(fused, [each, columns[c], sums[2 * r + c]]) for c in range(2)]
            return results

        sums = emit_loop(builder, args[6], [ir.Constant(FLOATS, [0.0] * LANES)] * (2 * QUERIES), step)
        for r in range(QUERIES):
            target = offset(builder, out_from, (args[9], number(r)))
            for c in range(2):
                builder.store(sums[2 * r + c], vector_at(builder, target, c * LANES, FLOATS), align=4)
        return context.get_dummy_value()

    i = types.intp
    return types.void(a, i, i, b, i, i, i, out, i, i), generate


@inlined
def _norm(x: Any, at: int, width: int, gain: Any, bias: Any, eps: Any) -> None:
    """LayerNorm of a row, in place."""
    sums, squares = splat(_ZERO), splat(_ZERO)
    for c in range(0, width, LANES):
        sums = add(sums, load(x, at + c))
    mean = total(sums) / np.float32(width)
    for c in range(0, width, LANES):
        rest = sub(load(x, at + c), splat(mean))
        squares = fma(rest, rest, squares)
    share = _ONE / np.sqrt(total(squares) / np.float32(width) + eps)
    for c in range(0, width, LANES):
        rest = mul(sub(load(x, at + c), splat(mean)), splat(share))
        store(x, at + c, fma(rest, load(gain, c), load(bias, c)))


@kernel
def add_norm(x: Any, change: Any, gain: Any, bias: Any, eps: Any, num_rows: int, width: int) -> None:
    """x = LayerNorm(x + change): N D."""
    for row in range(num_rows):
        for c in range(row * width, (row + 1) * width, LANES):
            store(x, c, add(load(x, c), load(change, c)))
        _norm(x, row * width, width, gain, bias, eps)


@kernel
def embed(
    ids: Any, places: Any, words: Any, positions: Any, kind: Any, gain: Any, bias: Any, eps: Any, width: int, x: Any
) -> None:
    """x = LayerNorm(word + type + position): N D."""
    for row in range(len(ids)):
        for c in range(0, width, LANES):
            word = add(load(words, ids[row] * width + c), load(kind, c))
            store(x, row * width + c, add(word, load(positions, places[row] * width + c)))
        _norm(x, row * width, width, gain, bias, eps)


@inlined
def _softmax(scores: Any, at: int, length: int) -> Any:
    """exp(score - the largest) in place, and 1 over their sum. What lies behind the last score becomes 0."""
    most = splat(_LOWEST)
    for t in range(0, length, LANES):
        most = larger(most, where_between(0, length - t, load(scores, at + t), splat(_LOWEST)))
    peak, sums = splat(largest(most)), splat(_ZERO)
    for t in range(0, length, LANES):
        weight = where_between(0, length - t, exp(sub(load(scores, at + t), peak)), splat(_ZERO))
        store(scores, at + t, weight)
        sums = add(sums, weight)
    return _ONE / total(sums)


@inlined
def _place(column: int, aside: int) -> int:
    """Offset of a column, in panels of 32 that lie `aside` apart."""
    return column // PANEL * aside + column % PANEL


@kernel
def attend(
    qkv: Any, starts: Any, lengths: Any, num_heads: int, head_dim: int, scale: Any, aside: int, out: Any
) -> None:
    """Attention of each token over its own text: N D.

    `qkv` has a panel of rows for every 32 columns, `aside` apart; its columns are the heads' queries, keys, values.
    """
    width = num_heads * head_dim
    longest = (lengths.max() + 31) // 32 * 32 + LANES
    keys = np.zeros(head_dim * longest, np.float32)
    scores = np.zeros(QUERIES * longest, np.float32)
    queries = np.zeros(QUERIES * head_dim, np.float32)
    mixed = np.zeros(QUERIES * head_dim, np.float32)
    shares = np.zeros(QUERIES, np.float32)
    for text in range(len(starts)):
        start, length = starts[text], lengths[text]
        line = (length + 31) // 32 * 32 + LANES  # no power of two: its rows would share few places in the cache
        for h in range(num_heads):
            for d in range(head_dim):
                at = _place(width + h * head_dim + d, aside) + start * PANEL
                for t in range(length):
                    keys[d * line + t] = qkv[at + t * PANEL]
            for first in range(0, length, QUERIES):
                count = min(QUERIES, length - first)
                for d in range(0, head_dim, LANES):
                    at = _place(h * head_dim + d, aside) + (start + first) * PANEL
                    for r in range(count):
                        store(queries, r * head_dim + d, mul(load(qkv, at + r * PANEL), splat(scale)))
                for t in range(0, length, 32):
                    multiply(queries, 0, head_dim, keys, t, line, head_dim, scores, t, line)
                for r in range(count):
                    shares[r] = _softmax(scores, r * line, length)
                for d in range(0, head_dim, 32):
                    at = _place(2 * width + h * head_dim + d, aside) + start * PANEL
                    multiply(scores, 0, line, qkv, at, PANEL, length, mixed, d, head_dim)
                for r in range(count):
                    at = (start + first + r) * width + h * head_dim
                    for d in range(0, head_dim, LANES):
                        store(out, at + d, mul(load(mixed, r * head_dim + d), splat(shares[r])))
