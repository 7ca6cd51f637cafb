"""The kernels of products in Python, for every instruction set, against whole numbers and float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")
from numba import types
from numba.extending import intrinsic

from firsthand.kernels.products import (
    blockwise_products,
    dot_instructions,
    float_products,
    rounded_rows,
    tiled_weights,
)
from firsthand.kernels.products.blockwise import Blockwise
from firsthand.kernels.products.dot_instructions import BYTES, add_products, instructions
from firsthand.kernels.products.float_products import multiply_dense, tile_floats
from firsthand.kernels.products.inner_loops import piece_loop
from firsthand.kernels.products.rounded_rows import RECORD, first_of_piece, pieces_of, round_row
from firsthand.kernels.products.tile_codes import widen, widened
from firsthand.kernels.products.tiled_weights import KINDS, LANES, Kind, Tiles, tile
from firsthand.kernels.vectors import INTS
from interpreted_kernels import Interpreter


def test_memory_for_tiles_begins_at_a_multiple_of_64_and_has_the_size_that_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = np.zeros(1000, np.uint8)
    first = -room.ctypes.data % 64
    for beside in (0, 1, 16, 48, 63):  # wherever the memory that numpy finds begins
        found = room[first + beside :]
        monkeypatch.setattr(
            tiled_weights, "np", SimpleNamespace(empty=lambda size, dtype, found=found: found[:size], uint8=0)
        )
        for size in (1, 64, 700):
            made = tiled_weights.aligned(size)
            assert made.ctypes.data % 64 == 0 and len(made) == size


HOW = ("vnni512", "vnni256", "avx2", "plain")


def test_the_byte_products_are_the_best_that_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, how in (
        ({"avx512vnni": True, "avx512f": True, "avxvnni": True, "avx2": True}, "vnni512"),
        ({"avx512vnni": False, "avx512f": True, "avxvnni": True, "avx2": True}, "vnni256"),
        ({"avx512vnni": False, "avx512f": True, "avxvnni": False, "avx2": True}, "avx2"),
        ({"avx512f": True, "avx2": False}, "plain"),
        ({}, "plain"),
    ):
        monkeypatch.setattr(
            dot_instructions, "binding", SimpleNamespace(get_host_cpu_features=lambda features=features: features)
        )
        assert instructions() == how


def of_bytes(how: str) -> Any:
    """An intrinsic: sums, codes and values of a place in three arrays, and the sums back."""

    def typed(typing: Any, sums: Any, codes: Any, values: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = [context.make_array(None)(context, builder, each).data for each in args]
            held, code, value = (
                builder.load(builder.bitcast(each, kind.as_pointer()))
                for each, kind in zip(data, (INTS, BYTES, INTS), strict=True)
            )
            found = add_products(builder, held, code, value, how)
            builder.store(found, builder.bitcast(data[0], INTS.as_pointer()))

        return types.void(sums, codes, values), generate

    return intrinsic(typed)


@pytest.mark.parametrize("how", HOW)
def test_each_lane_adds_four_products_of_unsigned_and_signed_bytes(how: str) -> None:
    rng = np.random.default_rng(1)
    codes, values = rng.integers(0, 256, 64), rng.integers(-128, 128, 64)
    codes[:8], values[:8] = [255] * 8, [-128] * 4 + [127] * 4
    codes[8:12], values[8:12] = [1, 0, 0, 200], [-1, 77, 88, -3]
    before = rng.integers(-(2**20), 2**20, 16).astype(np.int32)
    sums = before.copy()
    Interpreter().intrinsic(of_bytes(how), sums, codes.astype(np.uint8), values.astype(np.int8))
    assert sums.tolist() == (before + (codes * values).reshape(16, 4).sum(1)).tolist()


def random_matrix(kind: Kind, outputs: int, inputs: int, seed: int) -> Blockwise:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << kind.bits, (outputs, inputs)).astype(np.uint8)
    scales, minimums = (
        rng.normal(size=(outputs, inputs // kind.block)).astype(np.float16).astype(np.float32) for _ in range(2)
    )
    if not kind.half:
        scales[0, 0] += np.float32(1e-6)  # no float16
    return Blockwise(codes, scales, minimums if kind.has_minimums else None, kind.zero, kind.bits)


def rounded(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Whole numbers up to 127 times a scale for each 32."""
    blocks = rows.reshape(len(rows), -1, 32).astype(np.float64)
    scales = np.abs(blocks).max(-1, keepdims=True) / 127
    return (np.rint(blocks / np.where(scales > 0, scales, 1)) * scales).reshape(rows.shape)


