"""The kernels for matrix tiles (AMX), whose instructions Python executes: products, the MLP and attention in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.products import amx_products
from firsthand.kernels.products.amx_products import ahead, mlp, place_of, products, round_rows, store_split, wide_steps
from firsthand.kernels.step.amx_attention import _keys, _softmax, _values, attend
from firsthand.kernels.vectors import load
from firsthand.nn.encoder_arithmetic import EncoderProduct, Tiles, aligned
from interpreted_ir import bfloat
from interpreted_kernels import Interpreter

Doubles = NDArray[np.float64]
LAST = 0x3F7FFFFF  # the last float below 1


def tiles_of(parts: Any) -> Tiles:
    """The arithmetic, on a machine that need not have tiles."""
    made = Tiles.__new__(Tiles)
    made.parts = parts
    return made


def random_product(
    rng: np.random.Generator, outputs: int, inputs: int, parts: int
) -> tuple[EncoderProduct, Doubles, Doubles]:
    weight, bias = rng.normal(size=(outputs, inputs)), rng.normal(size=outputs)
    packed = tiles_of(parts).pack(torch.from_numpy(weight), torch.from_numpy(bias))
    return packed, weight, bias


def in_tiles(values: Doubles, parts: int) -> NDArray[np.int16]:
    numbers = np.full(parts * values.size, 77, np.int16)
    Interpreter()(round_rows)(values.astype(np.float32).reshape(-1), *values.shape, numbers, parts)
    return numbers


def from_tiles(numbers: NDArray[np.int16], rows: int, width: int, parts: int) -> Doubles:
    """Tiles of 16 rows of 32 numbers, the low parts behind the high ones."""
    tiles = bfloat(numbers).astype(np.float64).reshape(rows // 16, width // 32, parts, 16, 32).sum(2)
    return tiles.transpose(0, 2, 1, 3).reshape(rows, width)


def test_a_number_is_split_into_a_rounded_half_and_a_rounded_rest() -> None:
    values = np.arange(18, dtype=np.float32)
    values[1:9] = np.array([0x3F800000, 0x3F808000, 0x3F807FFF, LAST, 0xBF80C123, 0x7FC00000, 0x7F800000, 0x00018000],
                           dtype=np.uint32).view(np.float32)  # fmt: skip
    numbers = np.full(2 * 512 + 20, 77, np.int16)
    run = Interpreter()
    with np.errstate(all="ignore"):
        run.intrinsic(store_split, numbers, 3, run.intrinsic(load, values, 1))
    high, low = numbers[3:19].view(np.uint16), numbers[515:531].view(np.uint16)
    assert [hex(each) for each in high[:5]] == ["0x3f80", "0x3f81", "0x3f80", "0x3f80", "0xbf81"]
    assert [hex(each) for each in low[:5]] == ["0x0", "0xbb80", "0x3b80", "0xb380", "0x3afb"]
    assert np.isnan(bfloat(numbers[3:19])[5])
    assert (bfloat(numbers[3:19])[6], high[7]) == (np.inf, 2)
    np.testing.assert_allclose(bfloat(numbers[3:19])[8:] + bfloat(numbers[515:531])[8:], values[9:17], rtol=0)
    assert (numbers[[0, 1, 2, *range(19, 515), *range(531, len(numbers))]] == 77).all()


@pytest.mark.parametrize("parts", [1, 2])
def test_rows_become_tiles_of_16_rows_and_32_columns(parts: int) -> None:
    values = np.random.default_rng(0).normal(size=(32, 96))
    numbers = in_tiles(values, parts)
    np.testing.assert_allclose(from_tiles(numbers, 32, 96, parts), values, rtol=2.0**-16 if parts == 2 else 2.0**-8)
    top = numbers.reshape(2, 3, parts, 16, 32)[:, :, 0].transpose(0, 2, 1, 3).reshape(32, 96)
    assert np.abs(bfloat(top) - values).max() > 1e-4  # the high parts alone are not exact
    places = [place_of.py_func(row, step, 3, parts) for row, step in ((0, 0), (1, 0), (15, 1), (16, 0), (17, 2))]
    assert places == [0, 32, 512 * parts + 480, 3 * 512 * parts, 5 * 512 * parts + 32]
    assert [wide_steps(inner) for inner in (32, 352, 384, 416, 3072)] == [1, 11, 12, 12, 12]


@pytest.mark.parametrize(("parts", "rows"), [(2, 48), (1, 16), (1, 80)])
def test_products_on_tiles_are_exact_to_their_parts_and_free_the_tiles(parts: int, rows: int) -> None:
    rng = np.random.default_rng(rows)
    width, outputs = 13 * 32, 64  # a turn of twelve steps, and one of one step
    by, weight, bias = random_product(rng, outputs, width, parts)
    values = rng.normal(size=(rows, width))
    numbers, out = in_tiles(values, parts), np.full(rows * outputs, np.nan, np.float32)
    run = Interpreter()
    run(products)(numbers, by.numbers, by.bias, rows, width, outputs, out, parts)
    bound = np.linalg.norm(values, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    error = np.abs(out.reshape(rows, outputs) - (values @ weight.T + bias)) / bound
    assert error.max() < (2e-6 if parts == 2 else 4e-3)
    if parts == 2:
        assert error.max() < 2.0**-18
    assert run.machine.tiles is None
    assert run.machine.tile_products == 2 * 13 * (rows // 16) * 2 * (
        3 if parts == 2 else 1
    )  # low times low is left out
    start = by.numbers.ctypes.data
    first = [(place.address - start) // 64 for place, _ in run.machine.prefetched[:16]]
    ahead_of_first = 13 * 32 * parts  # lines of a panel
    per_step = 32 * parts
    assert first == [
        *range(ahead_of_first, ahead_of_first + 8),
        *range(ahead_of_first + per_step, ahead_of_first + per_step + 8),
    ]
    assert {locality for _, locality in run.machine.prefetched} == {2}


@pytest.mark.parametrize("parts", [1, 2])
def test_all_lines_of_the_next_panel_are_prefetched_by_some_rows(parts: int) -> None:
    lines = 32 * parts  # of a step's weights
    found = [ahead.py_func(row, 13, parts) for row in range(0, 32 * 4 * parts, 32)]
    assert found == [13 * 1024 * parts + turn * 8 * 32 for turn in range(lines // 8)]
    again = [ahead.py_func(row, 13, parts) for row in (31, 32 * 4 * parts, 32 * 4 * parts + 63)]
    assert again == [found[0], found[0], found[1]]


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "rows", "width"), [(2, 16, 32), (1, 48, 64)])
def test_an_mlp_on_tiles_adds_its_inner_numbers_in_turns(parts: int, rows: int, width: int) -> None:
    rng = np.random.default_rng(3)
    inner = 13 * 32
    up, up_weight, up_bias = random_product(rng, inner, width, parts)
    down, down_weight, down_bias = random_product(rng, width, inner, parts)
    values = rng.normal(size=(rows, width))
    wide, sums = np.zeros(parts * rows * 384, np.int16), np.zeros(2 * 16 * 32, np.float32)
    out = np.full(rows * width, np.nan, np.float32)
    run = Interpreter()
    run(mlp)(
        in_tiles(values, parts),
        up.numbers,
        up.bias,
        down.numbers,
        down.bias,
        rows,
        width,
        inner,
        wide,
        sums,
        out,
        parts,
    )
    before = values @ up_weight.T + up_bias
    gelu = before / 2 * (1 + np.vectorize(math.erf)(before / math.sqrt(2)))
    expected = gelu @ down_weight.T + down_bias
    assert np.abs(out.reshape(rows, width) - expected).max() / np.abs(expected).max() < (1.2e-5 if parts == 2 else 6e-3)
    assert run.machine.tiles is None


def softmax_attention(qkv: Doubles, lengths: list[int], heads: int, dim: int, scale: float) -> Doubles:
    """Of packed rows of queries, keys and values side by side; each text alone."""
    width, parts, start = heads * dim, [], 0
    for length in lengths:
        q, k, v = (
            qkv[start : start + length, at : at + width].reshape(length, heads, dim) for at in (0, width, 2 * width)
        )
        scores = np.einsum("qhd,khd->hqk", q, k) * scale
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        parts.append(np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v).reshape(length, width))
        start += length
    return np.concatenate(parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "heads", "dim", "lengths", "starts"),
    [(2, 2, 64, [37, 5, 16], [0, 37, 42]), (1, 1, 32, [3, 33, 1], [0, 3, 36]), (2, 1, 32, [32, 2], [0, 32])],
)
def test_attention_on_tiles_is_each_texts_own(
    parts: int, heads: int, dim: int, lengths: list[int], starts: list[int]
) -> None:
    rng = np.random.default_rng(heads)
    width, used = heads * dim, sum(lengths)
    rows = -(-used // 16) * 16
    weight, bias = rng.normal(size=(3 * width, width)) * 0.3, rng.normal(size=3 * width)
    bias[width : 2 * width] += 20  # the same for all keys of a query; scores far from 0
    by = tiles_of(parts).pack(torch.from_numpy(weight), torch.from_numpy(bias))
    values = rng.normal(size=(rows, width)) * 0.3
    out = np.full(parts * rows * width, 77, np.int16)
    one_head = aligned(3 * rows * dim, np.float32)
    one_head[:] = np.nan
    run = Interpreter()
    run(attend)(
        in_tiles(values, parts), by.numbers, by.bias, np.array(starts), np.array(lengths), heads, dim, np.float32(0.15),
        rows, one_head, out, parts,
    )  # fmt: skip
    expected = softmax_attention(values @ weight.T + bias, lengths, heads, dim, 0.15)
    found = from_tiles(out, rows, width, parts)
    assert np.abs(found[:used] - expected).max() < (5e-4 if parts == 2 else 0.04)
    assert (out.reshape(rows // 16, width // 32, parts, 16, 32)[-1, :, :, used - rows + 16 :] == 77).all()
    assert run.machine.tiles is None


@pytest.mark.parametrize(("parts", "length"), [(2, 19), (1, 33), (1, 16)])
def test_keys_and_values_become_panels_of_weights_with_zeros_behind_the_last(parts: int, length: int) -> None:
    rng = np.random.default_rng(length)
    span, aside, at = -(-length // 32) * 32, 3000, 7
    head = (
        (rng.integers(8192, 16384, (70, 64)) * 2 + 1) * rng.choice([-1.0, 1.0], (70, 64)) / 4096
    )  # no ties; two parts
    qkv = np.full(2 * aside, np.nan, np.float32)
    for step in range(2):
        panel = qkv[at + step * aside :][: 70 * 32].reshape(70, 32)
        panel[:] = head[:, 32 * step :][:, :32]
    own = np.zeros((span, 64))
    own[:length] = head[:length]
    rows, nothing = np.zeros(2 * 512, np.int16), torch.zeros(64)  # the rows behind the text are another's
    keys, values = (np.zeros(span * 64 * parts, np.int16) for _ in range(2))
    Interpreter()(_keys)(qkv, at, length, 2, aside, rows, keys, parts)
    np.testing.assert_array_equal(keys, tiles_of(parts).pack(torch.from_numpy(own), nothing).numbers)
    Interpreter()(_values)(qkv, at, length, span, 2, aside, rows, values, parts)
    turned = torch.from_numpy(np.ascontiguousarray(own.T))
    np.testing.assert_array_equal(values, tiles_of(parts).pack(turned, nothing).numbers)


@pytest.mark.parametrize(("parts", "length"), [(2, 21), (1, 32), (2, 48), (1, 5)])
def test_weights_of_a_row_are_written_as_tiles_with_zeros_behind_the_last(parts: int, length: int) -> None:
    scores = np.full(7 + 64, 500, np.float32)
    scores[7 : 7 + length] = np.random.default_rng(length).normal(size=length) - 90
    weights = np.full(2 * 3 * parts * 512, 77, np.int16)  # two tiles of 16 rows, of three steps
    steps = -(-length // 32)
    share = Interpreter()(_softmax)(scores, 7, length, weights, 17, steps, parts)
    exact = scores[7 : 7 + length].astype(np.float64)
    exact = np.exp(exact - exact.max())
    assert share == pytest.approx(1 / exact.sum(), rel=1e-5)
    expected = np.concatenate([exact, np.zeros(32 * steps - length)]).reshape(steps, 32)
    tiles = weights[: 2 * steps * parts * 512].reshape(2, steps, parts, 16, 32)
    found = bfloat(np.ascontiguousarray(tiles[1, :, :, 1])).astype(np.float64).sum(1)
    np.testing.assert_allclose(found, expected, atol=2e-5 if parts == 2 else 5e-3)
    tiles[1, :, :, 1] = 77
    assert (weights == 77).all()


WITH_TILES = {"amx-tile": True, "amx-bf16": True, "avx512f": True}


@pytest.mark.parametrize(
    ("changes", "features", "answer", "has"),
    [
        ({}, {}, 0, True),
        ({"system": "darwin"}, {}, 0, False),
        ({"machine": "aarch64"}, {}, 0, False),
        ({"CPU_NAME": "generic"}, {}, 0, False),
        ({"CPU_FEATURES": "+avx2"}, {}, 0, False),
        ({"CPU_NAME": "", "CPU_FEATURES": None}, {}, 0, True),
        ({}, {"amx-tile": False}, 0, False),
        ({}, {"amx-bf16": False}, 0, False),
        ({}, {"avx512f": False}, 0, False),
        ({}, {}, -1, False),
    ],
)
def test_tiles_are_there_if_the_processor_has_them_and_linux_lets_them_be_used(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], features: dict[str, bool], answer: int, has: bool
) -> None:
    asked: list[tuple[int, ...]] = []

    def syscall(*numbers: int) -> int:
        asked.append(numbers)
        return answer

    host = {**WITH_TILES, **features}
    own = {name: value for name, value in changes.items() if name.startswith("CPU")}
    monkeypatch.setattr(amx_products, "sys", SimpleNamespace(platform=changes.get("system", "linux")))
    monkeypatch.setattr(amx_products, "platform", SimpleNamespace(machine=lambda: changes.get("machine", "x86_64")))
    monkeypatch.setattr(amx_products, "config", SimpleNamespace(**own))
    monkeypatch.setattr(amx_products, "binding", SimpleNamespace(get_host_cpu_features=lambda: host))
    monkeypatch.setattr(amx_products, "ctypes", SimpleNamespace(CDLL=lambda name: SimpleNamespace(syscall=syscall)))
    assert amx_products.has_tiles.__wrapped__() is has
    assert asked == ([(158, 0x1023, 18)] if has or answer else [])


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("rows", [1, 16, 17, 20, 31, 32, 33, 48, 49])
def test_a_last_group_of_tiles_may_be_partly_filled(parts: int, rows: int) -> None:
    """Room is for whole tiles of 16 rows; a tile without any of the rows is neither computed nor written."""
    rng = np.random.default_rng(rows)
    width, inner, tiles = 32, 64, -(-rows // 16)
    up, up_weight, up_bias = random_product(rng, inner, width, parts)
    down, down_weight, down_bias = random_product(rng, width, inner, parts)
    values = rng.normal(size=(16 * tiles, width))
    numbers = in_tiles(values, parts)

    def near(found: NDArray[np.float32], expected: Doubles) -> None:
        assert np.isnan(found[16 * tiles :]).all()
        error = np.abs(found[:rows] - expected[:rows]).max() / np.abs(expected).max()
        assert error < (1.2e-5 if parts == 2 else 1e-2)

    per_tile = 2 * (3 if parts == 2 else 1) * (width // 32) * (inner // 32)  # of one product of the two
    before = values @ up_weight.T + up_bias
    run, out = Interpreter(), np.full((16 * tiles + 16, inner), np.nan, np.float32)
    run(products)(numbers, up.numbers, up.bias, rows, width, inner, out.reshape(-1), parts)
    near(out, before)
    assert run.machine.tile_products == per_tile * tiles and run.machine.tiles is None
    run, out = Interpreter(), np.full((16 * tiles + 16, width), np.nan, np.float32)
    wide, sums = np.zeros(parts * 16 * tiles * inner, np.int16), np.full(2 * 16 * 32, np.nan, np.float32)
    run(mlp)(
        numbers, up.numbers, up.bias, down.numbers, down.bias, rows, width, inner, wide, sums, out.reshape(-1), parts
    )
    near(out, before / 2 * (1 + np.vectorize(math.erf)(before / math.sqrt(2))) @ down_weight.T + down_bias)
    assert run.machine.tile_products == 2 * per_tile * tiles and run.machine.tiles is None
