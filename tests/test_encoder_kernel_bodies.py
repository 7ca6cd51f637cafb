"""The kernels of an encoder in Python, against float64: products of 16 bits, embeddings, norms and attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.products import int16_products
from firsthand.kernels.step import encoder_ops
from firsthand.kernels.vectors import load, store
from firsthand.nn.encoder_arithmetic import Shorts
from interpreted_kernels import Interpreter


def blocks_of_shorts(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whole numbers and scales, as the module defines them."""
    blocks = x.reshape(-1, 32)
    length, peak = np.linalg.norm(blocks, axis=1), np.abs(blocks).max(1)
    scale = np.minimum(46336 / np.maximum(length, 1e-30), 32767 / np.maximum(peak, 1e-30))
    return np.rint(blocks * scale[:, None]), 1 / scale


def test_rows_of_shorts_have_a_scale_for_each_block() -> None:
    x = np.random.default_rng(0).normal(size=(2, 64))
    x[0, 32:] = 0
    x[1, :32] = 0
    x[1, 7] = -3.0  # alone: its magnitude is the bound, not its length
    x = x.astype(np.float32).astype(np.float64)
    shorts, scales = np.full(2 * 64 + 3, 99, np.int16), np.full(5, 99, np.float32)
    Interpreter()(int16_products.round_rows)(x.astype(np.float32).reshape(-1), 2, 64, shorts, scales)
    whole, expected = blocks_of_shorts(x)
    assert (
        np.abs(shorts[:128].reshape(4, 32) - whole).max() <= 1 and (shorts[:128].reshape(4, 32) != whole).mean() < 0.05
    )
    np.testing.assert_allclose(scales[:4], expected, rtol=1e-5)
    assert shorts[64 + 7] == -32767 and (shorts[128:] == 99).all() and scales[4] == 99


