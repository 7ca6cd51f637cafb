"""Arranges the spans of a trace as a tree, whatever their parents say: missing ones, loops, and clocks that run backwards.

No span is left out. One whose parent has not come, and one of a loop of parents (the first by its start), stand at the top
with a remark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from firsthand.ingest.incoming_span import StoredSpan

NO_PARENT, LOOP, BACKWARDS = "its parent has not come", "its parents form a loop", "it ends before it begins"
UNFINISHED, AGAIN = "it has not ended", "its id came twice"


class PlacedSpan(NamedTuple):
    """A span with its place in the tree."""

    stored: StoredSpan
    number: int
    """Its index among the spans as they were given, by which its contents are asked for."""
    depth: int
    """0 at the top."""
    parent: int
    """The index of its parent among the placed spans; -1 at the top."""
    remarks: tuple[str, ...] = ()


def arranged(spans: Sequence[StoredSpan]) -> list[PlacedSpan]:
    """The spans, each before those under it; siblings by their start, and where that is equal by arrival."""
    by_id: dict[str, int] = {}
    for number, each in enumerate(spans):
        by_id.setdefault(each.span.span_id, number)
    parents = [by_id.get(each.span.parent_id, -1) if each.span.parent_id else -1 for each in spans]
    looped = _loop_starts(parents, spans)
    children: dict[int, list[int]] = {}
    for number, parent in enumerate(parents):
        children.setdefault(-1 if number in looped else parent, []).append(number)
    for siblings in children.values():
        siblings.sort(key=lambda number: (-spans[number].span.start_ns, -number))  # a stack gives the last one first
    placed: list[PlacedSpan] = []
    waiting = [(number, 0, -1) for number in children.get(-1, ())]
    while waiting:
        number, depth, parent = waiting.pop()
        placed.append(
            PlacedSpan(spans[number], number, depth, parent, _remarks(spans[number], parents[number], number in looped))
        )
        row = len(placed) - 1
        waiting += [(child, depth + 1, row) for child in children.get(number, ())]
    return placed


def _remarks(stored: StoredSpan, parent: int, is_loop: bool) -> tuple[str, ...]:
    span = stored.span
    found = []
    if is_loop:
        found.append(LOOP)
    elif span.parent_id and parent < 0:
        found.append(NO_PARENT)
    if not span.end_ns:
        found.append(UNFINISHED)
    elif span.end_ns < span.start_ns:
        found.append(BACKWARDS)
    if stored.copy:
        found.append(AGAIN)
    return tuple(found)


def _loop_starts(parents: Sequence[int], spans: Sequence[StoredSpan]) -> set[int]:
    """Of each loop of parents its first span by start: cut above it, the loop is a chain."""
    state = bytearray(len(parents))  # 0 not seen, 1 on the way, 2 known to reach the top
    starts = set()
    for first in range(len(parents)):
        path = []
        number = first
        while number >= 0 and state[number] == 0:
            state[number] = 1
            path.append(number)
            number = parents[number]
        if number >= 0 and state[number] == 1:
            loop = path[path.index(number) :]
            starts.add(min(loop, key=lambda each: (spans[each].span.start_ns, each)))
        for each in path:
            state[each] = 2
    return starts
