"""The compiled kernels of paged attention, `write`, `attend` and `merge`: they call no Python and kernels may call them.

A step is `write` for all rows, then `attend` for all items, then `merge` for all of its items. Each takes a range of
independent items, so threads may run different ranges side by side, and must wait for each other between the three.

The past of a token is cut at absolute positions into segments of `SEGMENT`. Softmax within a segment starts afresh and
gives a record (sums of weighted values, largest score, sum of weights; `segments.py`), and records are merged in ascending
order. An item of work is a kv head and a task of the plan (`plan.py`): some queries and either one segment, whose records
`merge` collects, or several, which it merges as it goes. Both give the same bits: they do the same in the same order.

Keys lie as B G K S, values as B G S L, and in int8 the scales of both as B G S. Importing this file imports numba.
"""

# N packed rows, H query heads, G kv heads, K head_dim, L K rounded up to whole vectors, B blocks, S slots of a block,
# R queries of a tile

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels import vectors
from firsthand.kernels.attention.query_tiles import MOST, SEGMENT
from firsthand.kernels.attention.segments import GROUPS, segment_of, tile_of
from firsthand.kernels.jit import called, kernel
from firsthand.kernels.vectors import LANES, fma, larger, largest, load, mul, prefetch, splat, store, total

_ONE, _ZERO = np.float32(1.0), np.float32(0.0)
_STEPS = np.float32(127.0)


@called
def _scale_of(line: Any) -> Any:
    """What the largest of some numbers, 127 steps, is divided by to give one step; NaN if not all are finite."""
    top, unsound = splat(_ZERO), splat(_ZERO)
    for d in range(0, len(line), LANES):
        x = load(line, d)
        top = larger(larger(x, mul(x, splat(-_ONE))), top)
        unsound = fma(x, splat(_ZERO), unsound)
    most = largest(top)
    return most if total(unsound) == _ZERO else np.float32(np.nan)


@called
def _rounded(line: Any, whole: Any) -> Any:
    """Put numbers as multiples of a scale, from -127 to 127 but not yet rounded, into `whole`; returns the scale."""
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


@kernel
def write(
    first_row: int, last_row: int, k: Any, k_start: int, k_stride: int, v: Any, v_start: int, v_stride: int, places: Any,
    keys: Any, values: Any, key_scales: Any, value_scales: Any, num_kv_heads: int, head_dim: int, block_size: int,
) -> None:  # fmt: skip
    """Put the keys and values of some packed rows into their slots; `places` has block * block_size + slot of each row.

    Row i's keys begin at k[k_start + i * k_stride], G times K of them.
    """
    padded = (head_dim + LANES - 1) // LANES * LANES
    line, whole = np.zeros(padded, dtype=np.float32), np.zeros(padded, dtype=np.float32)
    column = np.empty(padded, dtype=keys.dtype)
    for row in range(first_row, last_row):
        block, slot = places[row] // block_size, places[row] % block_size
        for g in range(num_kv_heads):
            page = (block * num_kv_heads + g) * block_size
            k_from, v_from = k_start + row * k_stride + g * head_dim, v_start + row * v_stride + g * head_dim
            line[:head_dim] = k[k_from : k_from + head_dim]
            if len(key_scales):
                key_scales[page + slot] = _rounded(line, whole)
                _write_key(whole, page * head_dim + slot, column, keys, block_size, head_dim)
            else:
                _write_key(line, page * head_dim + slot, column, keys, block_size, head_dim)
            line[:head_dim] = v[v_from : v_from + head_dim]
            if len(value_scales):
                value_scales[page + slot] = _rounded(line, whole)
            for d in range(0, padded, LANES):
                store(values, (page + slot) * padded + d, load(whole if len(value_scales) else line, d))


