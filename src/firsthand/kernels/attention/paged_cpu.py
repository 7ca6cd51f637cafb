"""The compiled kernels of paged attention: `write`, `attend` and `merge`. Other kernels may call them.

A step runs `write` for all rows, then `attend` for all items, then `merge` for all of its items. Each takes a range of
independent items, so threads may run different ranges in parallel, with a barrier between the three.

A token's past is cut at absolute positions into segments of `SEGMENT`. Softmax is computed per segment and gives a record
(sums of weighted values, largest score, sum of weights; `segments.py`), and records are merged in ascending order. An item
is a kv head and a task of the plan (`work_split.py`): some queries and either one segment, whose records `merge` collects,
or several, which it merges on the way. Both give the same bits, since the order of operations is the same.

Keys are stored as B G K S, values as B G S P, and int8 scales of both as B G S. Importing this file imports numba.
"""

# N packed rows, H query heads, G kv heads, K head_dim, P K rounded up to whole vectors, B blocks, S slots of a block,
# R queries of a tile

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels import vectors
from firsthand.kernels.attention.attention_tables import (
    FIRST_MEMBER,
    FIRST_SEGMENT,
    IS_SPLIT,
    LAST_SEGMENT,
    NUM_MEMBERS,
    TABLE,
    SegmentBounds,
)
from firsthand.kernels.attention.query_tiles import MOST, SEGMENT
from firsthand.kernels.attention.segments import GROUPS, segment_of, tile_of
from firsthand.kernels.jit import called, kernel
from firsthand.kernels.vectors import LANES, fma, larger, largest, load, mul, prefetch, splat, store, total

_ONE, _ZERO = np.float32(1.0), np.float32(0.0)
_STEPS = np.float32(127.0)


@called
def _scale_of(line: Any) -> Any:
    """The largest magnitude of some numbers; NaN if not all are finite."""
    top, unsound = splat(_ZERO), splat(_ZERO)
    for d in range(0, len(line), LANES):
        x = load(line, d)
        top = larger(larger(x, mul(x, splat(-_ONE))), top)
        unsound = fma(x, splat(_ZERO), unsound)
    most = largest(top)
    return most if total(unsound) == _ZERO else np.float32(np.nan)


@called
def _rounded(line: Any, whole: Any) -> Any:
    """Divide numbers by their scale into `whole` (from -127 to 127, not rounded yet); returns the scale."""
    most = _scale_of(line)
    factor = _ZERO if most == _ZERO else _STEPS / most
    for d in range(0, len(line), LANES):
        store(whole, d, mul(load(line, d), splat(factor)))
    return most / _STEPS


@called
def _write_key(line: Any, place: int, column: Any, keys: Any, block_size: int, head_dim: int) -> None:
    for d in range(0, len(line), LANES):
        store(column, d, load(line, d))
    for d in range(head_dim):
        keys[place + d * block_size] = column[d]


@called
def _read_row(values: Any, start: int, line: Any, head_dim: int) -> None:
    """Copy numbers one by one: for a slice numba would compile its formatting of error messages, for seconds."""
    for d in range(head_dim):
        line[d] = values[start + d]


@kernel
def write(first_row: int, last_row: int, k: Any, v: Any, places: Any, cache: Any, heads: Any) -> None:
    """Write the keys and values of some packed rows into their slots; `places` has block * block_size + slot of each row.

    `k` and `v` are `RowView`s of G times K numbers, `cache` is `KeyValues`.
    """
    head_dim, block_size = heads.head_dim, heads.block_size
    key_scales, value_scales = cache.key_scales, cache.value_scales
    padded = (head_dim + LANES - 1) // LANES * LANES
    line, whole = np.zeros(padded, dtype=np.float32), np.zeros(padded, dtype=np.float32)
    column = np.empty(padded, dtype=cache.keys.dtype)
    for row in range(first_row, last_row):
        block, slot = places[row] // block_size, places[row] % block_size
        for g in range(heads.num_kv_heads):
            page = (block * heads.num_kv_heads + g) * block_size
            k_from, v_from = k.start + row * k.stride + g * head_dim, v.start + row * v.stride + g * head_dim
            _read_row(k.values, k_from, line, head_dim)
            if len(key_scales):
                key_scales[page + slot] = _rounded(line, whole)
                _write_key(whole, page * head_dim + slot, column, cache.keys, block_size, head_dim)
            else:
                _write_key(line, page * head_dim + slot, column, cache.keys, block_size, head_dim)
            _read_row(v.values, v_from, line, head_dim)
            if len(value_scales):
                value_scales[page + slot] = _rounded(line, whole)
            for d in range(0, padded, LANES):
                store(cache.values, (page + slot) * padded + d, load(whole if len(value_scales) else line, d))


