"""The tables of a plan of attention, worked out by hand: which rows and segments each task has, what is split and shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
from firsthand.kernels.attention import work_split
from firsthand.kernels.attention.work_split import _cuts, _find_shared, _first_segment, _same_blocks, locate, plan
from interpreted_kernels import Interpreter

Spans = list[tuple[int, int]]


def tables_of(spans: Spans, tables: list[list[int]]) -> tuple[Any, Any]:
    """`spans` are a chunk's first position and its number of rows."""
    rows, row, place = [], 0, 0
    for (start, count), table in zip(spans, tables, strict=True):
        rows.append((row, start, count, place))
        row, place = row + count, place + len(table)
    return np.array(rows), np.array([block for table in tables for block in table])


def planned(
    spans: Spans, tables: list[list[int]], *, block: int, group: int, window: int = 0, threads: int = 1, **settings: int
) -> list[Any]:
    """Tasks, members, slots, merged rows, cuts and the number of slots."""
    spans_C4, flat = tables_of(spans, tables)
    found = Interpreter(**settings)(plan)(spans_C4, flat, block, group, window, threads)
    return [each.tolist() if isinstance(each, np.ndarray) else int(each) for each in found]


def test_a_prompt_is_cut_into_tasks_of_rows_that_each_read_what_they_see() -> None:
    blocks = list(range(30))
    tasks, members, slots, merged, cuts, num_slots = planned([(0, 40)], [blocks], block=16, group=3, threads=2)
    assert tasks == [[0, 0, 1, 0, 16, 0], [0, 0, 1, 16, 16, 0], [0, 0, 1, 32, 8, 0]]
    assert (members, slots, merged, num_slots) == (list(range(40)), [0] * 40, [], 0)
    assert cuts == [0, 2, 3]  # costs of 52, 52 and 28
    tasks, members, *_ = planned([(20, 1), (340, 34)], [blocks[:5], blocks], block=16, group=3, window=100)
    assert tasks == [[0, 0, 1, 0, 1, 0], [5, 1, 3, 1, 16, 0], [5, 2, 3, 17, 16, 0], [5, 2, 3, 33, 2, 0]]
    assert members == list(range(35))
    assert planned([(127, 2)], [blocks], block=16, group=50)[0] == [[0, 0, 1, 0, 1, 0], [0, 0, 2, 1, 1, 0]]


def test_a_long_chunk_is_split_where_a_thread_would_wait_for_it() -> None:
    spans, tables = [(1000, 1), (10, 1)], [list(range(63)), [70]]
    tasks, members, slots, merged, cuts, num_slots = planned(spans, tables, block=16, group=2, threads=2)
    assert tasks == [*([0, each, each + 1, each, 1, 1] for each in range(8)), [63, 0, 1, 8, 1, 0]]
    assert (members, slots, merged, num_slots) == ([0] * 8 + [1], [0, 0], [0], 8)
    assert cuts == [0, 5, 9]  # nine of the same cost
    assert planned(spans, tables, block=16, group=2, threads=1)[0] == [[0, 0, 8, 0, 1, 0], [63, 0, 1, 1, 1, 0]]
    # four alike on two threads are shares of a quarter: not more than half of a thread's
    alike = [list(range(20 * i, 20 * i + 20)) for i in range(4)]
    assert planned([(300, 1)] * 4, alike, block=16, group=2, threads=2)[3] == []
    assert planned([(300, 1)] * 3, alike[:3], block=16, group=2, threads=2)[3] == [0, 1, 2]
    assert planned([(100, 1)], [list(range(8))], block=16, group=2, threads=2)[3] == []  # one segment alone


def test_a_window_leaves_out_the_segments_before_it_in_tasks_and_slots() -> None:
    tasks, members, slots, merged, _, num_slots = planned(
        [(600, 3)], [list(range(40))], block=16, group=1, window=220, threads=3
    )
    assert tasks == [[0, 2, 3, 0, 3, 1], [0, 3, 4, 3, 3, 1], [0, 4, 5, 6, 3, 1]]
    assert members == [0, 1, 2] * 3
    assert (slots, merged, num_slots) == ([-2, 1, 4], [0, 1, 2], 9)
    _, _, slots, _, _, num_slots = planned([(602, 3)], [list(range(40))], block=16, group=1, window=220, threads=3)
    assert (slots, num_slots) == ([-2, 0, 2], 7)  # the last two do not see segment 2