@called
def _copy(source: Any, source_at: int, target: Any, target_at: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(target, target_at + i, load(source, source_at + i))


@called
def _scaled(source: Any, source_at: int, factor: Any, target: Any, target_at: int, step: int, size: int) -> None:
    """Multiply numbers by a factor, 16 at a time to every `step`, and the rest one by one."""
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
def _locate(
    tables: Any, table: int, segment: int, end: int, g: int, num_kv_heads: int, head_dim: int, block_size: int, places: Any,
    at: int,
) -> None:  # fmt: skip
    """Where the vectors of a segment begin: from `places[at]` on 8 places of keys, 8 of values, 8 of scales."""
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
def _touch(keys: Any, values: Any, key_scales: Any, value_scales: Any, places: Any, at: int) -> None:
    """Call the beginnings of a segment's vectors near, a segment before: finding their pages is what takes longest."""
    for j in range(at, at + GROUPS):
        prefetch(keys, places[j])
        prefetch(values, places[GROUPS + j])
        if len(key_scales):
            prefetch(key_scales, places[2 * GROUPS + j])
            prefetch(value_scales, places[2 * GROUPS + j])


@called
def _end(tasks: Any, task: int, members: Any, positions: Any) -> int:
    """The position after the last that a task's queries see."""
    end = 0
    for i in range(tasks[task, 3], tasks[task, 3] + tasks[task, 4]):
        end = max(end, positions[members[i]] + 1)
    return end


@kernel
def attend(
    first_item: int, last_item: int, q: Any, q_start: int, q_stride: int, keys: Any, values: Any, key_scales: Any,
    value_scales: Any, tables: Any, tasks: Any, members: Any, positions: Any, slots: Any, num_heads: int, num_kv_heads: int,
    head_dim: int, block_size: int, scale: Any, window: int, partials: Any, out: Any,
) -> None:  # fmt: skip
    """Do some items; item i is kv head i % G of task i // G. Window 0 is none.

    Row i's queries begin at q[q_start + i * q_stride], H times K of them; its result goes to out[i * H * K] unless its task
    is split, then its records go to `partials` (one of L + 16 floats for each slot and head).
    """
    group = num_heads // num_kv_heads
    padded = (head_dim + LANES - 1) // LANES * LANES
    record = padded + LANES
    most = 0
    for task in range(first_item // num_kv_heads, (last_item + num_kv_heads - 1) // num_kv_heads):
        most = max(most, tasks[task, 4] * group)
    packed, states = np.empty(most * padded, dtype=np.float32), np.empty(most * record, dtype=np.float32)
    rows, afters = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    lows, highs = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    records, weights = np.empty(MOST * record, dtype=np.float32), np.empty(MOST * SEGMENT, dtype=np.float32)
    places = np.zeros(6 * GROUPS, dtype=np.int64)
    for item in range(first_item, last_item):
        task, g = item // num_kv_heads, item % num_kv_heads
        count, is_split = tasks[task, 4] * group, tasks[task, 5]
        for member in range(tasks[task, 4]):
            row = members[tasks[task, 3] + member]
            for h in range(group):
                rows[member * group + h] = row * num_heads + g * group + h
                afters[member * group + h] = positions[row] + 1
        first = 0
        while first < count:
            last = first + tile_of(count - first)
            for i in range(first, last):
                source = q_start + rows[i] // num_heads * q_stride + rows[i] % num_heads * head_dim
                target = first * padded + (i - first) * LANES
                _scaled(q, source, scale, packed, target, (last - first) * LANES, head_dim)
            first = last
        end = _end(tasks, task, members, positions)
        for segment in range(tasks[task, 1], tasks[task, 2]):
            if item == first_item and segment == tasks[task, 1]:
                _locate(tables, tasks[task, 0], segment, end, g, num_kv_heads, head_dim, block_size, places, 0)
            else:
                for j in range(3 * GROUPS):
                    places[j] = places[3 * GROUPS + j]
            if segment + 1 < tasks[task, 2]:
                _locate(
                    tables, tasks[task, 0], segment + 1, end, g, num_kv_heads, head_dim, block_size, places, 3 * GROUPS
                )
            elif item + 1 < last_item:
                after, next_g = (item + 1) // num_kv_heads, (item + 1) % num_kv_heads
                next_end = _end(tasks, after, members, positions)
                _locate(
                    tables, tasks[after, 0], tasks[after, 1], next_end, next_g, num_kv_heads, head_dim, block_size, places,
                    3 * GROUPS,
                )  # fmt: skip
            _touch(keys, values, key_scales, value_scales, places, 3 * GROUPS)
            for i in range(count):
                after = afters[i] - segment * SEGMENT
                lows[i], highs[i] = max(after - window, 0) if window > 0 else 0, min(after, SEGMENT)
            first = 0
            while first < count:
                last = first + tile_of(count - first)
                segment_of(
                    last - first, packed, first * padded, keys, values, key_scales, value_scales, places, block_size,
                    head_dim, lows, highs, first, weights, records,
                )  # fmt: skip
                for i in range(first, last):
                    if lows[i] >= highs[i]:
                        continue
                    source = (i - first) * record
                    if is_split:
                        row, head = rows[i] // num_heads, rows[i] % num_heads
                        _copy(records, source, partials, ((slots[row] + segment) * num_heads + head) * record, record)
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
    first_item: int, last_item: int, merged: Any, positions: Any, slots: Any, num_heads: int, head_dim: int, window: int,
    partials: Any, out: Any,
) -> None:  # fmt: skip
    """Merge the records of some items into their results; item i is head i % H of row merged[i // H]."""
    padded = (head_dim + LANES - 1) // LANES * LANES
    record = padded + LANES
    state = np.empty(record, dtype=np.float32)
    for item in range(first_item, last_item):
        row, head = merged[item // num_heads], item % num_heads
        first = _first_segment(positions[row], window)
        for segment in range(first, positions[row] // SEGMENT + 1):
            source = ((slots[row] + segment) * num_heads + head) * record
            if segment == first:
                _copy(partials, source, state, 0, record)
            else:
                _absorb(state, 0, partials, source, padded)
        _finish(state, 0, padded, out, (row * num_heads + head) * head_dim, head_dim)