@called
def _copy(source: Any, source_at: int, target: Any, target_at: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(target, target_at + i, load(source, source_at + i))


@called
def _scaled(source: Any, source_at: int, factor: Any, target: Any, target_at: int, step: int, size: int) -> None:
    """Multiply numbers by a factor, vector by vector into `target` at distance `step`, the rest one by one."""
    whole = size // LANES
    for part in range(whole):
        store(target, target_at + part * step, mul(load(source, source_at + part * LANES), splat(factor)))
    for i in range(size - whole * LANES):
        target[target_at + whole * step + i] = source[source_at + whole * LANES + i] * factor


@called
def _absorb(state: Any, at: int, record: Any, record_at: int, padded: int) -> None:
    """Merge the record of a later segment into the state of the earlier ones."""
    old, new = state[at + padded], record[record_at + padded]
    factor = vectors.exp(splat(old - new if new > old else new - old))
    kept, added = splat(_ONE), factor
    if new > old:
        kept, added = factor, splat(_ONE)
        state[at + padded] = new
    for i in range(0, padded, LANES):
        store(state, at + i, fma(load(state, at + i), kept, mul(load(record, record_at + i), added)))
    sums = fma(splat(state[at + padded + 1]), kept, mul(splat(record[record_at + padded + 1]), added))
    state[at + padded + 1] = largest(sums)


@called
def _locate(tables: Any, table: int, segment: int, end: int, g: int, heads: Any, places: Any, at: int) -> None:
    """Compute where the vectors of a segment begin: from `places[at]` on 8 places of keys, 8 of values, 8 of scales."""
    num_kv_heads, head_dim, block_size = heads.num_kv_heads, heads.head_dim, heads.block_size
    padded = (head_dim + LANES - 1) // LANES * LANES
    position = segment * SEGMENT
    index = position // block_size
    slot = position - index * block_size
    page = (tables[table + index] * num_kv_heads + g) * block_size
    for j in range(at, at + GROUPS):
        places[j] = page * head_dim + slot
        places[GROUPS + j] = (page + slot) * padded
        places[2 * GROUPS + j] = page + slot
        if position + LANES < end:  # else the rest is not read; it stays with the last vector
            position, slot = position + LANES, slot + LANES
            if slot == block_size:
                index, slot = index + 1, 0
                page = (tables[table + index] * num_kv_heads + g) * block_size


@called
def _touch(cache: Any, places: Any, at: int) -> None:
    """Prefetch the beginnings of a segment's vectors, a segment before: finding their pages is what takes longest."""
    for j in range(at, at + GROUPS):
        prefetch(cache.keys, places[j])
        prefetch(cache.values, places[GROUPS + j])
        if len(cache.key_scales):
            prefetch(cache.key_scales, places[2 * GROUPS + j])
            prefetch(cache.value_scales, places[2 * GROUPS + j])


@called
def _end(work: Any, task: int) -> int:
    """The position after the last that a task's queries see."""
    end, first = 0, work.tasks[task, FIRST_MEMBER]
    for i in range(first, first + work.tasks[task, NUM_MEMBERS]):
        end = max(end, work.positions[work.members[i]] + 1)
    return end


@kernel
def attend(
    first_item: int, last_item: int, q: Any, cache: Any, work: Any, heads: Any, scale: Any, window: int, partials: Any,
    out: Any,
) -> None:  # fmt: skip
    """Compute a range of items; item i is kv head i % G of task i // G. Window 0 is none.

    `q` is a `RowView` of H times K numbers. A row's result goes to out[i * H * K] unless its task is split, then its records
    go to `partials` (one of P + 16 floats for each slot and head).
    """
    num_heads, num_kv_heads, head_dim = heads.num_heads, heads.num_kv_heads, heads.head_dim
    tables, tasks = work.tables, work.tasks
    group = num_heads // num_kv_heads
    padded = (head_dim + LANES - 1) // LANES * LANES
    record = padded + LANES
    most = 0
    for task in range(first_item // num_kv_heads, (last_item + num_kv_heads - 1) // num_kv_heads):
        most = max(most, tasks[task, NUM_MEMBERS] * group)
    packed, states = np.empty(most * padded, dtype=np.float32), np.empty(most * record, dtype=np.float32)
    rows, afters = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    lows, highs = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    bounds = SegmentBounds(lows, highs)
    records, weights = np.empty(MOST * record, dtype=np.float32), np.empty(MOST * SEGMENT, dtype=np.float32)
    places = np.zeros(6 * GROUPS, dtype=np.int64)
    for item in range(first_item, last_item):
        task, g = item // num_kv_heads, item % num_kv_heads
        table, first_segment, last_segment = tasks[task, TABLE], tasks[task, FIRST_SEGMENT], tasks[task, LAST_SEGMENT]
        count, is_split = tasks[task, NUM_MEMBERS] * group, tasks[task, IS_SPLIT]
        for member in range(tasks[task, NUM_MEMBERS]):
            row = work.members[tasks[task, FIRST_MEMBER] + member]
            for h in range(group):
                rows[member * group + h] = row * num_heads + g * group + h
                afters[member * group + h] = work.positions[row] + 1
        first = 0
        while first < count:
            last = first + tile_of(count - first)
            for i in range(first, last):
                source = q.start + rows[i] // num_heads * q.stride + rows[i] % num_heads * head_dim
                target = first * padded + (i - first) * LANES
                _scaled(q.values, source, scale, packed, target, (last - first) * LANES, head_dim)
            first = last
        end = _end(work, task)
        for segment in range(first_segment, last_segment):
            if item == first_item and segment == first_segment:
                _locate(tables, table, segment, end, g, heads, places, 0)
            else:
                for j in range(3 * GROUPS):
                    places[j] = places[3 * GROUPS + j]
            if segment + 1 < last_segment:
                _locate(tables, table, segment + 1, end, g, heads, places, 3 * GROUPS)
            elif item + 1 < last_item:
                after, next_g = (item + 1) // num_kv_heads, (item + 1) % num_kv_heads
                next_table, next_segment = tasks[after, TABLE], tasks[after, FIRST_SEGMENT]
                _locate(tables, next_table, next_segment, _end(work, after), next_g, heads, places, 3 * GROUPS)
            _touch(cache, places, 3 * GROUPS)
            for i in range(count):
                after = afters[i] - segment * SEGMENT
                lows[i], highs[i] = max(after - window, 0) if window > 0 else 0, min(after, SEGMENT)
            first = 0
            while first < count:
                last = first + tile_of(count - first)
                segment_of(last - first, packed, first * padded, cache, places, heads, bounds, first, weights, records)
                for i in range(first, last):
                    if lows[i] >= highs[i]:
                        continue
                    source = (i - first) * record
                    if is_split:
                        row, head = rows[i] // num_heads, rows[i] % num_heads
                        slot = (work.slots[row] + segment) * num_heads + head
                        _copy(records, source, partials, slot * record, record)
                    elif segment == _first_segment(afters[i] - 1, window):
                        _copy(records, source, states, i * record, record)
                    else:
                        _absorb(states, i * record, records, source, padded)
                first = last
        if not is_split:
            for i in range(count):
                _finish(states, i * record, padded, out, rows[i] * head_dim, head_dim)


@called
def _finish(state: Any, at: int, padded: int, out: Any, out_at: int, head_dim: int) -> None:
    """Divide by the sum of weights."""
    _scaled(state, at, _ONE / state[at + padded + 1], out, out_at, LANES, head_dim)


@called
def _first_segment(position: int, window: int) -> int:
    """The first segment that a token sees."""
    return max(position - window + 1, 0) // SEGMENT if window > 0 else 0


@kernel
def merge(
    first_item: int, last_item: int, merged: Any, work: Any, heads: Any, window: int, partials: Any, out: Any
) -> None:
    """Merge the records of a range of items into results; item i is head i % H of row merged[i // H]."""
    num_heads, head_dim = heads.num_heads, heads.head_dim
    padded = (head_dim + LANES - 1) // LANES * LANES
    record = padded + LANES
    state = np.empty(record, dtype=np.float32)
    for item in range(first_item, last_item):
        row, head = merged[item // num_heads], item % num_heads
        position = work.positions[row]
        first = _first_segment(position, window)
        for segment in range(first, position // SEGMENT + 1):
            source = ((work.slots[row] + segment) * num_heads + head) * record
            if segment == first:
                _copy(partials, source, state, 0, record)
            else:
                _absorb(state, 0, partials, source, padded)
        _finish(state, 0, padded, out, (row * num_heads + head) * head_dim, head_dim)
