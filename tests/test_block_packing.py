"""How the K types are packed: where each scale, minimum and code lies, read back by the gguf package."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.products import block_fits, block_rounding
from firsthand.kernels.products.block_rounding import K_TYPES

SUPERS = 3


def test_small_codes_share_bytes_as_ggml_lays_them_out() -> None:
    rng = np.random.default_rng(1)
    q = rng.integers(0, 4, (2, 256)).astype(np.uint8)
    found = block_rounding._two_bits(q)
    assert found.shape == (2, 64)
    for place in (0, 5, 31, 32, 63):
        half, at = divmod(place, 32)
        lines = [q[1, half * 128 + line * 32 + at] for line in range(4)]
        assert found[1, place] == sum(int(code) << 2 * line for line, code in enumerate(lines))
    six = rng.integers(0, 64, (2, 256)).astype(np.uint8)
    low, high = block_rounding._six_bit_codes(six)
    assert (low.shape, high.shape) == ((2, 128), (2, 64))
    for place in (0, 40, 63, 64, 127):
        half, at = divmod(place, 64)
        line, column = divmod(at, 32)
        first, second = (six[1, half * 128 + which * 32 + column] for which in (line, line + 2))
        assert low[1, place] == (first & 15) | (second & 15) << 4
    for place in (0, 31, 40):
        half, at = divmod(place, 32)
        assert high[1, place] == sum(int(six[1, half * 128 + line * 32 + at] >> 4) << 2 * line for line in range(4))


def test_scales_of_six_bits_fill_twelve_bytes() -> None:
    scales = np.array([[1, 62, 3, 20, 37, 6, 55, 8]], dtype=np.uint8)
    minimums = np.array([[9, 10, 63, 12, 13, 46, 15, 32]], dtype=np.uint8)
    packed = block_rounding._six_bits(scales, minimums)[0]
    found_scales, found_minimums = gguf.quants.Q4_K.get_scale_min(packed[None])
    assert (found_scales.tolist(), found_minimums.tolist()) == (scales.tolist(), minimums.tolist())
    signed = np.arange(-32, 32, 4).astype(np.int8)[None]
    signed[0, [0, 7, 8, 15]] = [-32, 31, 15, -17]
    twelve = block_rounding._signed_six_bits(signed)[0]
    codes = signed[0].astype(int) + 32
    assert twelve[:8].tolist() == [(codes[i] & 15) | (codes[i + 8] & 15) << 4 for i in range(8)]
    assert twelve[8:].tolist() == [sum((codes[4 * line + i] >> 4) << 2 * line for line in range(4)) for i in range(4)]


def test_blocks_become_tiles_and_numbers_of_super_blocks_are_spread() -> None:
    blocks = np.arange(18 * 16, dtype=np.float32).reshape(18, 16)
    tiles = block_rounding._tiled(blocks)
    assert tiles.shape == (2, 16, 16) and tiles.flags.c_contiguous
    assert (tiles[0, 5, 3], tiles[1, 7, 1], tiles[1, 7, 2]) == (blocks[3, 5], blocks[17, 7], 0)
    assert block_rounding._tiled(blocks[:16]).shape == (1, 16, 16)
    codes = (np.arange(48 * 16) % 120).astype(np.int8).reshape(3, 16, 16)
    untiled = block_rounding._untiled(codes, 2)
    assert untiled.shape == (2, 16, 16) and untiled[1, 4, 9] == codes[1, 9, 4]
    assert block_rounding._untiled(np.zeros((2, 32, 16), np.int8), 3).shape == (3, 8, 32)
    values = np.arange(40, dtype=np.float32)
    assert block_rounding._per_super(values, 2, 16).tolist() == [list(range(16)), list(range(16, 32))]
    assert block_rounding._per_super(values, 3, 32)[2].tolist() == list(range(16, 24))
    assert block_rounding._spread(np.array([1.5, 2.5]), 3, 8).tolist() == [1.5] * 3 + [2.5] * 3 + [0] * 2
    padded = block_rounding._padded(np.array([[1, 2], [3, 4]]), 6)
    assert padded.tolist() == [1, 2, 3, 4, 0, 0] and padded.dtype == np.float32
    scales = np.array([[1, -8, 4], [0, 0, 0], [0.5, 3, 6]], dtype=np.float32)
    units, whole = block_rounding._units(scales, -32)
    assert units.tolist() == [0.25, 0, -0.1875] and units.dtype == np.float16
    np.testing.assert_allclose(whole, [[4, -32, 16], [0, 0, 0], [0.5 / -0.1875, -16, -32]], rtol=1e-6)


@pytest.mark.parametrize("kind", K_TYPES)
def test_a_packed_matrix_is_its_units_scales_minimums_and_codes(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    of, rng = K_TYPES[kind], np.random.default_rng(2)
    blocks = 256 // of.block
    total = -(-SUPERS * blocks // 16) * 16
    fitted = rng.uniform(0.1, 1, total).astype(np.float32) * (1 if of.has_minimums else rng.choice([-1, 1], total))
    fitted_minimums = rng.uniform(0.1, 1, total).astype(np.float32)
    fitted = fitted.astype(np.float32)
    codes = rng.integers(of.least, of.most + 1, (total // 16, of.block, 16)).astype(np.int8)
    seen: dict[str, Any] = {}

    def fit_affine(x: Any, size: int, most: int, tops: Any, scales: Any, minimums: Any) -> None:
        seen.update(fit=(len(x), size, most, tops))
        scales[:], minimums[:] = fitted, fitted_minimums

    def fit_symmetric(x: Any, size: int, least: int, most: int, tops: Any, scales: Any) -> None:
        seen.update(fit=(len(x), size, least, most, tops))
        scales[:] = fitted

    def round_affine(
        x: Any, size: int, most: int, units: Any, low: Any, last: int, scales: Any, lows: Any, out: Any
    ) -> None:
        seen.update(round=(len(x), size, most, last), units=units, low=low, given=scales.copy(), given_low=lows.copy())
        scales[1], lows[2] = scales[1] - 1, lows[2] - 1  # the kernel may choose neighbours
        seen.update(scales=scales.copy(), lows=lows.copy())
        out[:] = codes.reshape(-1)

    def round_symmetric(
        x: Any, size: int, least: int, most: int, units: Any, first: int, last: int, scales: Any, out: Any
    ) -> None:
        seen.update(round=(len(x), size, least, most, first, last), units=units, given=scales.copy())
        scales[1] = scales[1] - 1
        seen.update(scales=scales.copy())
        out[:] = codes.reshape(-1)

    for function in (fit_affine, fit_symmetric, round_affine, round_symmetric):
        monkeypatch.setattr(block_fits, function.__name__, function)
    x = np.zeros((total // 16, of.block, 16), np.float32)
    pack = block_rounding._pack_affine if of.has_minimums else block_rounding._pack_symmetric
    raw = pack(x, of, kind, SUPERS)
    assert raw.shape == (SUPERS, {"Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}[kind])

    bounds = (of.most,) if of.has_minimums else (of.least, of.most)
    assert seen["fit"][:-1] == (x.size, of.block, *bounds)
    tops = [of.most + top if of.has_minimums else of.least * top for top in of.tops]
    np.testing.assert_allclose(seen["fit"][-1], tops, rtol=1e-6)
    limits = (of.last_scale,) if of.has_minimums else (of.first_scale, of.last_scale)
    assert seen["round"] == (x.size, of.block, *bounds, *limits)
    whole = SUPERS * blocks

    def in_units(numbers: NDArray[np.float32], last: int) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = numbers[:whole].reshape(SUPERS, blocks)
        largest = rows[np.arange(SUPERS), np.abs(rows).argmax(1)]
        units = (largest / np.float32(last)).astype(np.float16).astype(np.float32)
        scaled = np.clip(np.rint(rows / units[:, None]), of.first_scale, of.last_scale)
        return np.repeat(units, blocks), scaled.reshape(-1)

    units, given = in_units(fitted, of.last_scale if of.has_minimums else of.first_scale)
    np.testing.assert_array_equal(seen["units"], [*units, *[0] * (total - whole)])
    np.testing.assert_array_equal(seen["given"], [*given, *[0] * (total - whole)])
    values = codes.transpose(0, 2, 1).reshape(total, of.block)[:whole]
    expected = (seen["units"] * seen["scales"])[:whole, None] * values.astype(np.float32)
    if of.has_minimums:
        units, given = in_units(fitted_minimums, of.last_scale)
        np.testing.assert_array_equal(seen["low"][:whole], units)
        np.testing.assert_array_equal(seen["given_low"][:whole], given)
        expected = expected - (seen["low"] * seen["lows"])[:whole, None]
    found = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    np.testing.assert_allclose(found.reshape(whole, of.block), expected, rtol=1e-5, atol=1e-6)
