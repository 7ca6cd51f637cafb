"""The phases of a mixture of experts in a compiled step: route, group, multiply by expert, add up.

Each pair of a token and one of its experts is a row. Rows are sorted by expert, so an expert's matrices are read once for
all of its tokens. A *common* expert computes every token: a shared expert, or the only MLP of a layer without a router.

A thread that comes late to a phase may find the tables of a later layer. So the number of items of a phase depends on
sizes alone, and tables are read by those who hold an item.
"""

# N packed tokens, D hidden, F widest expert, E experts of a layer, C rows of a token, S = N * C sorted rows
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

from firsthand.kernels.jit import called
from firsthand.kernels.products.blockwise_products import multiply
from firsthand.kernels.products.float_products import FLOAT16, multiply_dense
from firsthand.kernels.products.rounded_rows import BLOCK, RECORD, round_row
from firsthand.kernels.step.expert_tables import CHOSEN, FIRST, GATE_OF, HAS_COMMON, IS_GATED, ROUTED
from firsthand.kernels.step.phases import rows_per_item
from firsthand.kernels.step.row_ops import GELU, LOWEST, gate_row, gate_row_exactly
from firsthand.kernels.step.step_tables import KIND, TILES
from firsthand.kernels.step.thread_team import done, take, wait
from firsthand.kernels.vectors import LANES, fma, load, mul, splat, store

ITEMS = 8
"""Items of a phase of products for each thread."""
LEAST = 4
"""Rows that cost as much as one: fewer of them wait for the weights."""


@called
def _choose(layer: Any, experts: Any, memory: Any, row: int) -> None:
    """The experts of one row, best first, and their weights; the common one last. Where all are NaN
    the first is chosen, and its weight is NaN."""
    logits, at, count, chosen = memory.logits, row * experts.stride, layer[ROUTED], layer[CHOSEN]
    to = row * experts.rows_of_token
    top, whole = LOWEST, 0.0
    for expert in range(count):
        top = max(top, logits[at + expert])
    if not experts.renormalise:
        for expert in range(count):
            whole += math.exp(logits[at + expert] - top)
    for place in range(chosen):
        best = 0
        for expert in range(1, count):
            if logits[at + expert] > logits[at + best]:
                best = expert
        memory.chosen[to + place] = best
        share = math.exp(logits[at + best] - top)
        logits[at + best] = -math.inf  # taken
        memory.shares[to + place] = share
        if experts.renormalise:
            whole += share
    for place in range(chosen):
        memory.shares[to + place] *= experts.scale / whole
    if layer[HAS_COMMON]:
        memory.chosen[to + chosen] = count
        share = 1.0
        if layer[IS_GATED]:
            share = 1.0 / (1.0 + math.exp(-logits[at + count]))
        memory.shares[to + chosen] = share


