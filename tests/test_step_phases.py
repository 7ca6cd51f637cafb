"""The phases of a compiled step, one by one on small tables: the numbers they write, and the items that threads share."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.attention.attention_tables import Heads, RowView
from firsthand.kernels.products.float_products import tile_floats
from firsthand.kernels.products.rounded_rows import RECORD
from firsthand.kernels.step import layer_attention, lora_products, phases, row_ops
from firsthand.kernels.step.step_tables import Adapted, Inputs, Norms, Outputs, Product
from firsthand.kernels.step.thread_team import counters
from interpreted_kernels import Interpreter

Floats = NDArray[np.float32]
RUN = Interpreter()


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def items_of(team: NDArray[np.int64], phase: int) -> int:
    """The items of a phase, which one thread took and did; no other phase was touched."""
    at = 16 * phase
    assert team[at] == team[at + 8] + 1
    assert team.sum() == team[at] + team[at + 8]
    return int(team[at + 8])


def rms(x: Any, weights: Any, eps: float) -> Any:
    return x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + eps) * weights


def records_of(values: Floats) -> list[bytes]:
    """What rounding writes for rows of 32, in pieces of all rows."""
    found = np.zeros(len(values) * values.shape[1] // 32 * RECORD, np.uint8)
    for row in range(len(values)):
        RUN(phases.round_row)(values.reshape(-1), row * values.shape[1], values.shape[1], found, row, len(values))
    return [bytes(found)]


def test_products_are_shared_by_pairs_of_tiles_of_all_matrices() -> None:
    blockwise: list[tuple[Any, ...]] = []
    dense: list[tuple[Any, ...]] = []
    run = Interpreter(
        multiply=lambda entry, *args: blockwise.append((int(entry[0]), *args)),
        multiply_dense=lambda entry, *args: dense.append((int(entry[0]), *args)),
    )
    matrices = np.array([[100, 0, 9, 0, 0], [101, 7, 5, 0, 0], [102, 8, 3, 0, 0], [103, 9, 4, 0, 0], [104, 2, 1, 0, 0]])
    product = Product(matrices, np.array([0, 10, 20, 30, 40]), 1, 5)  # pairs: 3, 2, 2 and 1
    team = counters(4)
    run(phases.products)(team, 2, 1, product, 15, Inputs("rest", 50, "rounded"), Outputs("values", 60))
    assert items_of(team, 2) == 4  # two pairs each
    assert blockwise == [
        (101, 0, 2, 15, "rounded", "values", 10, 60), (101, 2, 3, 15, "rounded", "values", 10, 60),
        (104, 0, 1, 15, "rounded", "values", 40, 60),
    ]  # fmt: skip
    assert dense == [
        (102, 0, 2, 15, "rest", 50, "values", 20, 60), (102, 2, 3, 15, "rest", 50, "values", 20, 60),
        (103, 0, 2, 15, "rest", 50, "values", 30, 60), (103, 2, 4, 15, "rest", 50, "values", 30, 60),
    ]  # fmt: skip
    for rows, threads, items in ((15, 2, 8), (15, 1, 4), (16, 1, 8), (16, 9, 8)):
        team = counters(1)
        run(phases.products)(team, 0, threads, product, rows, Inputs("rest", 50, "rounded"), Outputs("values", 60))
        assert items_of(team, 0) == items


WIDTH, ROWS = 32, 9


@pytest.mark.parametrize("places", [(0, 32, 64), (96, 0, 64), (64, 32, 0), (-1, 0, -1), (0, -1, 32), (-1, -1, -1)])
def test_rows_enter_the_stream_with_the_vectors_that_there_are(places: tuple[int, int, int]) -> None:
    bias, out_norm, norm = places
    vectors, stream, wide = normal(1, 128), normal(2, ROWS, WIDTH), normal(3, ROWS, WIDTH)
    rest, rounded = np.full((ROWS, WIDTH), 7, np.float32), np.zeros(ROWS * RECORD, np.uint8)
    news = wide + (vectors[bias : bias + WIDTH] if bias >= 0 else 0)
    if out_norm >= 0:
        news = rms(news, vectors[out_norm : out_norm + WIDTH], 0.3)
    expected = stream + news
    memory = SimpleNamespace(stream=stream.reshape(-1), wide=wide.reshape(-1), rest=rest.reshape(-1), rounded=rounded)
    team = counters(3)
    norms = Norms(vectors, bias, out_norm, norm, np.float32(0.3))
    RUN(phases.enter_rows)(team, 1, 2, ROWS, WIDTH, norms, memory)
    assert items_of(team, 1) == 5  # two rows each
    np.testing.assert_allclose(stream, expected, rtol=1e-5, atol=1e-6)
    if norm < 0:
        assert (rest == 7).all() and not rounded.any()
    else:
        np.testing.assert_allclose(rest, rms(expected, vectors[norm : norm + WIDTH], 0.3), rtol=1e-5, atol=1e-6)
        assert records_of(rest) == [bytes(rounded)]


@pytest.mark.parametrize("blocks", [True, False])
def test_embeddings_are_scaled_and_normalised(blocks: bool) -> None:
    embed, vectors, ids = normal(1, 5, WIDTH), normal(2, 80), np.array([4, 0, 2])
    stream, rest = np.zeros((3, WIDTH), np.float32), np.zeros((3, WIDTH), np.float32)
    rounded = np.zeros(3 * RECORD if blocks else 0, np.uint8)
    shape = SimpleNamespace(width=WIDTH, embed_scale=np.float32(1.5), eps=np.float32(0.2))
    weights = SimpleNamespace(embed=embed.reshape(-1), vectors=vectors, places=np.array([[40, 3], [5, 6]]))
    memory = SimpleNamespace(stream=stream.reshape(-1), rest=rest.reshape(-1), rounded=rounded)
    team = counters(2)
    RUN(phases.embed_rows)(team, 0, 1, ids, shape, weights, memory)
    assert items_of(team, 0) == 3
    np.testing.assert_allclose(stream, embed[ids] * 1.5, rtol=1e-6)
    np.testing.assert_allclose(rest, rms(embed[ids] * 1.5, vectors[40:72], 0.2), rtol=1e-5, atol=1e-6)
    assert not blocks or records_of(rest) == [bytes(rounded)]
    again = np.zeros_like(rounded)
    team = counters(2)
    RUN(phases.round_rows)(team, 1, 1, 3, rest.reshape(-1), WIDTH, again)
    assert bytes(again) == bytes(rounded)
    assert items_of(team, 1) == 3 if blocks else not team.any()


@pytest.mark.parametrize("activation", [row_ops.SILU, row_ops.GELU_TANH, row_ops.GELU])
def test_gates_and_ups_get_their_biases_and_become_the_next_input(activation: int) -> None:
    rows, width = 3, 32
    wide, vectors = normal(1, rows, 2 * width), normal(2, 100)
    rest, rounded = np.full((rows, width), 7, np.float32), np.zeros(rows * RECORD, np.uint8)
    place = np.full(13, -1)
    place[10], place[11] = 0 if activation == row_ops.GELU else -1, 40 if activation != row_ops.SILU else -1
    gates = wide[:, :width].astype(np.float64) + (vectors[:width] if place[10] >= 0 else 0)
    ups = wide[:, width:] + (vectors[40 : 40 + width] if place[11] >= 0 else 0)
    if activation == row_ops.SILU:
        gates = gates / (1 + np.exp(-gates))
    elif activation == row_ops.GELU_TANH:
        gates = gates / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (gates + 0.044715 * gates**3)))
    else:
        gates = gates / 2 * (1 + np.vectorize(math.erf)(gates / math.sqrt(2)))
    has_dense = activation != row_ops.GELU
    shape = SimpleNamespace(inner=width, activation=activation, has_dense=int(has_dense))
    memory = SimpleNamespace(wide=wide.reshape(-1), rest=rest.reshape(-1), rounded=rounded)
    team = counters(9)
    RUN(phases.gate_rows)(team, 8, 1, rows, shape, SimpleNamespace(vectors=vectors), place, memory)
    assert items_of(team, 8) == 3
    expected = gates * ups
    np.testing.assert_allclose(wide[:, :width], expected, rtol=2e-5, atol=1e-6)
    if has_dense:
        np.testing.assert_array_equal(rest, wide[:, :width])
    else:
        assert (rest == 7).all()
    assert records_of(np.ascontiguousarray(wide[:, :width])) == [bytes(rounded)]


def test_queries_and_keys_are_normalised_and_turned_and_keys_and_values_written() -> None:
    heads, kv, dim, rows = 3, 2, 16, 4
    q_width, k_width = heads * dim, kv * dim
    width = q_width + 2 * k_width
    wide, vectors = normal(1, rows, width), normal(2, 200)
    positions = np.array([5, 0, 2, 7])
    cos, sin = normal(3, 100), normal(4, 100)
    place = np.full(13, -1)
    place[4:9] = [0, 16, 33, 82, 115]  # norms of queries and keys, biases of queries, keys and values
    written: list[Any] = []
    parts = wide.astype(np.float64) + np.concatenate([vectors[33:81], vectors[82:114], vectors[115:147]])
    turned = parts[:, : q_width + k_width].reshape(rows, heads + kv, dim)
    turned[:, :heads] = rms(turned[:, :heads], vectors[:16], 0.1)
    turned[:, heads:] = rms(turned[:, heads:], vectors[16:32], 0.1)
    for row, position in enumerate(positions):
        at = 12 + position * 8
        c, s = cos[at : at + 8], sin[at : at + 8]
        first, second = turned[row, :, :8].copy(), turned[row, :, 8:].copy()
        turned[row] = np.concatenate([first * c - second * s, second * c + first * s], axis=1)
    parts[:, : q_width + k_width] = turned.reshape(rows, -1)
    shape = SimpleNamespace(num_heads=heads, num_kv_heads=kv, head_dim=dim, eps=np.float32(0.1), block_size=48)
    weights = SimpleNamespace(vectors=vectors, cos=cos, sin=sin)
    team = counters(2)
    flat = wide.reshape(-1)
    run = Interpreter(write=lambda *args: written.append(args))
    run(phases.turn_rows)(team, 1, 1, shape, weights, place, 12, positions, flat, "slots", "cache")
    assert items_of(team, 1) == 2
    np.testing.assert_allclose(wide, parts, rtol=2e-5, atol=1e-5)
    for (first, last, k, v, slots, cache, of), bounds in zip(written, [(0, 2), (2, 4)], strict=True):
        assert (first, last, slots, cache, of) == (*bounds, "slots", "cache", Heads(heads, kv, dim, 48))
        assert k.values is flat and v.values is flat
        assert (k[1:], v[1:]) == ((q_width, width), (q_width + k_width, width))
    before = wide.copy()
    for _ in range(1):  # without norms and biases they are turned alone
        run(phases.turn_rows)(counters(1), 0, 8, shape, weights, np.full(13, -1), 0, np.zeros(4, int), flat, "", "")
    head, c, s = before[2, 16:32].astype(np.float64), cos[:8], sin[:8]
    np.testing.assert_allclose(wide[2, 16:24], head[:8] * c - head[8:] * s, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(wide[:, q_width + k_width :], before[:, q_width + k_width :])


def test_attention_and_merging_are_shared_out_as_two_phases() -> None:
    attended: list[tuple[Any, ...]] = []
    merged: list[tuple[Any, ...]] = []
    run = Interpreter(attend=lambda *args: attended.append(args), merge=lambda *args: merged.append(args))
    shape = SimpleNamespace(num_heads=6, num_kv_heads=3, head_dim=16, block_size=32, attention_scale=0.25)
    memory, of = SimpleNamespace(partials="partials", rest="rest"), Heads(6, 3, 16, 32)
    q, work = RowView("q", 0, 1), SimpleNamespace(tasks=[None] * 17)
    team = counters(3)
    run(phases.attend_rows)(team, 1, 2, q, "cache", work, [4, 5, 6], shape, 9, memory)
    assert team[[16, 24, 32, 40]].tolist() == [18, 17, 10, 9]
    assert [call[:2] for call in attended] == [(3 * i, 3 * i + 3) for i in range(17)]
    assert {call[2:] for call in [(*call[:4], *call[5:]) for call in attended]} == {
        (q, "cache", of, 0.25, 9, "partials", "rest")
    }
    assert all(call[4] is work for call in attended)
    assert [call[:2] for call in merged] == [(2 * i, 2 * i + 2) for i in range(9)]
    assert all(call[2:] == ([4, 5, 6], work, of, 9, "partials", "rest") for call in merged)
    attended.clear()
    merged.clear()
    work.tasks, team = [None] * 6, counters(2)
    run(phases.attend_rows)(team, 0, 1, q, "cache", work, [], shape, 0, memory)
    assert [call[:2] for call in attended] == [(2 * i, 2 * i + 2) for i in range(9)]
    assert merged == [] and team[[0, 8, 16, 24]].tolist() == [10, 9, 1, 0]
    attended.clear()
    work.tasks, team = [None] * 7, counters(2)
    run(phases.attend_rows)(team, 0, 1, q, "cache", work, [4, 5, 6], shape, 0, memory)
    assert [call[:2] for call in attended] == [*((2 * i, 2 * i + 2) for i in range(10)), (20, 21)], (
        "the last share is less"
    )
    assert [call[:2] for call in merged] == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 18)]
    assert team[[0, 8, 16, 24]].tolist() == [12, 11, 6, 5]


def test_an_adapter_adds_its_two_products_to_its_own_rows() -> None:
    rng = np.random.default_rng(1)
    rows, width, stride, rank = 6, 20, 24, 32
    x, out = normal(2, rows * stride), normal(3, rows, 100)
    before = out.copy()
    inward = [[tile_floats(normal(seed, 17, width), np.float32) for seed in (4, 5)] for _ in range(2)]
    outward = [
        [tile_floats(normal(seed, outputs, 17), np.float32) for seed, outputs in ((6, 40), (7, 16))] for _ in "ab"
    ]
    del rng
    entries = np.zeros((2, 4, 2, 5), dtype=np.int64)
    for adapter in range(2):
        for which in range(2):
            entries[adapter, 1 + which] = [inward[adapter][which].entry(), outward[adapter][which].entry()]
    entries[1, 2] = 0  # the second adapter leaves the second matrix as it is
    pieces = np.array([[0, 2, 1], [3, 6, 0]])
    low, lift = np.full(3 * rows * rank, np.nan, np.float32), np.full(3 * rows * 256, np.nan, np.float32)
    team = counters(4)
    run = Interpreter(LIFT_TILES=2)
    product = Product(None, np.array([9, 5, 60, 9]), 1, 3)
    run(lora_products.adapt)(
        team, 3, Adapted(pieces, None, rank, low, lift), entries, product, rows, Inputs(x, stride, None),
        Outputs(out.reshape(-1), 100),
    )  # fmt: skip
    assert items_of(team, 3) == 4
    expected = before.astype(np.float64)
    places = low.reshape(-1, rank)
    wanted = x.reshape(rows, stride)[:, :width].astype(np.float64)
    for which, seeds, column, outputs in ((0, (4, 6), 5, 40), (1, (5, 7), 60, 16)):
        small = wanted @ normal(seeds[0], 17, width).T
        change = small @ normal(seeds[1], outputs, 17).T
        for row in [0, 1, 3, 4, 5] if which == 0 else [3, 4, 5]:
            expected[row, column : column + outputs] += change[row]
            np.testing.assert_allclose(places[which * rows + row, :17], small[row], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    used = {which * rows + row for which, own in ((0, [0, 1, 3, 4, 5]), (1, [3, 4, 5])) for row in own}
    assert {place for place in range(3 * rows) if not np.isnan(places[place]).all()} == used
    assert {place for place in range(3 * rows) if not np.isnan(lift.reshape(-1, 256)[place]).all()} == used
    assert (lora_products.LIFT, lora_products.LIFT_TILES) == (256, 16)
    assert (lora_products.PIECE_ROWS, lora_products.MATRICES) == (16, 3)
    team = counters(1)
    run(lora_products.adapt)(team, 0, Adapted(pieces[:0], None, rank, low, lift), entries, product, rows, None, None)
    assert not team.any()


def test_a_layers_attention_has_its_own_pages_plan_slots_window_and_angles() -> None:
    calls: list[tuple[Any, ...]] = []
    run = Interpreter(
        **{
            name: lambda *args, name=name: calls.append((name, *args))
            for name in ("turn_rows", "attend_rows", "round_rows")
        }
    )
    shape = SimpleNamespace(num_heads=6, num_kv_heads=2, head_dim=20, block_size=16)
    numbers = np.arange(9 * 2 * 16 * 32)
    weights = SimpleNamespace(layers=np.array([[0, 0, 0], [7, 1, 500]]), places=["first", "second"])
    batch = SimpleNamespace(
        ids=[1, 2, 3], positions="positions", places=["far", "near"], tables="tables", members="members",
        plans=np.array([[0, 2, 0, 1], [2, 6, 1, 4]]), tasks=np.arange(60).reshape(10, 6), merged=np.arange(5) * 10,
        slots=["slots of the first", "slots of the second"],
    )  # fmt: skip
    memory = SimpleNamespace(wide="wide", rest="rest", rounded="rounded")
    spans = np.array([[0, 0, 4], [1, 4, 9]])
    for scales in (numbers[:0], numbers[: 9 * 2 * 16]):
        calls.clear()
        cache = SimpleNamespace(
            spans=spans, keys=numbers[: 9 * 2 * 16 * 20], values=numbers, key_scales=scales, value_scales=scales + 1000
        )
        run(layer_attention.attend_layer)("team", 5, 3, 1, shape, weights, batch, cache, memory)
        (_, *turned), (_, *attended), rounded = calls
        pages = turned.pop()
        assert turned == ["team", 5, 3, shape, weights, "second", 500, "positions", "wide", "near"]
        block = 2 * 16
        assert [(int(each[0]), len(each)) for each in pages[:2]] == [
            (4 * block * 20, 5 * block * 20), (4 * block * 32, 5 * block * 32)
        ]  # fmt: skip
        if len(scales):
            assert [(int(each[0]), len(each)) for each in pages[2:]] == [
                (4 * block, 5 * block), (4 * block + 1000, 5 * block)
            ]  # fmt: skip
        else:
            assert [len(each) for each in pages[2:]] == [0, 0]
        team, phase, threads, heads, same, work, merged, of, window, room = attended
        assert (team, phase, threads, heads, of, window, room) == (
            "team",
            6,
            3,
            RowView("wide", 0, 200),
            shape,
            7,
            memory,
        )
        assert same is pages and merged.tolist() == [10, 20, 30]
        assert work.tasks.tolist() == batch.tasks[2:6].tolist()
        assert (work.tables, work.members, work.positions) == ("tables", "members", "positions")
        assert work.slots == "slots of the second"
        assert rounded == ("round_rows", "team", 8, 3, 3, "rest", 120, "rounded")


def test_the_wanted_rows_get_the_final_norm_in_their_order() -> None:
    stream, vectors = normal(1, 4, 32), normal(2, 100)
    hidden, team = np.full((4, 32), 7, np.float32), counters(3)
    shape = SimpleNamespace(num_layers=2, width=32, eps=np.float32(0.4))
    weights = SimpleNamespace(places=np.array([[1, 2], [3, 4], [50, -1]]), vectors=vectors)
    memory = SimpleNamespace(stream=stream.reshape(-1))
    batch = SimpleNamespace(wanted=np.array([3, 0, 3]))
    RUN(layer_attention.finish_rows)(team, 2, shape, weights, batch, memory, hidden.reshape(-1))
    assert items_of(team, 2) == 3
    np.testing.assert_allclose(hidden[:3], rms(stream[[3, 0, 3]], vectors[50:82], 0.4), rtol=1e-5, atol=1e-6)
    assert (hidden[3] == 7).all()