CASES = [
    (0, 3, "vnni512"), (1, 1, "avx2"), (2, 3, "vnni256"), (3, 1, "plain"), (4, 1, "vnni512"), (5, 1, "vnni256"),
    (6, 2, "vnni512"), (7, 3, "vnni512"), (7, 1, "avx2"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("place", "rows", "how"), CASES)
def test_an_inner_loop_multiplies_a_piece_of_rows_with_two_tiles(place: int, rows: int, how: str) -> None:
    kind, inputs, lines = KINDS[place], 96, 2
    matrix = random_matrix(kind, 32, inputs, place)
    tiles = tile(matrix)
    values = np.random.default_rng(9).normal(size=(rows, inputs)).astype(np.float32)
    values[0, 40] = 9
    run = Interpreter(PIECE=4)
    records = np.zeros(7 + rows * 3 * RECORD, np.uint8)
    for row in range(rows):
        run(round_row)(values.reshape(-1), row * inputs, inputs, records[7:], row, rows)
    out, start = np.full(200, 7, np.float32), tiles.memory.ctypes.data
    aside = np.zeros(4096, np.uint8)
    loop = piece_loop(kind, (rows, 2) if place == 1 else (rows,), how)
    first, second = start + tiles.tile_bytes, start
    run.intrinsic(loop, rows, first, second, aside.ctypes.data, lines, inputs, records, 7, out, 21, 2, 50)
    expected = rounded(values) @ matrix.values().astype(np.float64).T
    for row in range(rows):
        np.testing.assert_allclose(out[21 + 50 * row :][:16], expected[row, 16:], rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(out[2 + 50 * row :][:16], expected[row, :16], rtol=2e-5, atol=2e-5)
    touched = {at + 50 * row + lane for row in range(rows) for at in (2, 21) for lane in range(16)}
    assert all(out[at] == 7 for at in range(200) if at not in touched)
    asked = [(pointer.address, locality) for pointer, locality in run.machine.prefetched]
    if rows > 2:
        assert asked == [(aside.ctypes.data + 64 * line, 2) for line in range(3 * lines)]
    else:
        records_each = 32 // kind.block
        size = kind.record_bytes * records_each
        assert asked == [
            (start + tile_at + size * block + 8192 + line, 3)
            for tile_at in (tiles.tile_bytes, 0)
            for block in range(3)
            for line in range(0, size, 64)
        ]
    if place == 1:  # a size that there is no loop for
        before = out.copy()
        run.intrinsic(piece_loop(kind, (1,), how), 2, start, start, 0, 0, 96, records, 0, out, 0, 0, 0)
        np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("piece", [4, 6])
def test_rows_are_cut_into_few_pieces_of_about_equal_size(piece: int) -> None:
    run = Interpreter(PIECE=piece)
    for rows in range(1, 3 * piece + 2):
        pieces = -(-rows // piece)
        assert run(pieces_of)(rows) == pieces
        sizes = [rows // pieces + (place < rows % pieces) for place in range(pieces)]
        ends = np.cumsum([0, *sizes]).tolist()
        assert [run(first_of_piece)(place, rows) for place in range(pieces + 1)] == ends
        owners = [place for place, size in enumerate(sizes) for _ in range(size)]
        assert [run(rounded_rows._piece_with)(row, rows) for row in range(rows)] == owners
    assert run(pieces_of)(0) == 0
    assert (6 if instructions() == "vnni512" else 4) == rounded_rows.PIECE
    assert (blockwise_products.BUNCH, blockwise_products.FEW, blockwise_products.MANY) == (2**18, 64, 128)


def test_a_row_is_rounded_to_records_of_its_piece() -> None:
    values = np.random.default_rng(2).normal(size=5 * 64).astype(np.float32)
    values[64 + 3 : 64 + 35] = 0  # a block of row 1 begins at 64 of these, its second at 96
    values[64:96], values[96], values[97] = 0, 12.7, -0.65
    values[128 + 52], values[192 + 2] = np.nan, np.inf  # in the second half of a block, and in the first
    rows, run = 5, Interpreter(PIECE=4)  # pieces of 3 and 2
    records = np.full(5 * 2 * RECORD, 200, np.uint8)
    for row in range(rows):
        run(round_row)(values, row * 64, 64, records, row, rows)
    for row, (first, size) in enumerate([(0, 3)] * 3 + [(3, 2)] * 2):
        for block in range(2):
            at = (first * 2 + block * size + row - first) * RECORD
            record, x = records[at : at + RECORD], values[row * 64 + block * 32 :][:32].astype(np.float64)
            scale, shift = record[32:40].view(np.float32)
            if row in (2, 3):
                assert np.isnan(scale)
                continue
            whole = record[:32].view(np.int8).astype(int)
            top = np.abs(x).max()
            np.testing.assert_array_equal(whole, np.rint(x * (127 / top)) if top else np.zeros(32))
            assert scale == pytest.approx(top / 127, rel=1e-6)
            assert shift == pytest.approx(whole.sum() * top / 127, rel=1e-5, abs=1e-6)
            halves = [-128 * int(whole[:16].sum()), -128 * int(whole[16:].sum())]
            assert record[40:52].view(np.int32).tolist() == [sum(halves), *halves]


@pytest.mark.parametrize("place", [3, 4, 7])
def test_codes_are_widened_to_bytes_around_128(place: int) -> None:
    kind = KINDS[place]
    matrix = random_matrix(kind, 16, 64, place)
    tiles, count = tile(matrix), 64 // kind.block
    wide = widened(kind)
    assert (wide.bits, wide[1:]) == (8, kind[1:])
    target = np.full(count * wide.record_bytes + 8, 9, np.uint8)
    Interpreter().intrinsic(widen(kind), tiles.memory.ctypes.data, count, target.ctypes.data)
    for block in range(count):
        record = target[block * wide.record_bytes :][: wide.record_bytes]
        source = tiles.memory[block * kind.record_bytes :][: kind.head_bytes]
        np.testing.assert_array_equal(record[: kind.head_bytes], source)
        codes = matrix.codes[:, block * kind.block :][:, : kind.block].reshape(16, kind.groups, 4).transpose(1, 0, 2)
        np.testing.assert_array_equal(record[kind.head_bytes :], codes.reshape(-1) + (wide.zero - kind.zero))
    assert (target[-8:] == 9).all()


def bunches(
    place: int, tiles: int, inputs: int, first: int, last: int, rows: int, **settings: Any
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What the loop over bunches asks of the inner loops, and of the widening, with addresses from 0 on."""
    pieces: list[tuple[Any, ...]] = []
    widenings: list[tuple[Any, ...]] = []
    run = Interpreter(
        multiply_piece=lambda *args: pieces.append(("plain", *args[:6], *args[7:8], *args[9:])),
        multiply_wide_piece=lambda *args: pieces.append(("wide", *args[:6], *args[7:8], *args[9:])),
        write_out=lambda *args: widenings.append(args[:2]),
        PIECE=4,
        **settings,
    )
    kind = KINDS[place]
    tile_bytes = inputs // kind.block * kind.record_bytes
    loop = getattr(blockwise_products, f"_multiply_{place}")
    run(loop)(0, tiles, tile_bytes, inputs, first, last, rows, None, None, 100, 1000)
    return pieces, widenings


def test_a_bunch_is_a_pair_of_tiles_for_few_rows_and_as_many_as_fit_the_cache_for_more() -> None:
    each = KINDS[0].record_bytes * 2  # a tile of 64 inputs
    pieces, widenings = bunches(0, 5, 64, 1, 3, 6)
    lines = -(-2 * each // (2 * 1 * 2 * 64))  # of the next pair, over two pieces of one pair and two blocks
    assert widenings == []
    assert pieces == [
        ("plain", 3, 2 * each, 3 * each, 4 * each, lines, 64, 0, 132, 148, 1000),
        ("plain", 3, 2 * each, 3 * each, 4 * each + lines * 128, lines, 64, 6 * 52, 3132, 3148, 1000),
        ("plain", 3, 4 * each, 4 * each, 6 * each, 0, 64, 0, 164, 164, 1000),
        ("plain", 3, 4 * each, 4 * each, 6 * each, 0, 64, 6 * 52, 3164, 3164, 1000),
    ]
    assert [piece[1] for piece in bunches(0, 2, 64, 0, 1, 64)[0]] == [4] * 16
    # 65 rows: bunches of two pairs where two pairs fit
    pieces, _ = bunches(0, 6, 64, 0, 3, 65, BUNCH=4 * each)
    starts = [piece[2] // each for piece in pieces]
    assert starts == [0, 2] * 17 + [4] * 17
    assert {piece[5] for piece in pieces[:34]} == {1, 0}  # 36 lines of the last pair over 34 calls of two blocks
    assert [piece[5] for piece in pieces[:34]].count(1) == -(-2 * each // 128)
    assert [piece[2] // each for piece in bunches(0, 6, 64, 0, 3, 65, BUNCH=4 * each - 1)[0]] == [
        pair for pair in (0, 2, 4) for _ in range(17)
    ]


def test_many_rows_read_widened_codes_of_five_and_six_bits_without_minimums() -> None:
    for place, widens in ((0, False), (2, False), (3, True), (4, False), (5, False), (7, True)):
        for rows in (127, 128):
            pieces, widenings = bunches(place, 3, 32, 0, 2, rows, BUNCH=1)
            records = 32 // KINDS[place].block
            is_wide = widens and rows == 128
            assert {piece[0] for piece in pieces} == {"wide" if is_wide else "plain"}
            assert [count for _, count in widenings] == ([2 * records, records] if is_wide else [])
            if is_wide:
                size = widened(KINDS[place]).record_bytes * records
                assert [address for address, _ in widenings] == [0, 2 * KINDS[place].record_bytes * records]
                first, second = pieces[0][2:4]
                assert second - first == size
                last = pieces[-1]
                assert last[2] == last[3]  # a single tile, twice


def test_a_matrix_is_multiplied_by_the_loop_of_its_kind() -> None:
    for place in range(len(KINDS)):
        called: list[tuple[Any, ...]] = []
        loops = {
            f"_multiply_{other}": lambda *args, other=other, called=called: called.append((other, *args))
            for other in range(len(KINDS))
        }
        run = Interpreter(**loops)
        run(blockwise_products.multiply)([11, place, 12, 13, 14], 1, 2, 3, "rounded", "out", 4, 5)
        assert called == [(place, 11, 12, 13, 14, 1, 2, 3, "rounded", "out", 4, 5)]


def test_a_product_rounds_each_row_and_multiplies_all_pairs_of_tiles() -> None:
    matrix = random_matrix(KINDS[1], 35, 64, 4)
    tiles = tile(matrix)
    assert isinstance(tiles, Tiles) and tiles.num_tiles == 3
    values = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    records, out = np.zeros(5 * 2 * RECORD, np.uint8), np.full((5, 3 * LANES), 7, np.float32)
    calls: list[tuple[Any, ...]] = []
    entry = np.array(tiles.entry())
    run = Interpreter(multiply=lambda *args: calls.append(args))
    run(blockwise_products._product)(entry, values, records, out)
    expected = np.zeros_like(records)
    for row in range(5):
        run(round_row)(values.reshape(-1), row * 64, 64, expected, row, 5)
    [(given, first, last, rows, rounded_rows_, to, column, stride)] = calls
    assert given is entry and (first, last, rows, column, stride) == (0, 2, 5, 0, 48)
    np.testing.assert_array_equal(rounded_rows_, expected)
    assert np.shares_memory(to, out) and to.shape == (240,)


def in_order(x: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product of a row, added up as the module says: even and odd inputs of pieces of 128, fused."""
    total = np.zeros(len(weights), np.float32)
    for first in range(0, len(x), 128):
        sums = [np.zeros(len(weights), np.float32) for _ in range(2)]
        for k in range(first, min(first + 128, len(x))):
            exact = x[k].astype(np.float64) * weights[:, k].astype(np.float64) + sums[k % 2]
            sums[k % 2] = exact.astype(np.float32)
        total = total + (sums[0] + sums[1])
    return total


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_float_products_have_one_order_of_every_sum_for_any_number_of_rows(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(37, 131)).astype(np.float16).astype(np.float32)
    tiles = tile_floats(weights, dtype)
    inputs, stride = 132, 140
    x = np.zeros((15, stride), np.float32)
    x[:, :131] = rng.normal(size=(15, 131))
    out = np.full(3 + 15 * 60, 7, np.float32)
    entry = np.array(tiles.entry())
    assert entry[1:].tolist() == [
        len(KINDS) + (dtype is np.float32), 3, inputs * 16 * np.dtype(dtype).itemsize, inputs
    ]  # fmt: skip
    Interpreter()(multiply_dense)(entry, 1, 3, 15, x.reshape(-1), stride, out, 3, 60)
    found = out[3:].reshape(15, 60)
    expected = np.stack([in_order(row[:131], weights) for row in x])
    np.testing.assert_array_equal(found[:, 16:37], expected[:, 16:])
    assert (found[:, 37:48] == 0).all() and (found[:, :16] == 7).all() and (found[:, 48:] == 7).all()
    assert (out[:3] == 7).all()


def test_one_to_eight_rows_go_through_the_largest_loops_that_fit() -> None:
    for rows, expected in ((0, []), (1, [(1, 0)]), (3, [(2, 0), (1, 2)]), (7, [(4, 0), (2, 4), (1, 6)]),
                           (8, [(8, 0)]), (21, [(8, 0), (8, 8), (4, 16), (1, 20)])):  # fmt: skip
        calls: list[tuple[Any, ...]] = []
        loops = {
            name: lambda *args, size=size, calls=calls: calls.append((size, *args))
            for name, size in (("one", 1), ("two", 2), ("four", 4), ("eight", 8))
        }
        Interpreter(**loops)(float_products._multiply_floats)(1000, 64, 5, 2, 3, rows, "x", 11, "out", 6, 70)
        assert calls == [(size, 1128, 5, "x", row * 11, 11, "out", row * 70 + 38, 70) for size, row in expected]


def test_a_dense_product_takes_some_tiles_of_whole_rows() -> None:
    weights = np.random.default_rng(4).integers(-9, 10, (40, 6)).astype(np.float32)
    rows = np.random.default_rng(5).integers(-9, 10, (3, 6)).astype(np.float32)
    out = np.full((3, 48), 7, np.float32)
    tiles = tile_floats(weights, np.float32)
    Interpreter()(float_products._product)(np.array(tiles.entry()), rows, 1, 3, out)
    assert (out[:, :16] == 7).all() and (out[:, 40:] == 0).all()
    np.testing.assert_array_equal(out[:, 16:40], rows @ weights[16:].T)
