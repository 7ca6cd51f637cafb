"""The kernels of paged attention in Python, part by part, against float64: scores, mixing, segments, whole items."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.attention import paged_cpu, query_tiles, segments
from firsthand.kernels.attention.attention_tables import Heads, KeyValues, RowView, SegmentBounds, Work
from firsthand.kernels.attention.query_tiles import SEGMENT, beside, mix, score
from firsthand.kernels.attention.segments import GROUPS, segment_of, tile_of
from interpreted_kernels import Interpreter

Floats = NDArray[np.float32]


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def stored(values: Floats, dtype: str) -> NDArray[Any]:
    """Numbers as a cache holds them: float32, the bits of float16, or whole ones."""
    if dtype == "half":
        return values.astype(np.float16).view(np.int16)
    return np.rint(values * 20).astype(np.int8) if dtype == "int8" else values


def read(values: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    return (values.view(np.float16) if dtype == "half" else values).astype(np.float64)


@pytest.mark.parametrize(("queries", "width", "dtype"), [(3, 2, "float32"), (1, 4, "half"), (7, 1, "int8")])
def test_scores_are_products_of_each_query_with_vectors_of_keys_at_their_places(
    queries: int, width: int, dtype: str
) -> None:
    dim, stride = 19, 48
    q = normal(1, 2 + 2 * queries * 16)  # 16 dimensions of each query, then 3 of 16 more
    keys, values = stored(normal(2, 5 + dim * stride), dtype), stored(normal(3, 400), dtype)
    places = np.arange(30) * 3 + 1
    places[4 : 4 + width] = np.array([33, 5, 17, 0])[:width]
    places[9 : 9 + width] = np.array([8, 40, 21, 77])[:width]
    scores = np.full(2 + queries * SEGMENT, 7, np.float32)
    run = Interpreter()
    run.intrinsic(score(queries, width), q, 2, keys, places, 4, stride, dim, scores, 2, values, 9)
    expected = np.full_like(scores, 7)
    for r in range(queries):
        for p in range(width):
            sums = np.zeros(16)
            for d in range(dim):
                query = q[2 + d // 16 * queries * 16 + r * 16 + d % 16]
                at = places[4 + p] + d * stride
                sums += float(query) * read(keys[at : at + 16], dtype)
            expected[2 + r * SEGMENT + p * 16 : 18 + r * SEGMENT + p * 16] = sums
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    size = values.itemsize
    assert [place.at // size for place, _ in run.machine.prefetched] == [
        places[9 + p] + d * 16 for d in range(dim) for p in range(width)
    ]
    assert {locality for _, locality in run.machine.prefetched} == {3}


@pytest.mark.parametrize(("queries", "width", "dtype"), [(3, 2, "float32"), (1, 4, "half"), (2, 1, "int8")])
def test_mixing_adds_weighted_values_of_a_range_of_positions(queries: int, width: int, dtype: str) -> None:
    low, high, stride, row, column = 13, 37, 80, 96, 16
    weights = normal(1, 3 + queries * SEGMENT)
    values, keys = stored(normal(2, 5000), dtype), stored(normal(3, 5000), dtype)
    places = np.zeros(40, dtype=np.int64)
    places[5:8] = [1400, 3, 2700]  # of the positions 0, 16 and 32
    places[5 + query_tiles.AHEAD :] = 11 * np.arange(40 - 5 - query_tiles.AHEAD)
    mixed = normal(4, 7 + queries * row)
    before = mixed.copy()
    run = Interpreter()
    run.intrinsic(
        mix(queries, width), weights, 3, values, column, places, 5, stride, low, high, mixed, 7, row, keys, 24
    )
    expected = before.astype(np.float64)
    for r in range(queries):
        for t in range(low, high):
            at = places[5 + t // 16] + t % 16 * stride + column
            expected[7 + r * row : 7 + r * row + 16 * width] += float(weights[3 + r * SEGMENT + t]) * read(
                values[at : at + 16 * width], dtype
            )
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-4)
    found = [place.at // keys.itemsize for place, _ in run.machine.prefetched]
    assert found == [
        places[5 + query_tiles.AHEAD + t // (16 * width) * width + c] + (t % (16 * width) + column) * 24
        for t in range(low, high)
        for c in range(width)
    ]
    again = mixed.copy()
    run.intrinsic(mix(queries, width), weights, 3, values, column, places, 5, stride, 9, 9, mixed, 7, row, keys, 24)
    np.testing.assert_array_equal(mixed, again)  # no positions change nothing


def test_tiles_of_queries_fit_the_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    for registers, expected in ((30, [4, 4, 4, 4, 4, 2, 2, 2]), (8, [2, 2, 1, 1, 1, 1, 1, 1])):
        assert [Interpreter(REGISTERS=registers)(beside)(queries) for queries in range(1, 9)] == expected
    for most, tiles in ((8, [1, 2, 3, 4, 3, 3, 7, 8, 8, 8]), (3, [1, 2, 3, 3, 3, 3, 3, 3, 3, 3])):
        assert [Interpreter(MOST=most)(tile_of)(left) for left in range(1, 11)] == tiles
    for features, registers in (({"avx512f": True, "avx2": True}, 30), ({"avx512f": False, "avx2": True}, 8), ({}, 8)):
        monkeypatch.setattr(
            query_tiles, "binding", SimpleNamespace(get_host_cpu_features=lambda features=features: features)
        )
        assert query_tiles._registers() == registers
    assert (SEGMENT, GROUPS) == (128, 8)
    assert 3 * GROUPS - GROUPS == query_tiles.AHEAD  # from the slots of values to those of the next keys
    assert (query_tiles.REGISTERS > 8) == (query_tiles.MOST == 8)
    assert query_tiles.MOST in (3, 8)


LOWS, HIGHS = [9, 0, 20, 40, 17, 3, 30, 16], [90, 64, 61, 40, 128, 100, 63, 48]
"""What each of eight queries sees of a segment; the fourth sees nothing. All others see 30 to 48."""


@pytest.mark.parametrize(
    ("queries", "first", "dtype"),
    [(1, 2, "int8"), (2, 2, "half"), (3, 4, "int8"), (4, 1, "float32"), (7, 0, "float32"), (8, 0, "half")],
)  # fmt: skip
def test_a_segment_gives_each_query_its_sums_its_largest_score_and_its_weight(
    queries: int, first: int, dtype: str
) -> None:
    dim, block, padded = 18, 64, 32
    record = padded + 16
    lows, highs = np.array(LOWS), np.array(HIGHS)
    seen = np.zeros(SEGMENT, dtype=bool)
    for i in range(first, first + queries):
        seen[lows[i] : highs[i]] = True
    all_keys, all_values = normal(1, SEGMENT, dim), normal(2, SEGMENT, dim)
    if dtype != "int8":
        all_keys[~seen], all_values[~seen] = np.nan, np.nan  # memory that nobody sees shows nowhere
    k, v = stored(all_keys, dtype), stored(all_values, dtype)
    keys = np.ascontiguousarray(k.reshape(2, block, dim).transpose(0, 2, 1)).reshape(-1)  # two blocks, K S each
    values = np.zeros((SEGMENT, padded), dtype=v.dtype)
    values[:, :dim] = v
    scales = [np.abs(normal(seed, SEGMENT)) * np.float32(0.05) + np.float32(0.01) for seed in (3, 4)]
    if dtype != "int8":
        scales = [np.zeros(0, np.float32)] * 2
    places = np.zeros(6 * GROUPS, dtype=np.int64)
    for j in range(GROUPS):
        places[j] = j // 4 * block * dim + j % 4 * 16
        places[GROUPS + j], places[2 * GROUPS + j] = j * 16 * padded, j * 16
    q = normal(5, queries, dim)
    packed = np.zeros((3, queries, 16), np.float32)  # 16 dimensions of each query, then the other two; 5 before them
    packed[0], packed[1, :, :2] = q[:, :16], q[:, 16:]
    packed = np.concatenate([np.full(5, 99, np.float32), packed.reshape(-1)])
    weights, records = np.zeros(8 * SEGMENT, np.float32), np.full(8 * record, 55, np.float32)
    Interpreter()(segment_of)(
        queries, packed, 5, KeyValues(keys, values.reshape(-1), *scales), places, Heads(0, 0, dim, block),
        SegmentBounds(lows, highs), first, weights, records,
    )  # fmt: skip
    found = records.reshape(8, record)
    assert (found[queries:] == 55).all()
    wide_k, wide_v = read(k, dtype), read(v, dtype)
    if dtype == "int8":
        wide_k, wide_v = wide_k * scales[0][:, None], wide_v * scales[1][:, None]
    for r in range(queries):
        here = slice(lows[first + r], highs[first + r])
        if here.start == here.stop:
            continue
        scores = wide_k[here] @ q[r].astype(np.float64)
        shares = np.exp(scores - scores.max())
        assert found[r, padded] == pytest.approx(scores.max(), rel=1e-5)
        assert found[r, padded + 1] == pytest.approx(shares.sum(), rel=1e-5)
        np.testing.assert_allclose(found[r, :dim], shares @ wide_v[here], rtol=1e-4, atol=1e-4)
        assert (found[r, dim:padded] == 0).all()


def test_queries_that_see_nothing_leave_their_records_alone() -> None:
    records = np.full(4 * 48, 55, np.float32)
    bounds = SegmentBounds(np.array([3, 7, 9]), np.array([3, 5, 9]))
    nothing = np.zeros(0, np.float32)
    Interpreter()(segment_of)(
        3, np.zeros(96, np.float32), 0, KeyValues(*[nothing] * 4), np.zeros(48, dtype=np.int64), Heads(0, 0, 18, 64), bounds,
        0, np.zeros(512, np.float32), records,
    )  # fmt: skip
    assert (records == 55).all()
    apart = np.array([0, 70]), np.array([20, 90])  # two that see nothing in common
    keys, values = np.ones(128, np.float32), normal(1, 128 * 16)
    places = np.zeros(48, dtype=np.int64)
    places[:8], places[8:16] = np.arange(8) * 16, np.arange(8) * 256
    Interpreter()(segment_of)(
        2, np.zeros(32, np.float32), 0, KeyValues(keys, values, nothing, nothing), places, Heads(0, 0, 1, 128),
        SegmentBounds(*apart), 0, np.zeros(512, np.float32), records,
    )  # fmt: skip
    by_position = values.reshape(128, 16).astype(np.float64)
    for r, (low, high) in enumerate(zip(*apart, strict=True)):
        np.testing.assert_allclose(records[r * 32 : r * 32 + 16], by_position[low:high].sum(0), rtol=1e-4, atol=1e-5)
        assert records[r * 32 + 16 : r * 32 + 18].tolist() == [0, 20]


def test_the_largest_score_and_the_weights_are_of_the_range_alone() -> None:
    run = Interpreter()
    weights = np.full(3 + 48, 50, np.float32)
    weights[3 + 9 : 3 + 37] = np.linspace(-3, 2, 28)
    weights[3 + 20] = 4
    none, places = np.zeros(0, np.float32), np.zeros(48, dtype=np.int64)
    assert run(segments._find_largest)(weights, 3, 9, 37, none, places) == 4
    assert (weights[3:12] == -1e30).all() and (weights[40:] == np.float32(-1e30)).all()
    before = weights[12:40].astype(np.float64)
    total = run(segments._exponentiate)(weights, 3, 9, 37, np.float32(4), none, places)
    np.testing.assert_allclose(weights[12:40], np.exp(before - 4), rtol=1e-6)
    assert total == pytest.approx(np.exp(before - 4).sum(), rel=1e-6)
    assert (weights[3:12] == 0).all() and (weights[40:] == 0).all()
    exact = np.full(48, 50, np.float32)
    exact[16:32] = np.arange(16)
    assert run(segments._find_largest)(exact, 0, 16, 32, none, places) == 15
    assert exact.tolist() == [50] * 16 + list(range(16)) + [50] * 16  # whole vectors: nothing is masked or touched
    places[16:18] = [32, 5]
    scales = np.arange(48).astype(np.float32) / 8
    scaled = np.ones(32, np.float32)
    assert run(segments._find_largest)(scaled, 0, 0, 32, scales, places) == 47 / 8
    np.testing.assert_array_equal(scaled, np.concatenate([scales[32:48], scales[5:21]]))
    assert run(segments._exponentiate)(scaled, 0, 0, 32, np.float32(47 / 8), scales, places) == pytest.approx(
        np.exp(np.concatenate([scales[32:48], scales[5:21]]).astype(np.float64) - 47 / 8).sum(), rel=1e-5
    )
    np.testing.assert_allclose(scaled[16:], np.exp(scales[5:21] - 47 / 8) * scales[5:21], rtol=1e-5)


def test_small_parts_scale_locate_and_absorb() -> None:
    run = Interpreter()
    line = np.zeros(32, np.float32)
    line[[3, 20]] = [5, -6.35]
    whole = np.full(32, 9, np.float32)
    assert run(paged_cpu._scale_of)(line) == np.float32(6.35)
    assert run(paged_cpu._rounded)(line, whole) == np.float32(6.35) / np.float32(127)
    np.testing.assert_allclose(whole[[3, 20, 4]], [100, -127, 0], rtol=1e-6)
    assert run(paged_cpu._rounded)(np.zeros(16, np.float32), whole) == 0 and (whole[:16] == 0).all()
    for strange in (np.nan, np.inf, -np.inf):
        for at in (3, 31):
            with_it = line.copy()
            with_it[at] = strange
            assert np.isnan(run(paged_cpu._scale_of)(with_it)), "in the first lanes of a head and in the last"
    source, target = np.arange(40).astype(np.float32), np.full(60, -1, np.float32)
    run(paged_cpu._scaled)(source, 2, np.float32(0.5), target, 3, 20, 35)
    expected = np.full(60, -1, np.float32)
    expected[3:19], expected[23:39], expected[43:46] = source[2:18] / 2, source[18:34] / 2, source[34:37] / 2
    np.testing.assert_array_equal(target, expected)

    state, record = normal(1, 3 + 32), normal(2, 5 + 32)
    for old, new in ((1.5, 0.25), (0.25, 1.5), (2.0, 2.0)):
        held, came = state.copy(), record.copy()
        held[3 + 16 : 3 + 18], came[5 + 16 : 5 + 18] = [old, 3], [new, 7]
        most = max(old, new)
        one, other = np.exp(old - most), np.exp(new - most)
        sums = held[3:19].astype(np.float64) * one + came[5:21].astype(np.float64) * other
        run(paged_cpu._absorb)(held, 3, came, 5, 16)
        np.testing.assert_allclose(held[3:19], sums, rtol=1e-5, atol=1e-6)
        assert held[19] == most and held[20] == pytest.approx(3 * one + 7 * other, rel=1e-6)

    tables, heads = np.array([0, 0, 4, 2, 9, 1, 7]), Heads(6, 3, 5, 48)
    places = np.full(30, -1)
    run(paged_cpu._locate)(tables, 2, 1, 224, 2, heads, places, 3)  # positions 128 to 223: slot 32 of block 9, then 1
    pages = [(9, 32), (1, 0), (1, 16), (1, 32), (7, 0), (7, 16), (7, 16), (7, 16)]
    for j, (block, slot) in enumerate(pages):
        page = (block * 3 + 2) * 48
        assert places[[3 + j, 11 + j, 19 + j]].tolist() == [page * 5 + slot, (page + slot) * 16, page + slot]
    assert places[:3].tolist() + places[27:].tolist() == [-1] * 6
    work = SimpleNamespace(
        tasks=np.array([[0, 0, 1, 1, 3, 0]]), members=[9, 4, 2, 5, 1], positions=[99, 98, 20, 97, 12, 19]
    )
    assert paged_cpu._end.py_func(work, 0) == 21
    for scales in (np.zeros(0, np.float32), np.zeros(600, np.float32)):
        watched = Interpreter()
        cache = KeyValues(np.zeros(700, np.int8), np.zeros(900, np.int8), scales, scales)
        watched(paged_cpu._touch)(cache, np.arange(24) * 25, 0)
        asked = [place.at for place, _ in watched.machine.prefetched]
        if len(scales) == 0:
            assert asked == [25 * at for j in range(8) for at in (j, 8 + j)]
        else:
            assert asked == [
                25 * at * size for j in range(8) for at, size in ((j, 1), (8 + j, 1), (16 + j, 4), (16 + j, 4))
            ]


DIM, BLOCK, HEADS, KV = 5, 16, 6, 2


def attended(q: Floats, k: Floats, v: Floats, at: int, window: int) -> NDArray[np.float64]:
    """One token's attention in float64: H K."""
    low = max(at - window + 1, 0) if window else 0
    out = []
    for h in range(HEADS):
        keys, values = (x[low : at + 1, h // (HEADS // KV)].astype(np.float64) for x in (k, v))
        scores = keys @ q[h].astype(np.float64) * 0.4
        shares = np.exp(scores - scores.max())
        out.append(shares @ values / shares.sum())
    return np.array(out)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "window"), [("float32", 0), ("int8", 20), ("half", 140), ("float32", 1)])
