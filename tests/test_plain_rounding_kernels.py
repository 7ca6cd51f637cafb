"""Rounding to Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0: the kernels' Python bodies against the blocks as ggml defines them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.products.block_rounding import PLAIN
from firsthand.kernels.products.plain_rounding import _inverse, round_between, round_bytes, round_centred
from interpreted_kernels import Interpreter


def blocks() -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(9, 32)).astype(np.float32)
    x[1] = 0
    x[2, :] = np.linspace(-2, 2, 32)  # both ends are of one size: the first counts
    x[3] = -x[2]
    x[4] = np.float32(1e-42)  # below what has an inverse
    x[5] = np.arange(32) / 2 - 3  # halves
    x[6] = -np.abs(x[6])
    x[7] = 0.375
    x[8, 20] = 9
    return x


@pytest.mark.parametrize("kind", PLAIN)
def test_codes_scales_and_minimums_are_those_of_the_gguf_package(kind: str) -> None:
    x = blocks()
    expected = gguf.quants.quantize(x, gguf.GGMLQuantizationType[kind]).view(np.uint8).reshape(len(x), -1)
    out = np.full(expected.shape, 0xAB, np.uint8)
    scales, minimums = np.full(len(x), 7, np.float32), np.full(len(x), 7, np.float32)
    run, flat = Interpreter(), out.reshape(-1)
    head = 4 if kind.endswith("_1") else 2
    if head == 4:
        run(round_between)(x.reshape(-1), {"Q4_1": 15, "Q5_1": 31}[kind], scales, minimums, head, flat)
        assert not np.signbit(minimums[[1, 4]]).any()
        np.testing.assert_array_equal(minimums.astype(np.float16).view(np.uint8).reshape(-1, 2), expected[:, 2:4])
    elif kind == "Q8_0":
        run(round_bytes)(x.reshape(-1), scales, head, flat)
    else:
        run(round_centred)(x.reshape(-1), {"Q4_0": 8, "Q5_0": 16}[kind], scales, head, flat)
    if kind in ("Q4_0", "Q5_0"):  # where the package divides by a number without an inverse, we write zeros
        expected[4, head:] = [0x88] * 16 if kind == "Q4_0" else [255] * 4 + [0] * 16
    np.testing.assert_array_equal(out[:, head:], expected[:, head:])
    assert (out[:, :head] == 0xAB).all()
    np.testing.assert_array_equal(scales.astype(np.float16).view(np.uint8).reshape(-1, 2), expected[:, :2])


def test_a_scale_below_the_normal_numbers_has_no_inverse() -> None:
    least = np.float32(2.0**-126)
    below = np.nextafter(least, np.float32(0), dtype=np.float32)
    found = [float(_inverse.py_func(each)) for each in (least, -least, below, -below, np.float32(0), np.float32(-4))]
    assert found == [2.0**126, -(2.0**126), 0, 0, 0, -0.25]
