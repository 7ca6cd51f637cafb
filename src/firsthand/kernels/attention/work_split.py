"""Splits a step's attention into tasks: which rows are computed together, and which segments are shared.

A task is some packed rows and some segments of a past. A chunk of a prompt is cut into pieces of rows, each of which
reads its whole past. A chunk of few rows is *split* into tasks of a few segments where that is faster: because threads
would otherwise wait for a long sequence, or because other sequences share its blocks (a common prompt, a fork), so that
one task of one segment serves them all and reads the blocks once. No choice made here changes a bit of the results.

Importing this file imports numba.
"""

# C chunks, N packed rows, T tasks

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.attention.query_tiles import SEGMENT
from firsthand.kernels.jit import allocating, called, kernel

QUERIES = 48
"""Approximate queries per task, which share what is read from memory."""
FEW = 16
"""Rows up to which a chunk may be split."""
SLOTS = 1 << 16
"""Records of one head that a step may keep between attending and merging; chunks beyond it are not split."""
TASKS = 16
"""Tasks per thread that a long split sequence is cut into, or up to twice as many; each has some overhead."""
READING = 4
"""The cost of reading a position, in units of computing one query with it."""


@called
def _first_segment(start: int, window: int) -> int:
    return max(start - window + 1, 0) // SEGMENT if window > 0 else 0


