"""Softmax and weighted sums of one segment for a tile of queries, the hot loop of attention.

The result is a record for each query: L sums of weighted values, and in the 16 floats after them the largest score and the
sum of weights. A tile's queries see the segment from their own `low` to their own `high`; positions that all see are
mixed together, the others one query at a time, so memory that a query does not see never enters its sums, not even times 0.
"""

# R queries of a tile, L head_dim rounded up to whole vectors

# mypy: disallow-untyped-decorators=False

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels import vectors
from firsthand.kernels.attention.query_tiles import MOST, SEGMENT, beside, mix, score
from firsthand.kernels.jit import called, named
from firsthand.kernels.vectors import LANES, add, larger, largest, load, mul, splat, store, sub, total, where_between

GROUPS = SEGMENT // LANES
LOWEST = np.float32(-1e30)
"""Used for minus infinity, so that the difference of two is 0 and not NaN."""
_ZERO = np.float32(0.0)


@called
def _find_largest(weights: Any, at: int, low: int, high: int, k_scales: Any, places: Any) -> Any:
    """The largest of a query's scores of the positions `low` to `high`; the scores of other positions become lowest."""
    top = splat(LOWEST)
    for j in range(low // LANES, (high + LANES - 1) // LANES):
        scores = load(weights, at + j * LANES)
        if len(k_scales):
            scores = mul(scores, load(k_scales, places[2 * GROUPS + j]))
            store(weights, at + j * LANES, scores)
        if low > j * LANES or high < (j + 1) * LANES:
            scores = where_between(low - j * LANES, high - j * LANES, scores, splat(LOWEST))
            store(weights, at + j * LANES, scores)
        top = larger(scores, top)
    return largest(top)


@called
def _exponentiate(weights: Any, at: int, low: int, high: int, most: Any, v_scales: Any, places: Any) -> Any:
    """Turn a query's scores into weights, exp(score - most), and return their sum."""
    sums = splat(_ZERO)
    for j in range(low // LANES, (high + LANES - 1) // LANES):
        shares = vectors.exp(sub(load(weights, at + j * LANES), splat(most)))
        if low > j * LANES or high < (j + 1) * LANES:
            shares = where_between(low - j * LANES, high - j * LANES, shares, splat(_ZERO))
        sums = add(sums, shares)
        if len(v_scales):
            shares = mul(shares, load(v_scales, places[2 * GROUPS + j]))
        store(weights, at + j * LANES, shares)
    return total(sums)


def _mixer(queries: int) -> Any:
    """A function that mixes all columns of R queries over a range of positions."""
    width = beside(queries)
    mix_many, mix_one = mix(queries, width), mix(queries, 1)

    @called
    @named(f"mix_rows_{queries}")
    def mix_rows(
        weights: Any, first: int, keys: Any, values: Any, places: Any, block_size: int, padded: int, low: int, high: int,
        records: Any, at: int,
    ) -> None:  # fmt: skip
        c, row = 0, padded + LANES
        while c + width * LANES <= padded:
            mix_many(
                weights, first, values, c, places, GROUPS, padded, low, high, records, at + c, row, keys, block_size
            )
            c += width * LANES
        while c < padded:
            mix_one(
                weights, first, values, c, places, GROUPS, padded, low, high, records, at + c, row, keys, block_size
            )
            c += LANES

    return mix_rows


_mix_row = _mixer(1)


def _segment(queries: int) -> Any:
    """A function that computes the records of R queries for one segment."""
    width = beside(queries)
    score_many, score_one, mix_rows = score(queries, width), score(queries, 1), _mixer(queries)

    @called
    @named(f"segment_{queries}")
    def segment(
        q: Any, q_at: int, cache: Any, places: Any, heads: Any, bounds: Any, first: int, weights: Any, records: Any
    ) -> None:
        keys, values, block_size, head_dim = cache.keys, cache.values, heads.block_size, heads.head_dim
        lows, highs = bounds.lows, bounds.highs
        padded = (head_dim + LANES - 1) // LANES * LANES
        record = padded + LANES
        low, high, all_from, all_to = SEGMENT, 0, 0, SEGMENT
        for i in range(first, first + queries):
            if lows[i] < highs[i]:
                low, high = min(low, lows[i]), max(high, highs[i])
                all_from, all_to = max(all_from, lows[i]), min(all_to, highs[i])
        if low >= high:
            return
        j, last = low // LANES, (high + LANES - 1) // LANES
        while j + width <= last:
            score_many(q, q_at, keys, places, j, block_size, head_dim, weights, j * LANES, values, GROUPS + j)
            j += width
        while j < last:
            score_one(q, q_at, keys, places, j, block_size, head_dim, weights, j * LANES, values, GROUPS + j)
            j += 1
        for r in range(queries):
            low, high = lows[first + r], highs[first + r]
            if low < high:
                records[r * record + padded] = _find_largest(weights, r * SEGMENT, low, high, cache.key_scales, places)
        for r in range(queries):
            low, high, at = lows[first + r], highs[first + r], r * record
            for column in range(0, padded, LANES):
                store(records, at + column, splat(_ZERO))
            if low < high:
                most = records[at + padded]
                records[at + padded + 1] = _exponentiate(
                    weights, r * SEGMENT, low, high, most, cache.value_scales, places
                )
                before = min(all_from, high) if all_from < all_to else high
                if low < before:
                    _mix_row(weights, r * SEGMENT, keys, values, places, block_size, padded, low, before, records, at)
        if all_from < all_to:
            mix_rows(weights, 0, keys, values, places, block_size, padded, all_from, all_to, records, 0)
            for r in range(queries):
                if lows[first + r] < highs[first + r] and all_to < highs[first + r]:
                    at, high = r * record, highs[first + r]
                    _mix_row(weights, r * SEGMENT, keys, values, places, block_size, padded, all_to, high, records, at)

    return segment


# fmt: off
_one, _two, _three, _four, _seven, _eight = (_segment(queries) for queries in (1, 2, 3, 4, 7, 8))


@called
def segment_of(
    queries: int, q: Any, q_at: int, cache: Any, places: Any, heads: Any, bounds: Any, first: int, weights: Any,
    records: Any,
) -> None:
    """Call the function compiled for this number of queries."""
    if queries == 1:
        _one(q, q_at, cache, places, heads, bounds, first, weights, records)
    elif queries == 2:
        _two(q, q_at, cache, places, heads, bounds, first, weights, records)
    elif queries == 3:
        _three(q, q_at, cache, places, heads, bounds, first, weights, records)
    elif queries == 4:
        _four(q, q_at, cache, places, heads, bounds, first, weights, records)
    elif queries == 7:
        _seven(q, q_at, cache, places, heads, bounds, first, weights, records)
    else:
        _eight(q, q_at, cache, places, heads, bounds, first, weights, records)
# fmt: on


@called
def tile_of(left: int) -> int:
    """The number of queries in the next tile: 8, 7, 4, 3, 2 or 1; 3 and 3 rather than 4 and 2."""
    if left >= 7 and MOST == 8:
        return min(left, 8)
    return 4 if left == 4 and MOST == 8 else min(left, 3)
