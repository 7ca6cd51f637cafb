"""The phases of a mixture of experts, one by one on small tables: who computes what, and the numbers in between."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.products.rounded_rows import RECORD, round_row
from firsthand.kernels.step import expert_phases, row_ops
from firsthand.kernels.step.thread_team import counters
from interpreted_kernels import Interpreter

RUN = Interpreter()
FIRST_OF_LAYER, ROUTED, CHOSEN = 4, 3, 2
LAYER = np.array([FIRST_OF_LAYER, ROUTED, CHOSEN, 1, 0])
"""Three experts of which two are chosen, and a common one, whose matrices are from the fifth expert's on."""


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def items_of(team: NDArray[np.int64], phase: int) -> int:
    """The items of a phase, which one thread took and did; no other phase was touched."""
    at = 16 * phase
    assert team[at] == team[at + 8] + 1 and team.sum() == team[at] + team[at + 8]
    return int(team[at + 8])


def test_the_experts_of_every_row_are_chosen() -> None:
    logits = normal(1, 5, 16)
    before = logits.copy()
    memory = SimpleNamespace(
        logits=logits.reshape(-1), chosen=np.full(20, -1), shares=np.full(20, -1, dtype=np.float32)
    )
    experts = SimpleNamespace(stride=16, rows_of_token=4, renormalise=True, scale=np.float32(2))
    team = counters(3)
    RUN(expert_phases.route_rows)(team, 2, 1, 5, LAYER, experts, memory)
    assert items_of(team, 2) == 3
    for row in range(5):
        order = np.argsort(-before[row, :ROUTED])[:CHOSEN]
        weights = np.exp(before[row, order].astype(np.float64))
        assert memory.chosen[4 * row : 4 * row + 4].tolist() == [*order, ROUTED, -1]
        np.testing.assert_allclose(memory.shares[4 * row :][:2], 2 * weights / weights.sum(), rtol=1e-5)
        assert memory.shares[4 * row + 2 : 4 * row + 4].tolist() == [1, -1]


def grouped() -> SimpleNamespace:
    """Three rows of which each has two experts and the common one, in three of four places; expert 1 has no row."""
    memory = SimpleNamespace(
        chosen=np.array([2, 0, 3, 9, 0, 2, 3, 9, 2, 0, 3, 9]), starts=np.full(6, 77), places=np.full(12, -1),
        tokens=np.full(9, -1), owners=np.full(9, -1),
    )  # fmt: skip
    team = counters(2)
    RUN(expert_phases.group_rows)(team, 1, 3, LAYER, SimpleNamespace(rows_of_token=4), memory)
    assert team[[16, 24]].tolist() == [1, 1]
    return memory


def test_pairs_of_rows_and_experts_are_sorted_by_expert_and_then_by_row() -> None:
    memory = grouped()
    assert memory.starts.tolist() == [0, 3, 3, 6, 9, 9]
    assert memory.tokens.tolist() == [0, 1, 2] * 3
    assert memory.owners.tolist() == [0] * 3 + [2] * 3 + [3] * 3
    assert memory.places.tolist() == [3, 0, 6, -1, 1, 4, 7, -1, 5, 2, 8, -1]
    late = counters(1)
    late[:] = 0
    late[0], late[8] = 1, 1  # another thread has it
    RUN(expert_phases.group_rows)(late, 0, 3, LAYER, SimpleNamespace(rows_of_token=4), memory)
    assert late[[0, 8]].tolist() == [2, 1]