def test_items_write_attend_and_merge_as_softmax_attention(dtype: str, window: int) -> None:
    """A split row of two segments at position 150, and a chunk of two rows that is not split.

    With a window of 20 the first of them sees both segments, and the second the later one alone.
    """
    length, rows = 151, [(0, 150), *(((1, 146), (1, 147)) if window == 20 else ((1, 128), (1, 129)))]
    texts = [
        (normal(i, length, HEADS, DIM), normal(i + 9, length, KV, DIM), normal(i + 5, length, KV, DIM)) for i in (1, 2)
    ]
    tables = np.array([*range(1, 20, 2), *range(0, 20, 2)])
    kinds: dict[str, Any] = {"float32": np.float32, "half": np.int16, "int8": np.int8}
    numbers, slots = 20 * KV * BLOCK, 20 * KV * BLOCK if dtype == "int8" else 0
    cache = KeyValues(
        np.zeros(numbers * DIM, kinds[dtype]), np.zeros(numbers * 16, kinds[dtype]),
        np.full(slots, np.nan, np.float32), np.full(slots, np.nan, np.float32),
    )  # fmt: skip
    heads = Heads(HEADS, KV, DIM, BLOCK)
    for text, (_, k, v) in enumerate(texts):
        places = np.array([tables[10 * text + at // BLOCK] * BLOCK + at % BLOCK for at in range(length)])
        packed = np.concatenate([np.full((length, 3), 9, np.float32), k.reshape(length, -1), v.reshape(length, -1)], 1)
        views = (RowView(packed.reshape(-1), 3, 3 + 2 * KV * DIM), RowView(packed.reshape(-1), 13, 3 + 2 * KV * DIM))
        for first, last in ((0, 60), (60, length)):
            Interpreter()(paged_cpu.write)(first, last, *views, places, cache, heads)
    q = np.concatenate([normal(8, 4), *(texts[text][0][at].reshape(-1) for text, at in rows)])
    tasks = np.array([[0, 0, 1, 2, 1, 1], [0, 1, 2, 2, 1, 1], [10, 0, 2, 0, 2, 0]])
    if window in (1, 20):
        tasks = tasks[1:]
    work = Work(tables, tasks, np.array([1, 2, 0]), np.array([at for _, at in rows]), np.array([1, 0, 0]))
    partials, out = np.full(3 * HEADS * 32, np.nan, np.float32), np.full(3 * HEADS * DIM, np.nan, np.float32)
    items = len(tasks) * KV
    touched: list[int] = []
    run = Interpreter(_touch=lambda cache, places, at: touched.append(at))
    for first, last in ((0, 3), (3, items)):
        run(paged_cpu.attend)(
            first, last, RowView(q, 4, HEADS * DIM), cache, work, heads, np.float32(0.4), window, partials, out
        )
    assert touched == [24] * sum((task[2] - task[1]) * KV for task in tasks)  # the next segment's places
    assert np.isnan(out[: HEADS * DIM]).all()
    run(paged_cpu.merge)(0, 2, np.array([0]), work, heads, window, partials, out)
    run(paged_cpu.merge)(2, HEADS, np.array([0]), work, heads, window, partials, out)
    expected = np.stack([attended(texts[text][0][at], *texts[text][1:], at, window) for text, at in rows])
    error = {"float32": 1e-5, "half": 2e-3, "int8": 4e-2}[dtype]
    assert np.abs(out.reshape(3, HEADS, DIM) - expected).max() < error