def test_products_of_shorts_are_whole_numbers_times_their_scales_in_panels() -> None:
    rng = np.random.default_rng(1)
    rows, width, outputs, aside, line = 12, 13 * 32, 64, 1000, 40  # twelve blocks, and one more
    weight, bias = rng.normal(size=(outputs, width)), rng.normal(size=outputs)
    packed = Shorts().pack(torch.from_numpy(weight), torch.from_numpy(bias))
    shorts = rng.integers(-2000, 2000, rows * width).astype(np.int16)
    scales = rng.uniform(0.5, 2, rows * 13).astype(np.float32)
    out = np.full(2 * aside, 7, np.float32)
    run = Interpreter()
    run(int16_products.products)(
        shorts.view(np.int32),
        scales,
        packed.numbers,
        packed.scales,
        packed.bias,
        rows,
        width,
        outputs,
        out,
        aside,
        line,
    )
    pairs = packed.numbers.view(np.int16).reshape(2, width // 2, 32, 2).transpose(0, 2, 1, 3).reshape(outputs, width)
    wide = (shorts.reshape(rows, 13, 32) * scales.reshape(rows, 13, 1).astype(np.float64)).reshape(rows, width)
    expected = wide @ pairs.T.astype(np.float64) * packed.scales + bias
    for panel in range(2):
        found = out[panel * aside :][: rows * line].reshape(rows, line)
        np.testing.assert_allclose(found[:, :32], expected[:, 32 * panel :][:, :32], rtol=1e-4, atol=2.0)
        assert (found[:, 32:] == 7).all()

    two = Shorts().pack(torch.from_numpy(weight[:, :64] * 0.2), torch.from_numpy(bias))
    small = rng.integers(-2000, 2000, 6 * 64).astype(np.int16)
    small_scales = rng.uniform(0.5e-3, 2e-3, 12).astype(np.float32)
    numbers, found_scales = np.zeros(6 * 64, np.int16), np.zeros(12, np.float32)
    run(int16_products.gelu_products)(
        small.view(np.int32), small_scales, two.numbers, two.scales, two.bias, 6, 64, 64, numbers, found_scales
    )
    x = (small.reshape(12, 32) * small_scales[:, None].astype(np.float64)).reshape(6, 64)
    before = x @ (weight[:, :64] * 0.2).T + bias
    gelu = before / 2 * (1 + np.vectorize(math.erf)(before / math.sqrt(2)))
    _, scales_of_gelu = blocks_of_shorts(gelu)
    np.testing.assert_allclose(found_scales, scales_of_gelu, rtol=2e-3)
    got = (numbers.reshape(12, 32) * found_scales[:, None].astype(np.float64)).reshape(6, 64)
    assert np.abs(got - gelu).max() < 2e-3


def test_gelu_is_exact_to_a_millionth_and_keeps_signs() -> None:
    x = np.concatenate([np.linspace(-7, 7, 93), [-5.2, 5.2, 0.0]]).astype(np.float32)
    out = np.zeros(96, np.float32)

    def all_of(values: Any, target: Any) -> None:
        for at in range(0, 96, 16):
            store(target, at, int16_products.gelu(load(values, at)))

    Interpreter()(all_of)(x, out)
    expected = [float(v) / 2 * (1 + math.erf(float(v) / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(out, expected, atol=4e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "dim", "lengths"), [(2, 64, [9, 1, 33]), (3, 32, [32, 8])])
def test_attention_over_panels_is_each_texts_own(heads: int, dim: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(dim)
    width, rows = heads * dim, sum(lengths) + 3
    qkv = rng.normal(size=(rows, 3 * width))
    qkv[:, width : 2 * width] += 30.0  # adds the same to all scores of a query
    aside = 32 * rows + 5
    panels = np.full(3 * width // 32 * aside, np.nan, np.float32)
    for column in range(3 * width):
        at = column // 32 * aside + column % 32
        panels[at : at + 32 * rows : 32] = qkv[:, column]
    starts = np.cumsum([0, *lengths[:-1]]) + 1  # the first row belongs to no text
    out = np.full(rows * width, 7, np.float32)
    Interpreter()(encoder_ops.attend)(panels, starts, np.array(lengths), heads, dim, np.float32(0.2), aside, out)
    found = out.reshape(rows, width)
    for start, length in zip(starts, lengths, strict=True):
        q, k, v = (
            qkv[start : start + length, part * width : (part + 1) * width].reshape(length, heads, dim)
            for part in range(3)
        )
        scores = np.einsum("qhd,khd->hqk", q, k) * 0.2
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v)
        np.testing.assert_allclose(found[start : start + length], mixed.reshape(length, width), rtol=2e-4, atol=2e-4)
    assert (found[0] == 7).all() and (found[-2:] == 7).all()


def layer_norm(x: NDArray[np.float64], gain: NDArray[np.float32], bias: NDArray[np.float32], eps: float) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * gain + bias


def test_embeddings_are_the_norm_of_word_type_and_position() -> None:
    rng = np.random.default_rng(3)
    width = 48
    words, positions = (rng.normal(size=(count, width)).astype(np.float32) for count in (9, 5))
    kind, gain, bias = rng.normal(size=(3, width)).astype(np.float32)
    ids, places = np.array([8, 0, 3]), np.array([4, 1, 0])
    x = np.full(4 * width, 7, np.float32)
    Interpreter()(encoder_ops.embed)(
        ids, places, words.reshape(-1), positions.reshape(-1), kind, gain, bias, np.float32(0.3), width, x
    )
    expected = layer_norm(words[ids].astype(np.float64) + kind + positions[places], gain, bias, 0.3)
    np.testing.assert_allclose(x[: 3 * width].reshape(3, width), expected, rtol=1e-5, atol=1e-5)
    assert (x[3 * width :] == 7).all()
    change = rng.normal(size=4 * width).astype(np.float32)
    before = x.copy()
    Interpreter()(encoder_ops.add_norm)(x, change, bias, gain, np.float32(0.01), 2, width)
    summed = (before + change).astype(np.float64).reshape(4, width)[:2]
    np.testing.assert_allclose(
        x[: 2 * width].reshape(2, width), layer_norm(summed, bias, gain, 0.01), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(x[2 * width :], before[2 * width :])


@pytest.mark.slow
def test_eight_rows_are_multiplied_with_thirty_two_columns() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=2 + 8 * 11).astype(np.float32), rng.normal(size=4 + 5 * 40).astype(np.float32)
    out = np.full(3 + 8 * 35, 7, np.float32)
    Interpreter().intrinsic(encoder_ops.multiply, a, 2, 11, b, 4, 40, 5, out, 3, 35)
    rows, columns = a[2:].reshape(8, 11)[:, :5].astype(np.float64), b[4:].reshape(5, 40)[:, :32]
    np.testing.assert_allclose(out[3:].reshape(8, 35)[:, :32], rows @ columns, rtol=1e-5, atol=1e-5)
    assert (out[3:].reshape(8, 35)[:, 32:] == 7).all() and (out[:3] == 7).all()


def test_a_softmax_takes_the_largest_away_and_leaves_zeros_behind_the_last_score() -> None:
    scores = np.full(3 + 48, 99, np.float32)
    scores[3:22] = np.linspace(300, 318, 19)
    before = scores[3:22].astype(np.float64)
    share = Interpreter()(encoder_ops._softmax)(scores, 3, 19)
    weights = np.exp(before - 318)
    np.testing.assert_allclose(scores[3:22], weights, rtol=1e-5)
    assert share == pytest.approx(1 / weights.sum(), rel=1e-5)
    assert (scores[22:35] == 0).all() and (scores[35:] == 99).all() and (scores[:3] == 99).all()
    places = [encoder_ops._place.py_func(column, 1000) for column in (0, 31, 32, 70)]
    assert places == [0, 31, 1000, 2006]