@called
def _same_blocks(tables: Any, one: int, other: int, segment: int, block_size: int) -> bool:
    """True if two tables agree on all blocks of a segment."""
    for j in range(segment * SEGMENT // block_size, ((segment + 1) * SEGMENT - 1) // block_size + 1):
        if tables[one + j] != tables[other + j]:
            return False
    return True


@allocating
def _find_shared(spans: Any, tables: Any, block_size: int, window: int, firsts: Any, leaders: Any) -> None:
    """For each chunk and each segment wholly before it, the first chunk that has the same blocks there.

    Chunks are found by a segment's first block in a small hash table, and compared block by block.
    """
    chunks = len(spans)
    size = 4
    while size < 2 * chunks:
        size *= 2
    found = np.full(size, -1, dtype=np.int64)
    last = 0
    for c in range(chunks):
        if spans[c, 2] <= FEW:
            last = max(last, spans[c, 1] // SEGMENT)
    for segment in range(last):
        found[:] = -1
        for c in range(chunks):
            if spans[c, 2] > FEW or segment >= spans[c, 1] // SEGMENT or segment < _first_segment(spans[c, 1], window):
                continue
            at = tables[spans[c, 3] + segment * SEGMENT // block_size] * 0x9E3779B1 & (size - 1)
            while found[at] >= 0 and not _same_blocks(tables, spans[found[at], 3], spans[c, 3], segment, block_size):
                at = (at + 1) & (size - 1)
            if found[at] < 0:
                found[at] = c
            leaders[firsts[c] + segment] = found[at]


@kernel
def locate(spans: Any, tables: Any, block_size: int) -> Any:
    """Return (positions N, places N): where each packed row is in its sequence, and its block * block_size + slot."""
    rows = spans[-1, 0] + spans[-1, 2]
    positions, places = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int64)
    for c in range(len(spans)):
        for i in range(spans[c, 2]):
            position = spans[c, 1] + i
            positions[spans[c, 0] + i] = position
            block = tables[spans[c, 3] + position // block_size]
            places[spans[c, 0] + i] = block * block_size + position % block_size
    return positions, places


@kernel
def plan(spans: Any, tables: Any, block_size: int, group: int, window: int, threads: int) -> Any:
    """Return (tasks T 6, members, slots N, merged, cuts, number of slots) for a step.

    `spans` is C 4: a chunk's first packed row, its first position, its number of rows, and where its block table begins in
    `tables`. A task is (where its table begins, first segment, last segment + 1, first member, number of members, whether
    it is split); members are packed rows. The record of a split row's segment s is at slot slots[row] + s. `merged` are the
    split rows. `cuts` has threads + 1 entries: tasks cuts[t] to cuts[t + 1] are about one thread's share of the work.
    """
    chunks = len(spans)
    tile = max(QUERIES // group, 1)
    # segments of each chunk, those of chunk c at firsts[c] + segment
    firsts, known, rows, work = np.empty(chunks, dtype=np.int64), 0, 0, 0
    for c in range(chunks):
        first, last = _first_segment(spans[c, 1], window), (spans[c, 1] + spans[c, 2] - 1) // SEGMENT + 1
        firsts[c] = known - first
        known += last - first
        rows += spans[c, 2]
        work += (last - first) * (spans[c, 2] * group + READING)
    leaders = np.full(known, -1, dtype=np.int64)
    if chunks > 1:
        _find_shared(spans, tables, block_size, window, firsts, leaders)
    # followers: rows that share a leader's segment, the leader's own included
    followers = np.zeros(known, dtype=np.int64)
    for c in range(chunks):
        for segment in range(_first_segment(spans[c, 1], window), spans[c, 1] // SEGMENT):
            leader = leaders[firsts[c] + segment]
            if leader >= 0:
                followers[firsts[leader] + segment] += spans[c, 2]
    slots = np.zeros(rows, dtype=np.int64)
    is_split = np.zeros(chunks, dtype=np.bool_)
    num_slots, num_merged, num_tasks, num_members = 0, 0, 0, 0
    for c in range(chunks):
        first, last = _first_segment(spans[c, 1], window), (spans[c, 1] + spans[c, 2] - 1) // SEGMENT + 1
        is_shared = False
        for segment in range(first, spans[c, 1] // SEGMENT):
            leader = leaders[firsts[c] + segment]
            is_shared |= leader >= 0 and followers[firsts[leader] + segment] > spans[c, 2]
        is_long = threads > 1 and (last - first) * (spans[c, 2] * group + READING) * 2 * threads > work
        needed = (last - first) * spans[c, 2]
        if spans[c, 2] <= FEW and last - first > 1 and (is_shared or is_long) and num_slots + needed <= SLOTS:
            is_split[c] = True
            num_merged += spans[c, 2]
            num_members += needed
            num_tasks += (last - first) * ((spans[c, 2] + tile - 1) // tile)  # at most
            for i in range(spans[c, 2]):
                row_first = _first_segment(spans[c, 1] + i, window)
                slots[spans[c, 0] + i] = num_slots - row_first
                num_slots += (spans[c, 1] + i) // SEGMENT + 1 - row_first
        else:
            num_tasks += (spans[c, 2] + tile - 1) // tile
            num_members += spans[c, 2]
    is_done = np.zeros(known, dtype=np.bool_)
    tasks, costs = np.empty((num_tasks, 6), dtype=np.int64), np.empty(num_tasks, dtype=np.int64)
    members, merged = np.empty(num_members, dtype=np.int64), np.empty(num_merged, dtype=np.int64)
    num_tasks, num_members, num_merged = 0, 0, 0
    for c in range(chunks):
        row, start, count, table = spans[c, 0], spans[c, 1], spans[c, 2], spans[c, 3]
        if not is_split[c]:
            for i in range(0, count, tile):
                size = min(tile, count - i)
                first, last = _first_segment(start + i, window), (start + i + size - 1) // SEGMENT + 1
                num_tasks = _add(tasks, costs, num_tasks, table, first, last, num_members, size, group, 0)
                for j in range(size):
                    members[num_members + j] = row + i + j
                num_members += size
            continue
        for i in range(count):
            merged[num_merged + i] = row + i
        num_merged += count
        first, last = _first_segment(start, window), (start + count - 1) // SEGMENT + 1
        most = max((last - first) // (TASKS * threads), 1)
        alone = 0  # segments before this one that are this chunk's alone, and not in a task yet
        for segment in range(first, last):
            leader = leaders[firsts[c] + segment]
            at = firsts[leader] + segment
            is_alone = leader < 0 or followers[at] == count
            alone += is_alone
            if alone > 0 and (not is_alone or alone == most or segment + 1 == last):
                end = segment + is_alone
                begin, num_members = num_members, _join(members, num_members, row, count)
                for i in range(begin, num_members, tile):
                    size = min(tile, num_members - i)
                    num_tasks = _add(tasks, costs, num_tasks, table, end - alone, end, i, size, group, 1)
                alone = 0
            if is_alone or is_done[at]:
                continue  # this chunk's or another's tasks have it
            begin, is_done[at] = num_members, True
            for other in range(c, chunks):
                inside = _first_segment(spans[other, 1], window) <= segment < spans[other, 1] // SEGMENT
                if is_split[other] and inside and leaders[firsts[other] + segment] == leader:
                    num_members = _join(members, num_members, spans[other, 0], spans[other, 2])
            for i in range(begin, num_members, tile):
                size = min(tile, num_members - i)
                num_tasks = _add(tasks, costs, num_tasks, table, segment, segment + 1, i, size, group, 1)
    return tasks[:num_tasks], members[:num_members], slots, merged, _cuts(costs[:num_tasks], threads), num_slots


@called
def _join(members: Any, at: int, row: int, count: int) -> int:
    for i in range(count):
        members[at + i] = row + i
    return at + count


@called
def _add(tasks: Any, costs: Any, at: int, table: int, first: int, last: int, member: int, size: int, group: int,
         is_split: int) -> int:  # fmt: skip
    tasks[at, 0], tasks[at, 1], tasks[at, 2] = table, first, last
    tasks[at, 3], tasks[at, 4], tasks[at, 5] = member, size, is_split
    costs[at] = (last - first) * (size * group + READING)
    return at + 1


@allocating
def _cuts(costs: Any, threads: int) -> Any:
    cuts = np.full(threads + 1, len(costs), dtype=np.int64)
    whole, sofar, thread = costs.sum(), 0, 0
    for task in range(len(costs)):
        while thread < threads and sofar * threads >= whole * thread:
            cuts[thread] = task
            thread += 1
        sofar += costs[task]
    return cuts