def records_of(values: NDArray[np.float32]) -> bytes:
    found = np.zeros(values.size // 32 * RECORD, np.uint8)
    for row in range(len(values)):
        RUN(round_row)(values.reshape(-1), row * values.shape[1], values.shape[1], found, row, len(values))
    return bytes(found)


@pytest.mark.parametrize(("has_dense", "blocks"), [(1, True), (0, True), (1, False)])
def test_inputs_are_gathered_where_their_experts_read_them(has_dense: int, blocks: bool) -> None:
    width, widest = 32, 64
    memory = grouped()
    memory.states = np.full((9, width), 7, np.float32).reshape(-1)
    memory.rounded = np.zeros(9 * widest // 32 * RECORD if blocks else 0, np.uint8)
    states = normal(2, 3, width)
    team = counters(2)
    experts = SimpleNamespace(widest=widest, has_dense=has_dense)
    RUN(expert_phases.gather_rows)(team, 1, 2, 9, width, states.reshape(-1), experts, memory)
    assert items_of(team, 1) == 5
    gathered = states[[0, 1, 2] * 3]
    np.testing.assert_array_equal(memory.states.reshape(9, width), gathered if has_dense else np.full_like(gathered, 7))
    if blocks:
        own = records_of(states)
        for start in (0, 3, 6):
            at = start * 2 * RECORD
            assert bytes(memory.rounded[at : at + 3 * RECORD]) == own
            assert not memory.rounded[at + 3 * RECORD : at + 6 * RECORD].any()


ENTRY = np.array([[30, 0, 5, 0, 0], [31, 8, 4, 0, 0], [32, 9, 3, 0, 0]])
"""Gate, up and down of 5, 4 and 3 tiles; the first in blocks."""


def test_a_share_of_pairs_is_multiplied_matrix_by_matrix() -> None:
    calls: list[tuple[Any, ...]] = []
    run = Interpreter(
        multiply=lambda entry, *args: calls.append(("blocks", int(entry[0]), *args)),
        multiply_dense=lambda entry, *args: calls.append(("dense", int(entry[0]), *args)),
    )
    for matrix, last, first, end, expected in (
        (0, 2, 0, 5, [("blocks", 30, 0, 3, 6, "r", "out", 0, 99), ("dense", 31, 0, 4, 6, "x", 50, "out", 80, 99)]),
        (0, 2, 2, 4, [("blocks", 30, 2, 3, 6, "r", "out", 0, 99), ("dense", 31, 0, 2, 6, "x", 50, "out", 80, 99)]),
        (0, 2, 3, 5, [("dense", 31, 0, 4, 6, "x", 50, "out", 80, 99)]),
        (0, 2, 1, 3, [("blocks", 30, 1, 3, 6, "r", "out", 0, 99)]),
        (2, 3, 1, 2, [("dense", 32, 2, 3, 6, "x", 50, "out", 0, 99)]),
        (0, 3, 4, 6, [("dense", 31, 2, 4, 6, "x", 50, "out", 80, 99), ("dense", 32, 0, 2, 6, "x", 50, "out", 144, 99)]),
    ):  # fmt: skip
        calls.clear()
        run(expert_phases._multiply_share)(ENTRY, matrix, last, first, end, 6, "x", 50, "r", "out", 99)
        assert calls == expected


def shares(threads: int, starts: list[int], tiles: list[list[int]], rounded: int = 0) -> tuple[list[Any], int]:
    """The shares of products that one thread computes in turn."""
    calls: list[Any] = []
    entries = np.zeros((FIRST_OF_LAYER + len(tiles), 3, 5), dtype=np.int64)
    for expert, each in enumerate(tiles):
        entries[FIRST_OF_LAYER + expert, :, 2] = each
        entries[FIRST_OF_LAYER + expert, :, 0] = 10 * expert

    def record(entry: Any, *args: Any) -> None:
        matrix, last, here, there, rows, x, stride, room, out, out_stride = args
        assert (matrix, last, stride, out_stride) == (0, 2, 3, 7)
        calls.append((int(entry[0, 0]) // 10, here, there, rows, len(x), len(room), len(out)))

    memory = SimpleNamespace(starts=np.array(starts), rounded=np.zeros(rounded, np.uint8))
    team = counters(2)
    run = Interpreter(_multiply_share=record, ITEMS=2)
    layer = np.array([FIRST_OF_LAYER, len(tiles) - 1, 1, 1, 0])
    experts = SimpleNamespace(widest=64, entries=entries)
    run(expert_phases.expert_products)(
        team, 1, threads, layer, experts, memory, 0, 2, np.zeros(100 * 3), 3, np.zeros(100 * 7), 7
    )
    return calls, items_of(team, 1)


def test_experts_products_are_cut_into_items_of_equal_work() -> None:
    tiles = [[4, 3, 9], [1, 1, 1], [2, 2, 9], [5, 1, 9]]  # 4, 2, 2 and 4 pairs
    # rows 6, 0, 1 and 5 cost 6, -, 4 (few rows cost as four) and 5 a pair: work of 24, 8 and 20
    calls, items = shares(2, [0, 6, 6, 7, 12], tiles)
    assert items == 4  # 13 each
    assert calls == [
        (0, 0, 3, 6, 300, 0, 700),
        (0, 3, 4, 6, 300, 0, 700), (2, 0, 1, 1, 282, 0, 658),
        (2, 1, 2, 1, 282, 0, 658), (3, 0, 2, 5, 279, 0, 651),
        (3, 2, 4, 5, 279, 0, 651),
    ]  # fmt: skip
    with_blocks, _ = shares(2, [0, 6, 6, 7, 12], tiles, 12 * 2 * RECORD)
    assert [call[5] for call in with_blocks] == [
        (12 - start) * 2 * RECORD for start in (0, 0, 6, 6, 7, 7)
    ]  # fmt: skip
    assert (expert_phases.ITEMS, expert_phases.LEAST) == (8, 4)
    assert [call[:4] for call in shares(1, [0, 1, 1, 1, 1], tiles)[0]] == [(0, 0, 2, 1), (0, 2, 4, 1)]


@pytest.mark.parametrize(
    ("activation", "blocks"), [(row_ops.SILU, True), (row_ops.GELU, False), (row_ops.GELU_TANH, True)]
)
def test_sorted_rows_are_gated_to_the_width_of_their_expert(activation: int, blocks: bool) -> None:
    inner, widest = 64, 64
    memory = grouped()
    wide = normal(3, 9, 2 * inner)
    before = wide.astype(np.float64)
    memory.wide, memory.rounded = wide.reshape(-1), np.zeros(9 * 2 * RECORD if blocks else 0, np.uint8)
    entries = np.zeros((8, 3, 5), dtype=np.int64)
    entries[4:, 0, 2] = [2, 9, 4, 2]  # 32, -, 64 and 32 outputs of the gate
    entries[4:, 1:, 2] = 9
    team = counters(1)
    experts = SimpleNamespace(inner=inner, widest=widest, entries=entries)
    RUN(expert_phases.gate_sorted_rows)(team, 0, 1, 9, activation, LAYER, experts, memory)
    assert items_of(team, 0) == 3
    for start, width in ((0, 32), (3, 64), (6, 32)):
        gates, ups = before[start : start + 3, :width], before[start : start + 3, width : 2 * width]
        if activation == row_ops.SILU:
            mixed = gates / (1 + np.exp(-gates))
        elif activation == row_ops.GELU:
            mixed = gates / 2 * (1 + np.vectorize(math.erf)(gates / math.sqrt(2)))
        else:
            mixed = gates / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (gates + 0.044715 * gates**3)))
        found = np.ascontiguousarray(wide[start : start + 3, :width])
        np.testing.assert_allclose(found, mixed * ups, rtol=2e-5, atol=1e-6)
        if blocks:
            at, own = start * 2 * RECORD, records_of(found)
            assert bytes(memory.rounded[at : at + len(own)]) == own


def test_each_token_gets_the_weighted_sum_of_its_experts() -> None:
    width = 32
    memory = grouped()
    states = normal(4, 9, width)
    memory.states, memory.shares = states.reshape(-1), normal(5, 12)
    out = np.full((4, width), 7, np.float32)
    team = counters(1)
    RUN(expert_phases.add_experts)(
        team, 0, 1, 3, width, LAYER, SimpleNamespace(rows_of_token=4), memory, out.reshape(-1)
    )
    assert items_of(team, 0) == 3
    for row in range(3):
        expected = sum(
            float(memory.shares[4 * row + which]) * states[memory.places[4 * row + which]].astype(np.float64)
            for which in range(3)
        )
        np.testing.assert_allclose(out[row], expected, rtol=1e-5, atol=1e-5)
    assert (out[3] == 7).all()
