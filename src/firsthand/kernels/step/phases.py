"""The phases of a compiled step: lists of independent items that the threads of a team share (`team`).

Products are `products` and `dense`, what happens to rows between them `rows`, attention `attention`, adapters `adapt`.
`step` puts the phases in order.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import numpy as np

from firsthand.kernels.attention.paged_cpu import attend, merge, write
from firsthand.kernels.jit import called
from firsthand.kernels.products.blockwise_products import multiply
from firsthand.kernels.products.float_products import FLOAT16, multiply_dense
from firsthand.kernels.products.rounded_rows import round_row
from firsthand.kernels.step.row_ops import (
    GELU,
    add_row,
    gate_row,
    gate_row_exactly,
    highest,
    mass,
    normalise,
    rotate_head,
)
from firsthand.kernels.step.thread_team import done, take, wait

MANY = 16
"""Rows from which work is shared out in smaller pieces: with fewer, taking a piece costs as much as it evens out."""
Q_NORM, K_NORM, Q_BIAS, K_BIAS, V_BIAS, O_BIAS, GATE_BIAS, UP_BIAS, DOWN_BIAS = range(4, 13)
"""Columns of the table of places in `vectors`, after those of `step`; -1 is none."""


@called
def _share(rows: int, threads: int) -> int:
    """Rows of an item, so that each thread gets a few."""
    return max(1, min(16, rows // (2 * threads)))


@called
def _plus(values: Any, at: int, width: int, vectors: Any, place: int) -> None:
    if place >= 0:
        add_row(values, at, width, vectors, place)


@called
def products(
    team: Any, phase: int, threads: int, matrices: Any, columns: Any, first: int, last: int, rows: int,
    rest: Any, stride: int, rounded: Any, out: Any, out_stride: int,
) -> None:  # fmt: skip
    """All rows times some matrices, side by side in `out`; an item is a share of all their pairs of tiles.

    Dense matrices take the rows from `rest`, `stride` apart, blockwise ones from `rounded`.
    """
    pairs = 0
    for which in range(first, last):
        pairs += (matrices[which, 2] + 1) // 2
    items = min(pairs, threads * (4 if rows < MANY else 8))
    while True:
        item = take(team, phase)
        if item >= items:
            break
        start, end = item * pairs // items, (item + 1) * pairs // items
        for which in range(first, last):
            tiles = matrices[which, 2]
            count = (tiles + 1) // 2
            if start < count and end > 0:
                here, there = max(start, 0), min(end, count)
                if matrices[which, 1] >= FLOAT16:
                    multiply_dense(matrices[which], 2 * here, min(2 * there, tiles), rows, rest, stride, out,
                                   columns[which], out_stride)  # fmt: skip
                else:
                    multiply(matrices[which], here, there, rows, rounded, out, columns[which], out_stride)
            start, end = start - count, end - count
        done(team, phase)
    wait(team, phase, items)


@called
def _round(values: Any, at: int, width: int, rounded: Any, row: int, rows: int) -> None:
    """Round a row for blockwise matrices, if there are any."""
    if len(rounded) > 0:
        round_row(values, at, width, rounded, row, rows)


@called
def round_rows(team: Any, phase: int, threads: int, rows: int, values: Any, width: int, rounded: Any) -> None:
    if len(rounded) == 0:
        return
    each = _share(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            _round(values, row * width, width, rounded, row, rows)
        done(team, phase)
    wait(team, phase, items)


@called
def enter_rows(
    team: Any, phase: int, threads: int, rows: int, width: int, stream: Any, news: Any, vectors: Any, bias: int,
    out_norm: int, norm: int, eps: Any, rest: Any, rounded: Any,
) -> None:  # fmt: skip
    """Add what a sublayer brought (with its bias and own norm) to the residual stream, and make the next one's input."""
    each = _share(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            at = row * width
            _plus(news, at, width, vectors, bias)
            if out_norm >= 0:
                normalise(news, at, width, vectors, out_norm, eps, news, at)
            add_row(stream, at, width, news, at)
            if norm >= 0:
                normalise(stream, at, width, vectors, norm, eps, rest, at)
                _round(rest, at, width, rounded, row, rows)
        done(team, phase)
    wait(team, phase, items)


@called
def embed_rows(
    team: Any, phase: int, threads: int, ids: Any, width: int, embed: Any, factor: Any, stream: Any, vectors: Any,
    norm: int, eps: Any, rest: Any, rounded: Any,
) -> None:  # fmt: skip
    rows = len(ids)
    each = _share(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            at, source = row * width, ids[row] * width
            for i in range(width):
                stream[at + i] = embed[source + i] * factor
            normalise(stream, at, width, vectors, norm, eps, rest, at)
            _round(rest, at, width, rounded, row, rows)
        done(team, phase)
    wait(team, phase, items)


@called
def gate_rows(
    team: Any, phase: int, threads: int, rows: int, width: int, wide: Any, vectors: Any, gate_bias: int, up_bias: int,
    activation: int, has_dense: int, rest: Any, rounded: Any,
) -> None:  # fmt: skip
    each = _share(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            at = row * 2 * width
            _plus(wide, at, width, vectors, gate_bias)
            _plus(wide, at + width, width, vectors, up_bias)
            if activation == GELU:
                gate_row_exactly(wide, at, width, wide, at + width)
            else:
                gate_row(wide, at, width, wide, at + width, activation)
            _round(wide, at, width, rounded, row, rows)
            if has_dense:
                for i in range(width):
                    rest[row * width + i] = wide[at + i]
        done(team, phase)
    wait(team, phase, items)


@called
def _turn_head(
    values: Any, at: int, head_dim: int, vectors: Any, norm: int, eps: Any, cos: Any, sin: Any, angles: int
) -> None:
    if norm >= 0:
        normalise(values, at, head_dim, vectors, norm, eps, values, at)
    rotate_head(values, at, head_dim, cos, sin, angles)


@called
def turn_rows(
    team: Any, phase: int, threads: int, rows: int, wide: Any, vectors: Any, places: Any, heads: int, kv_heads: int,
    head_dim: int, eps: Any, cos: Any, sin: Any, angles: int, positions: Any, slots: Any, keys: Any, values: Any,
    key_scales: Any, value_scales: Any, block_size: int,
) -> None:  # fmt: skip
    """Biases, head norms and rotation for queries, keys and values, side by side; the last two into their pages."""
    q_width, k_width = heads * head_dim, kv_heads * head_dim
    width = q_width + 2 * k_width
    each = _share(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        first, last = item * each, min(item * each + each, rows)
        for row in range(first, last):
            at = row * width
            turn = angles + positions[row] * (head_dim // 2)
            _plus(wide, at, q_width, vectors, places[Q_BIAS])
            _plus(wide, at + q_width, k_width, vectors, places[K_BIAS])
            _plus(wide, at + q_width + k_width, k_width, vectors, places[V_BIAS])
            for head in range(heads):
                _turn_head(wide, at + head * head_dim, head_dim, vectors, places[Q_NORM], eps, cos, sin, turn)
            for head in range(heads, heads + kv_heads):
                _turn_head(wide, at + head * head_dim, head_dim, vectors, places[K_NORM], eps, cos, sin, turn)
        write(first, last, wide, q_width, width, wide, q_width + k_width, width, slots, keys, values, key_scales,
              value_scales, kv_heads, head_dim, block_size)  # fmt: skip
        done(team, phase)
    wait(team, phase, items)


@called
def rate_row(logits: Any, at: int, vocab: int, cap: Any) -> tuple[int, Any]:
    """The most probable token of a row, and log(sum(e ** logit)). A cap is put on the logits first."""
    if cap > 0:
        for i in range(vocab):
            logits[at + i] = cap * np.float32(math.tanh(logits[at + i] / cap))
    top = highest(logits, at, vocab)
    best = 0
    while best < vocab - 1 and logits[at + best] != top:
        best += 1
    return best, top + np.float32(math.log(mass(logits, at, vocab, top, np.float32(1.0))))


@called
def attend_rows(
    team: Any, phase: int, threads: int, wide: Any, q_stride: int, keys: Any, values: Any, key_scales: Any,
    value_scales: Any, tables: Any, tasks: Any, members: Any, positions: Any, slots: Any, merged: Any, heads: int,
    kv_heads: int, head_dim: int, block_size: int, scale: Any, window: int, partials: Any, out: Any,
) -> None:  # fmt: skip
    """Two phases: all tasks, then what must be merged."""
    items = len(tasks) * kv_heads
    each = max(1, items // (8 * threads))
    shares = (items + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= shares:
            break
        attend(
            item * each, min(item * each + each, items), wide, 0, q_stride, keys, values, key_scales, value_scales, tables,
            tasks, members, positions, slots, heads, kv_heads, head_dim, block_size, scale, window, partials, out,
        )  # fmt: skip
        done(team, phase)
    wait(team, phase, shares)
    items = len(merged) * heads
    each = max(1, items // (4 * threads))
    shares = (items + each - 1) // each
    while True:
        item = take(team, phase + 1)
        if item >= shares:
            break
        merge(
            item * each,
            min(item * each + each, items),
            merged,
            positions,
            slots,
            heads,
            head_dim,
            window,
            partials,
            out,
        )
        done(team, phase + 1)
    wait(team, phase + 1, shares)