def test_a_long_split_chunk_has_sixteen_tasks_a_thread_of_several_segments() -> None:
    tasks, members, *_, num_slots = planned([(100 * 128, 1)], [list(range(101))], block=128, group=8, threads=2)
    assert tasks == [[0, 3 * i, min(3 * i + 3, 101), i, 1, 1] for i in range(34)]
    assert (members, num_slots) == ([0] * 34, 101)
    tasks, *_ = planned([(2047, 1)], [list(range(16))], block=128, group=8, threads=2)
    assert [task[1:3] for task in tasks] == [[i, i + 1] for i in range(16)]


SHARING: tuple[Spans, list[list[int]]] = (
    [(261, 2), (296, 1), (130, 1)],
    [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2, 7]],
)
"""The first two share four blocks of 64, the third has two of them."""


def test_a_segment_with_the_same_blocks_is_one_task_for_all_that_see_it() -> None:
    tasks, members, slots, merged, cuts, num_slots = planned(*SHARING, block=64, group=20, threads=1)
    assert tasks == [
        [0, 0, 1, 0, 2, 1], [0, 0, 1, 2, 2, 1], [0, 1, 2, 4, 2, 1], [0, 1, 2, 6, 1, 1], [0, 2, 3, 7, 2, 1],
        [5, 2, 3, 9, 1, 1], [10, 1, 2, 10, 1, 1],
    ]  # fmt: skip
    assert members == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3]
    assert (slots, merged, cuts, num_slots) == ([0, 3, 6, 9], [0, 1, 2, 3], [0, 7], 11)
    # 11 records are room for all; with 10 the third is computed alone
    assert planned(*SHARING, block=64, group=20, SLOTS=11)[3] == [0, 1, 2, 3]
    tasks, members, slots, merged, _, num_slots = planned(*SHARING, block=64, group=20, SLOTS=10)
    assert tasks == [
        [0, 0, 1, 0, 2, 1], [0, 0, 1, 2, 1, 1], [0, 1, 2, 3, 2, 1], [0, 1, 2, 5, 1, 1], [0, 2, 3, 6, 2, 1],
        [5, 2, 3, 8, 1, 1], [10, 0, 2, 9, 1, 0],
    ]  # fmt: skip
    assert members == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3]
    assert (slots, merged, num_slots) == ([0, 3, 6, 0], [0, 1, 2], 9)


def test_segments_of_ones_own_are_joined_up_to_those_that_are_shared() -> None:
    own, others = list(range(40)), [100 + i for i in range(40)]
    others[5] = own[5]
    tasks, members, *_ = planned([(39 * 128, 1), (39 * 128 + 3, 1)], [own, others], block=128, group=48)
    first = [[0, 0, 2], [0, 2, 4], [0, 4, 5], [0, 5, 6], [0, 5, 6], *([0, i, i + 2] for i in range(6, 40, 2))]
    second = [[40, 0, 2], [40, 2, 4], [40, 4, 5], *([40, i, i + 2] for i in range(6, 40, 2))]
    assert [task[:3] for task in tasks] == first + second  # the shared one twice: a row a task, at 48 heads
    assert members == [0] * 3 + [0, 1] + [0] * 17 + [1] * 20
    assert all(task[4:] == [1, 1] for task in tasks)