@called
def route_rows(team: Any, phase: int, threads: int, rows: int, layer: Any, experts: Any, memory: Any) -> None:
    """Choose the experts of each row from the router's logits."""
    each = rows_per_item(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            _choose(layer, experts, memory, row)
        done(team, phase)
    wait(team, phase, items)


@called
def group_rows(team: Any, phase: int, rows: int, layer: Any, experts: Any, memory: Any) -> None:
    """Sort the pairs of rows and experts by expert, and within one by row. One item."""
    count, per_row, starts = layer[ROUTED] + layer[HAS_COMMON], layer[CHOSEN] + layer[HAS_COMMON], memory.starts
    if take(team, phase) == 0:
        for expert in range(count + 2):
            starts[expert] = 0
        for row in range(rows):
            for place in range(per_row):
                starts[memory.chosen[row * experts.rows_of_token + place] + 2] += 1
        for expert in range(count):
            starts[expert + 2] += starts[expert + 1]
        for row in range(rows):  # starts[expert + 1] is the next free place of an expert, and in the end where it ends
            for place in range(per_row):
                at = row * experts.rows_of_token + place
                expert = memory.chosen[at]
                memory.places[at] = starts[expert + 1]
                memory.tokens[starts[expert + 1]] = row
                memory.owners[starts[expert + 1]] = expert
                starts[expert + 1] += 1
        done(team, phase)
    wait(team, phase, 1)


@called
def gather_rows(
    team: Any, phase: int, threads: int, rows: int, width: int, states: Any, experts: Any, memory: Any
) -> None:
    """Put the input of each sorted row, of so many, where its expert's products read it."""
    each = rows_per_item(rows, threads)
    items = (rows + each - 1) // each
    room = experts.widest // BLOCK * RECORD
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            source, expert = memory.tokens[row] * width, memory.owners[row]
            start, end = memory.starts[expert], memory.starts[expert + 1]
            if len(memory.rounded) > 0:
                round_row(states, source, width, memory.rounded[start * room :], row - start, end - start)
            if experts.has_dense:
                for place in range(0, width, LANES):
                    store(memory.states, row * width + place, load(states, source + place))
        done(team, phase)
    wait(team, phase, items)


@called
def _pairs(entry: Any, matrix: int, last: int) -> int:
    """Pairs of tiles of some matrices of an expert."""
    pairs = 0
    for which in range(matrix, last):
        pairs += (entry[which, TILES] + 1) // 2
    return pairs


@called
def _multiply_share(
    entry: Any, matrix: int, last: int, first_pair: int, last_pair: int, rows: int, x: Any, stride: int, rounded: Any,
    out: Any, out_stride: int,
) -> None:  # fmt: skip
    """Rows of one expert times some pairs of tiles of its matrices, which lie side by side in `out`."""
    column, start, end = 0, first_pair, last_pair
    for which in range(matrix, last):
        tiles = entry[which, TILES]
        count = (tiles + 1) // 2
        if start < count and end > 0:
            here, there = max(start, 0), min(end, count)
            if entry[which, KIND] >= FLOAT16:
                multiply_dense(entry[which], 2 * here, min(2 * there, tiles), rows, x, stride, out, column, out_stride)
            else:
                multiply(entry[which], here, there, rows, rounded, out, column, out_stride)
        start, end, column = start - count, end - count, column + tiles * LANES


@called
def expert_products(
    team: Any, phase: int, threads: int, layer: Any, experts: Any, memory: Any, matrix: int, last: int, x: Any,
    stride: int, out: Any, out_stride: int,
) -> None:  # fmt: skip
    """Each expert's rows times some of its matrices; items have equal shares of the work."""
    items, room = threads * ITEMS, experts.widest // BLOCK * RECORD
    count = layer[ROUTED] + layer[HAS_COMMON]
    while True:
        item = take(team, phase)
        if item >= items:
            break
        work = 0
        for expert in range(count):
            rows = memory.starts[expert + 1] - memory.starts[expert]
            if rows > 0:
                work += _pairs(experts.entries[layer[FIRST] + expert], matrix, last) * max(rows, LEAST)
        low, high = item * work // items, (item + 1) * work // items
        for expert in range(count):
            start = memory.starts[expert]
            rows = memory.starts[expert + 1] - start
            if rows > 0 and high > 0:
                entry, cost = experts.entries[layer[FIRST] + expert], max(rows, LEAST)
                pairs = _pairs(entry, matrix, last)
                here, there = max(0, (low + cost - 1) // cost), min(pairs, (high + cost - 1) // cost)
                if here < there:
                    rounded = memory.rounded[start * room :] if len(memory.rounded) > 0 else memory.rounded
                    _multiply_share(entry, matrix, last, here, there, rows, x[start * stride :], stride, rounded,
                                    out[start * out_stride :], out_stride)  # fmt: skip
                low, high = low - pairs * cost, high - pairs * cost
        done(team, phase)
    wait(team, phase, items)


@called
def gate_sorted_rows(
    team: Any, phase: int, threads: int, rows: int, activation: int, layer: Any, experts: Any, memory: Any
) -> None:
    """Activation of each sorted row's gate, times up; the result enters the next product."""
    wide, stride, room = memory.wide, 2 * experts.inner, experts.widest // BLOCK * RECORD
    each = rows_per_item(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            expert, at = memory.owners[row], row * stride
            start, end = memory.starts[expert], memory.starts[expert + 1]
            width = experts.entries[layer[FIRST] + expert, GATE_OF, TILES] * LANES
            if activation == GELU:
                gate_row_exactly(wide, at, width, wide, at + width)
            else:
                gate_row(wide, at, width, wide, at + width, activation)
            if len(memory.rounded) > 0:
                round_row(wide, at, width, memory.rounded[start * room :], row - start, end - start)
        done(team, phase)
    wait(team, phase, items)


@called
def add_experts(
    team: Any, phase: int, threads: int, rows: int, width: int, layer: Any, experts: Any, memory: Any, out: Any
) -> None:
    """The weighted sum of each token's experts, best first."""
    per_row = layer[CHOSEN] + layer[HAS_COMMON]
    each = rows_per_item(rows, threads)
    items = (rows + each - 1) // each
    while True:
        item = take(team, phase)
        if item >= items:
            break
        for row in range(item * each, min(item * each + each, rows)):
            at = row * experts.rows_of_token
            for place in range(0, width, LANES):
                first = load(memory.states, memory.places[at] * width + place)
                total = mul(first, splat(memory.shares[at]))
                for which in range(1, per_row):
                    lanes = load(memory.states, memory.places[at + which] * width + place)
                    total = fma(lanes, splat(memory.shares[at + which]), total)
                store(out, row * width + place, total)
        done(team, phase)
    wait(team, phase, items)
