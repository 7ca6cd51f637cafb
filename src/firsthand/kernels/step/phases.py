"""The phases of a compiled step: lists of independent items that a team of threads shares (`thread_team`).

`decoder_step` puts them in order. Products are in `products/`, operations on rows in `row_ops`, attention in
`attention/paged_cpu`, adapters in `lora_products`.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import numpy as np

from firsthand.kernels.attention.attention_tables import Heads, RowView
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
from firsthand.kernels.step.step_tables import (
    ATTENTION_NORM,
    GATE_BIAS,
    K_BIAS,
    K_NORM,
    KIND,
    Q_BIAS,
    Q_NORM,
    TILES,
    UP_BIAS,
    V_BIAS,
)
from firsthand.kernels.step.thread_team import done, take, wait

MANY = 16
"""RowView from which work is cut into smaller pieces; with fewer, the overhead of a piece outweighs the better balance."""


@called
def rows_per_item(rows: int, threads: int) -> int:
    """Rows per item, such that each thread gets a few items."""
    return max(1, min(16, rows // (2 * threads)))


@called
def _plus(values: Any, at: int, width: int, vectors: Any, place: int) -> None:
    if place >= 0:
        add_row(values, at, width, vectors, place)


@called
def products(team: Any, phase: int, threads: int, product: Any, rows: int, x: Any, out: Any) -> None:
    """All rows times some matrices, side by side in `out`; an item is a share of all their pairs of tiles."""
    matrices, columns = product.matrices, product.columns
    pairs = 0
    for which in range(product.first, product.last):
        pairs += (matrices[which, TILES] + 1) // 2
    items = min(pairs, threads * (4 if rows < MANY else 8))
    while True:
        item = take(team, phase)
        if item >= items:
            break
        start, end = item * pairs // items, (item + 1) * pairs // items
        for which in range(product.first, product.last):
            tiles = matrices[which, TILES]
            count = (tiles + 1) // 2
            if start < count and end > 0:
                here, there = max(start, 0), min(end, count)
                if matrices[which, KIND] >= FLOAT16:
                    multiply_dense(matrices[which], 2 * here, min(2 * there, tiles), rows, x.rest, x.stride, out.values,
                                   columns[which], out.stride)  # fmt: skip
                else:
                    multiply(matrices[which], here, there, rows, x.rounded, out.values, columns[which], out.stride)
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
    """Round rows for blockwise matrices, if there are any."""
    if len(rounded) == 0:
        return
    each = rows_per_item(rows, threads)
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
def enter_rows(team: Any, phase: int, threads: int, rows: int, width: int, norms: Any, memory: Any) -> None:
    """Add a sublayer's output (with its bias and norm) to the residual stream, and compute the next one's input."""
    stream, news, rest, vectors, eps = memory.stream, memory.wide, memory.rest, norms.vectors, norms.eps
    each = rows_per_item(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            at = row * width
            _plus(news, at, width, vectors, norms.bias)
            if norms.out_norm >= 0:
                normalise(news, at, width, vectors, norms.out_norm, eps, news, at)
            add_row(stream, at, width, news, at)
            if norms.norm >= 0:
                normalise(stream, at, width, vectors, norms.norm, eps, rest, at)
                _round(rest, at, width, memory.rounded, row, rows)
        done(team, phase)
    wait(team, phase, items)


@called
def embed_rows(team: Any, phase: int, threads: int, ids: Any, shape: Any, weights: Any, memory: Any) -> None:
    """Look up and scale the embeddings, and make the first layer's input."""
    width, embed, factor, stream, rest = shape.width, weights.embed, shape.embed_scale, memory.stream, memory.rest
    vectors, norm = weights.vectors, weights.places[0, ATTENTION_NORM]
    rows = len(ids)
    each = rows_per_item(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            at, source = row * width, ids[row] * width
            for i in range(width):
                stream[at + i] = embed[source + i] * factor
            normalise(stream, at, width, vectors, norm, shape.eps, rest, at)
            _round(rest, at, width, memory.rounded, row, rows)
        done(team, phase)
    wait(team, phase, items)


@called
def gate_rows(
    team: Any, phase: int, threads: int, rows: int, shape: Any, weights: Any, place: Any, memory: Any
) -> None:
    """Biases and activation of gate and up, side by side in `wide`; the result enters the next product."""
    width, wide, rest, vectors = shape.inner, memory.wide, memory.rest, weights.vectors
    each = rows_per_item(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            at = row * 2 * width
            _plus(wide, at, width, vectors, place[GATE_BIAS])
            _plus(wide, at + width, width, vectors, place[UP_BIAS])
            if shape.activation == GELU:
                gate_row_exactly(wide, at, width, wide, at + width)
            else:
                gate_row(wide, at, width, wide, at + width, shape.activation)
            _round(wide, at, width, memory.rounded, row, rows)
            if shape.has_dense:
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
    team: Any, phase: int, threads: int, shape: Any, weights: Any, place: Any, angles: int, positions: Any, wide: Any,
    slots: Any, cache: Any,
) -> None:  # fmt: skip
    """Biases, head norms and rotation for queries, keys and values, side by side; the last two into their pages."""
    heads, kv_heads, head_dim, eps = shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.eps
    vectors, cos, sin, rows = weights.vectors, weights.cos, weights.sin, len(positions)
    q_width, k_width = heads * head_dim, kv_heads * head_dim
    width = q_width + 2 * k_width
    keys, values = RowView(wide, q_width, width), RowView(wide, q_width + k_width, width)
    each = rows_per_item(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        first, last = item * each, min(item * each + each, rows)
        for row in range(first, last):
            at = row * width
            turn = angles + positions[row] * (head_dim // 2)
            _plus(wide, at, q_width, vectors, place[Q_BIAS])
            _plus(wide, at + q_width, k_width, vectors, place[K_BIAS])
            _plus(wide, at + q_width + k_width, k_width, vectors, place[V_BIAS])
            for head in range(heads):
                _turn_head(wide, at + head * head_dim, head_dim, vectors, place[Q_NORM], eps, cos, sin, turn)
            for head in range(heads, heads + kv_heads):
                _turn_head(wide, at + head * head_dim, head_dim, vectors, place[K_NORM], eps, cos, sin, turn)
        write(first, last, keys, values, slots, cache, Heads(heads, kv_heads, head_dim, shape.block_size))
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
    team: Any,
    phase: int,
    threads: int,
    q: Any,
    cache: Any,
    work: Any,
    merged: Any,
    shape: Any,
    window: int,
    memory: Any,
) -> None:
    """Two phases: all tasks, then what must be merged; results go to `rest`."""
    heads = Heads(shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.block_size)
    scale, partials, out = shape.attention_scale, memory.partials, memory.rest
    items = len(work.tasks) * shape.num_kv_heads
    each = max(1, items // (8 * threads))
    shares = (items + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= shares:
            break
        attend(item * each, min(item * each + each, items), q, cache, work, heads, scale, window, partials, out)
        done(team, phase)
    wait(team, phase, shares)
    items = len(merged) * shape.num_heads
    each = max(1, items // (4 * threads))
    shares = (items + each - 1) // each
    while True:
        item = take(team, phase + 1)
        if item >= shares:
            break
        merge(item * each, min(item * each + each, items), merged, work, heads, window, partials, out)
        done(team, phase + 1)
    wait(team, phase + 1, shares)
