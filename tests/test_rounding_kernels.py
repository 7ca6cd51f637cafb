"""Fits, roundings and 16-bit products of the compiled kernels, against the same search written out in numpy."""

import hashlib
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.products.block_fits import fit_affine, fit_symmetric, round_affine, round_symmetric
from firsthand.kernels.products.block_rounding import K_TYPES, dequantise, quantise
from firsthand.kernels.products.blockwise import Blockwise, from_values
from firsthand.kernels.products.float_products import dense_product, tile_floats, untile_floats
from firsthand.kernels.products.int16_products import gelu_products, round_rows
from firsthand.kernels.products.tiled_weights import KINDS, LANES, tile, untile
from firsthand.nn.encoder_arithmetic import Shorts
from interpreted_kernels import Interpreter

Floats = NDArray[np.float32]


@pytest.fixture(params=["in Python", "compiled"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the kernels as they run, and once with their Python bodies."""
    if request.param == "in Python":
        for kernel in (fit_affine, fit_symmetric, round_affine, round_symmetric):
            monkeypatch.setattr(sys.modules[__name__], kernel.__name__, Interpreter()(kernel))


def tiled(blocks: NDArray[Any]) -> Floats:
    """Blocks (a multiple of 16) as T B 16, flat."""
    turned = blocks.reshape(-1, LANES, blocks.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(turned, dtype=np.float32).reshape(-1)


def uneven_blocks(size: int, seed: int) -> Floats:
    """32 blocks, each with a centre and a width of its own; among them zeros, one constant, and one sign only."""
    rng = np.random.default_rng(seed)
    blocks = rng.normal(size=(32, size)) * rng.uniform(0.1, 3, (32, 1)) + rng.normal(size=(32, 1))
    blocks[3], blocks[7], blocks[20] = 0, -1.75, 0.625
    blocks[11], blocks[12] = np.abs(blocks[11]) + 1, -np.abs(blocks[12]) - 1
    return blocks.astype(np.float32)


def codes_of(x: Floats, step: np.float32, least: int, most: int) -> Floats:
    inverse = np.float32(1) / step if abs(step) > 1e-30 else np.float32(0)
    return np.clip(np.rint(x * inverse), least, most)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(("size", "most", "last"), [(16, 3, 15), (32, 31, 63)])
def test_a_rounded_scale_and_minimum_are_the_best_of_nine_neighbours_with_their_own_codes(
    size: int, most: int, last: int
) -> None:
    x, rng = uneven_blocks(size, 2), np.random.default_rng(3)
    spans, depths = np.maximum(x.max(1), 0) - np.minimum(x.min(1), 0), -np.minimum(x.min(1), 0)
    units = (spans.clip(0.1) / most / (last * rng.uniform(0.3, 0.9, 32))).astype(np.float32)
    minimum_units = (depths.clip(0.1) / (last * rng.uniform(0.3, 0.9, 32))).astype(np.float32)
    exact = np.stack([spans / most / units, depths / minimum_units])
    given = np.clip(np.rint(exact + rng.integers(-1, 2, (2, 32))), 0, last).astype(np.float32)  # near what fits
    given[:, 3], given[0, 5], given[1, 6] = 0, last, last
    scales, minimums, codes = given[0].copy(), given[1].copy(), np.full(32 * size, 99, dtype=np.int8)
    round_affine(tiled(x), size, most, units, minimum_units, last, scales, minimums, codes)
    found_codes = codes.reshape(2, size, LANES).transpose(0, 2, 1).reshape(32, size)
    moved = set()
    for block in range(32):
        errors = {}
        for scale in range(int(given[0, block]) - 1, int(given[0, block]) + 2):
            for minimum in range(int(given[1, block]) - 1, int(given[1, block]) + 2):
                if 0 <= scale <= last and 0 <= minimum <= last:
                    step, offset = units[block] * np.float32(scale), minimum_units[block] * np.float32(minimum)
                    own = codes_of(x[block] + offset, step, 0, most)
                    error = ((x[block].astype(np.float64) + offset - np.float64(step) * own) ** 2).sum()
                    errors[scale, minimum] = (error, own)
        chosen = int(scales[block]), int(minimums[block])
        assert errors[chosen][0] <= min(error for error, _ in errors.values()) * (1 + 1e-5) + 1e-9
        np.testing.assert_array_equal(found_codes[block], errors[chosen][1])
        moved.add((chosen[0] - int(given[0, block]), chosen[1] - int(given[1, block])))
    assert len(moved) >= 5  # neighbours on all sides were taken


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(("size", "least", "most", "first", "last"), [(16, -4, 3, -32, 31), (16, -32, 31, -128, 127)])
def test_a_rounded_signed_scale_is_the_best_of_three_neighbours_with_its_own_codes(
    size: int, least: int, most: int, first: int, last: int
) -> None:
    x, rng = uneven_blocks(size, 4), np.random.default_rng(5)
    units = (rng.uniform(0.5, 1.5, 32) * np.abs(x).max(1).clip(0.1) / least / first * 1.5).astype(np.float32)
    given = np.rint(np.abs(x).max(1) / least / units * rng.choice([1, -1], 32) + rng.integers(-1, 2, 32))
    given = np.clip(given, first, last).astype(np.float32)
    given[1], given[2], given[3] = first, last, 0
    scales, codes = given.copy(), np.full(32 * size, 99, dtype=np.int8)
    round_symmetric(tiled(x), size, least, most, units, first, last, scales, codes)
    found_codes = codes.reshape(2, size, LANES).transpose(0, 2, 1).reshape(32, size)
    moved = set()
    for block in range(32):
        errors = {}
        for scale in range(max(int(given[block]) - 1, first), min(int(given[block]) + 1, last) + 1):
            step = units[block] * np.float32(scale)
            own = codes_of(x[block], step, least, most)
            errors[scale] = ((x[block].astype(np.float64) - np.float64(step) * own) ** 2).sum(), own
        chosen = int(scales[block])
        assert errors[chosen][0] <= min(error for error, _ in errors.values()) * (1 + 1e-5) + 1e-9
        np.testing.assert_array_equal(found_codes[block], errors[chosen][1])
        moved.add(chosen - int(given[block]))
    assert moved == {-1, 0, 1}


def best_line(x: NDArray[np.float64], most: int, tops: Floats) -> tuple[float, float]:
    """The scale and minimum of least squares among those of each top, as `fit_affine` defines them."""
    low, high = min(x.min(), 0.0), x.max()
    tries = [(0.0, min(x.mean(), 0.0))]
    tried_codes = [np.zeros_like(x)]
    for top in tops if high - low > 0 else ():
        q = np.clip(np.rint((x - low) * (top / (high - low))), 0, most)
        lines = np.stack([q, np.ones_like(q)], axis=1)
        scale, offset = np.linalg.lstsq(lines, x, rcond=None)[0] if np.ptp(q) > 0 else (0.0, 1.0)
        if offset >= 1e-30:
            scale, offset = (x @ q) / (q @ q) if q.any() else 0.0, 0.0
        if scale >= 0:
            tries.append((scale, offset))
            tried_codes.append(q)
    errors = [((x - scale * q - offset) ** 2).sum() for (scale, offset), q in zip(tries, tried_codes, strict=True)]
    scale, offset = tries[int(np.argmin(errors))]
    return scale, -offset


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(("size", "most"), [(16, 3), (32, 15)])
def test_a_scale_and_a_minimum_are_the_least_squares_of_the_best_range(size: int, most: int) -> None:
    x = uneven_blocks(size, 6)
    tops = (most + np.linspace(-1.1, 0.9, 5)).astype(np.float32)
    scales, minimums = np.full(32, 9, dtype=np.float32), np.full(32, 9, dtype=np.float32)
    fit_affine(tiled(x), size, most, tops, scales, minimums)
    expected = np.array([best_line(each.astype(np.float64), most, tops) for each in x])
    some = [block for block in range(32) if block not in (7, 20)]  # of a constant, several lines are exact
    np.testing.assert_allclose(np.stack([scales, minimums], axis=1)[some], expected[some], rtol=2e-4, atol=2e-5)
    assert (minimums >= 0).all()
    assert (minimums[7] - scales[7] * np.arange(most + 1)).tolist().count(1.75) > 0


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(("size", "least", "most"), [(16, -4, 3), (16, -32, 31)])
def test_a_signed_scale_is_the_least_squares_of_the_best_range(size: int, least: int, most: int) -> None:
    x = uneven_blocks(size, 7)
    x[5, 2], x[5, 9] = 7.5, -7.5  # the first of two with the largest magnitude counts
    tops = (least * np.array([0.8, -0.85, 1.0, -1.0, 1.15])).astype(np.float32)
    scales = np.full(32, 9, dtype=np.float32)
    fit_symmetric(tiled(x), size, least, most, tops, scales)
    for block in range(32):
        values = x[block].astype(np.float64)
        largest = values[np.abs(values).argmax()]
        gains = [(0.0, 0.0)]
        for top in tops if largest else ():
            q = np.clip(np.rint(values * (top / largest)), least, most)
            gains.append(((values @ q) ** 2 / (q @ q), (values @ q) / (q @ q)))
        near = [gain for gain, scale in gains if scales[block] == pytest.approx(scale, rel=1e-5)]
        assert max(near, default=-1.0) >= max(gains)[0] * (1 - 1e-5)


def test_files_of_the_k_types_keep_their_bytes_and_their_error() -> None:
    """The search decides every byte, in an order that depends on no machine; the errors are those of the five types."""
    rows = np.random.default_rng(8).normal(size=(3, 512)).astype(np.float32) * np.float32(0.1) + np.float32(0.02)
    found = {kind: quantise(rows, kind) for kind in K_TYPES}
    errors = {kind: float(((dequantise(raw, kind) - rows) ** 2).mean() / rows.var()) for kind, raw in found.items()}
    assert [len(raw[0]) for raw in found.values()] == [2 * 84, 2 * 110, 2 * 144, 2 * 176, 2 * 210]
    for kind, bits in zip(K_TYPES, (2, 3, 4, 5, 6), strict=True):
        assert 0.6 < errors[kind] * 4**bits < 1.6, (kind, errors[kind])
    assert {kind: hashlib.sha256(raw.tobytes()).hexdigest()[:12] for kind, raw in found.items()} == {
        "Q2_K": "e923c438cd70", "Q3_K": "b6e51e3852fb", "Q4_K": "c5f4571c4040", "Q5_K": "d6df75b26c85",
        "Q6_K": "5334ba1b2bcc",
    }  # fmt: skip


def test_rounding_to_bytes_is_by_blocks_of_32_of_each_row() -> None:
    values = np.zeros((2, 64), dtype=np.float32)
    values[0, :3], values[0, 32:35], values[1, 63] = [254, -3, 1], [0.5, -127, 63.5], -2.54
    found = from_values(values)
    scales = np.array([[2, 1], [0, np.float32(np.float16(0.02))]], dtype=np.float32)
    np.testing.assert_array_equal(found.scales, scales)
    assert (found.zero, found.bits, found.block, found.minimums) == (128, 8, 32, None)
    assert found.codes[0, :4].tolist() == [255, 126, 128, 128]  # halves go to the even number
    assert (found.codes[0, 32:36].tolist(), found.codes[1, 62:].tolist()) == ([128, 1, 192, 128], [128, 1])
    turned = found.rows(np.array([1, 0, 1]))
    np.testing.assert_array_equal(turned.values(), found.values()[[1, 0, 1]])
    assert found.values()[0, :3].tolist() == [254, -4, 0]


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_a_tile_s_record_is_scales_minimums_and_codes_of_sixteen_rows(number: int) -> None:
    kind, rng = KINDS[number], np.random.default_rng(number)
    outputs, blocks = 18, 3
    inputs = blocks * kind.block
    codes = rng.integers(0, 1 << kind.bits, (outputs, inputs)).astype(np.uint8)
    scales, minimums = (rng.normal(size=(outputs, blocks)).astype(np.float16).astype(np.float32) for _ in range(2))
    if not kind.half:
        scales[-1, -1] += np.float32(1e-6)  # no float16
    matrix = Blockwise(codes, scales, minimums if kind.has_minimums else None, kind.zero, kind.bits)
    tiles = tile(matrix)
    head = 16 * (2 if kind.half else 4) * (1 + kind.has_minimums)
    record = head + 16 * kind.block * kind.bits // 8
    assert (tiles.kind, tiles.num_tiles, tiles.tile_bytes, tiles.memory.size) == (number, 2, 3 * record, 6 * record)
    assert tiles.entry()[1:] == [number, 2, 3 * record, inputs]
    assert tiles.memory.ctypes.data % 64 == 0
    stored = np.float16 if kind.half else np.float32
    one = tiles.memory[record : 2 * record]  # the first tile's second block
    heads = one[:head].view(stored).reshape(-1, 16)
    np.testing.assert_array_equal(heads[0], scales[:16, 1])
    if kind.has_minimums:
        np.testing.assert_array_equal(heads[1], minimums[:16, 1])
    of_block = codes[:16, kind.block : 2 * kind.block].reshape(16, kind.groups, 4)
    for group in range(kind.groups):
        expected = of_block[:, group].reshape(-1)
        if kind.bits == 8:
            np.testing.assert_array_equal(one[head + 64 * group :][:64], expected)
            continue
        low = one[head + 64 * (group // 2) :][:64] >> (4 * (group % 2)) & 15
        high = one[-64:] >> (group * (kind.bits - 4)) & ((1 << (kind.bits - 4)) - 1)
        np.testing.assert_array_equal(low | high << 4 if kind.bits > 4 else low, expected)
    last = tiles.memory[5 * record : 5 * record + head].view(stored).reshape(-1, 16)
    np.testing.assert_array_equal(last[0], [*scales[16:, 2], *[0] * 14])
    back = untile(tiles)
    np.testing.assert_array_equal(back.codes, codes)
    np.testing.assert_array_equal(back.values(), matrix.values())
    assert (back.zero, back.bits, back.block) == (kind.zero, kind.bits, kind.block)
    with pytest.raises(AssertionError, match="no inner loop for"):
        tile(Blockwise(np.repeat(codes, 2, axis=1), scales, matrix.minimums, kind.zero, kind.bits))


@pytest.mark.parametrize(("outputs", "inputs"), [(17, 259), (33, 1), (16, 130)])
def test_float_products_are_exact_at_odd_sizes(outputs: int, inputs: int) -> None:
    rng = np.random.default_rng(inputs)
    weights = rng.integers(-9, 10, (outputs, inputs)).astype(np.float32)
    for dtype in (np.float16, np.float32):
        tiles = tile_floats(weights, dtype)
        np.testing.assert_array_equal(untile_floats(tiles), weights)
        for count in (1, 2, 3, 7, 15):
            rows = rng.integers(-9, 10, (count, inputs)).astype(np.float32)
            np.testing.assert_array_equal(dense_product(rows, tiles), rows @ weights.T)


def test_products_of_16_bits_are_those_of_the_rounded_numbers() -> None:
    rng = np.random.default_rng(9)
    values = (rng.normal(size=(12, 96)) * np.exp(rng.normal(size=(12, 1)))).astype(np.float32)
    values[1, :32], values[2, 32:64] = 0, 0
    values[2, 40] = -1e-3  # alone in its block: the largest number that 16 bits hold
    shorts, scales = np.zeros(12 * 96, np.int16), np.zeros(12 * 3, np.float32)
    round_rows(values.reshape(-1), 12, 96, shorts, scales)
    blocks = values.astype(np.float64).reshape(-1, 32)
    top, length = np.abs(blocks).max(1), np.linalg.norm(blocks, axis=1)
    with np.errstate(divide="ignore"):
        expected = np.minimum(46336 / np.maximum(length, 1e-30), 32767 / np.maximum(top, 1e-30))
    np.testing.assert_allclose(1 / scales, expected, rtol=1e-5)
    whole = shorts.reshape(-1, 32).astype(np.float64)
    assert np.abs(whole - blocks * expected[:, None]).max() < 0.51
    assert whole[2 * 3 + 1, 8] == -32767

    weight, bias = torch.randn(64, 96, generator=torch.Generator().manual_seed(1)), torch.linspace(-2, 3, 64)
    by = Shorts()
    packed = by.pack(weight, bias)
    x = by.empty(12, 96)
    by.round(values.reshape(-1), 12, 96, x)
    rounded_rows = (whole * scales[:, None].astype(np.float64)).reshape(12, 96)
    pairs = packed.numbers.view(np.int16).reshape(2, 48, 32, 2).transpose(0, 2, 1, 3).reshape(64, 96)
    rounded_weights = pairs * packed.scales[:, None].astype(np.float64)
    assert np.abs(rounded_weights - weight.numpy()).max() < 2e-4
    expected_out = rounded_rows @ rounded_weights.T + bias.numpy()
    out = np.full(12 * 64, np.nan, np.float32)
    by.multiply(x, packed, 12, out)
    np.testing.assert_allclose(out.reshape(12, 64), expected_out, rtol=1e-5, atol=1e-5)

    wide = by.empty(12, 64)
    gelu_products(
        x.numbers.view(np.int32),
        x.scales,
        packed.numbers,
        packed.scales,
        packed.bias,
        12,
        96,
        64,
        wide.numbers,
        wide.scales,
    )
    gelu = np.vectorize(lambda v: v / 2 * (1 + math.erf(v / math.sqrt(2))))(expected_out)
    got = (wide.numbers.reshape(-1, 32) * wide.scales[:, None].astype(np.float64)).reshape(12, 64)
    steps = np.repeat(wide.scales.reshape(12, 2), 32, axis=1)
    assert (np.abs(got - gelu) <= 0.5 * steps + 5e-6 * (1 + np.abs(gelu))).all()