def test_chunks_of_more_than_sixteen_rows_neither_share_nor_are_split() -> None:
    tables = [[1, 2, 3, 10 + i] for i in range(3)]
    for counts, merged in (((16, 17, 17), []), ((17, 16, 16), list(range(17, 49))), ((16, 16, 17), list(range(32)))):
        found = planned([(150, count) for count in counts], tables, block=64, group=1)
        assert found[3] == merged
        assert sum(task[4] for task in found[0] if not task[5]) == sum(counts) - len(merged)
    for window, merged in ((23, []), (24, [0, 1, 2])):  # position 150 sees 127 with 24
        assert planned([(150, 2), (150, 1)], tables[:2], block=64, group=1, window=window)[3] == merged
    assert planned([(150, 2), (151, 1)], tables[:2], block=64, group=1, window=24)[3] == []


def found_leaders(spans: Spans, tables: list[list[int]], block: int, window: int, segments: int) -> list[list[int]]:
    spans_C4, flat = tables_of(spans, tables)
    firsts = np.arange(len(spans)) * segments
    leaders = np.full(len(spans) * segments, -1)
    Interpreter()(_find_shared)(spans_C4, flat, block, window, firsts, leaders)
    return leaders.reshape(len(spans), segments).tolist()


def test_the_leader_of_a_segment_is_the_first_chunk_with_all_its_blocks() -> None:
    collide = [
        [7, 1],
        [7, 2],
        [7, 2],
        [15, 2],
        [7, 1],
        [0, 1],
    ]  # 7 and 15 are last in a table of 8: the next is the first
    assert found_leaders([(128, 1)] * 4, collide[:4], 64, 0, 1) == [[0], [1], [1], [3]]
    assert found_leaders([(128, 1)] * 6, collide, 64, 0, 1) == [[0], [1], [1], [3], [0], [5]]
    assert found_leaders([(127, 1), (128, 17), (128, 16), (255, 1)], [[7, 1, 3, 4]] * 4, 64, 0, 2) == [
        [-1, -1], [-1, -1], [2, -1], [2, -1],
    ]  # fmt: skip
    assert found_leaders([(256, 1), (300, 2)], [[7, 1], [7, 2]], 256, 0, 3) == [[0, 0, -1], [0, 0, -1]]
    # of 300 and 283, windows of 45 begin at 256 and 239
    assert found_leaders([(300, 1), (283, 2)], [[1, 2, 3], [1, 2, 3]], 128, 45, 3) == [[-1, -1, -1], [-1, 1, -1]]
    agree = [
        bool(_same_blocks.py_func([9, 1, 2, 3, 9, 1, 2, 4, 8], 1, 5, segment, block))
        for segment, block in ((0, 64), (1, 64), (0, 128), (1, 128), (2, 128), (5, 256), (3, 256), (4, 256))
    ]
    assert agree == [True, False, True, True, False, False, True, False]


def test_rows_lie_at_their_positions_in_their_own_blocks() -> None:
    spans, tables = tables_of([(14, 4), (31, 2)], [[5, 2], [9, 8, 7]])
    positions, places = Interpreter()(locate)(spans, tables, 16)
    assert positions.tolist() == [14, 15, 16, 17, 31, 32]
    assert places.tolist() == [94, 95, 32, 33, 143, 112]


def test_cuts_give_each_thread_about_its_share() -> None:
    cuts = Interpreter()(_cuts)
    for costs, threads, expected in (
        ([5, 1, 1, 5], 3, [0, 1, 4, 4]), ([4, 4, 4], 3, [0, 1, 2, 3]), ([12, 1], 4, [0, 1, 1, 1, 2]), ([3], 1, [0, 1]),
        ([1, 1, 1, 1, 1], 2, [0, 3, 5]), ([], 2, [0, 0, 0]),
    ):  # fmt: skip
        assert cuts(np.array(costs, dtype=np.int64), threads).tolist() == expected
    seen = [
        _first_segment.py_func(at, window)
        for at, window in ((500, 0), (127, 1), (128, 1), (255, 128), (256, 129), (3, 9))
    ]
    assert seen == [0, 0, 1, 1, 1, 0]
    assert [_first_segment.py_func(255, 129), _first_segment.py_func(383, 128)] == [0, 2]
    assert (work_split.QUERIES, work_split.FEW, work_split.SLOTS) == (48, 16, 65_536)
    assert (work_split.TASKS, work_split.READING) == (16, 4)
