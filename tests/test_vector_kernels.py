"""Vectors of 16 floats do in each lane what they say, with NaN, negative bytes and halves of every kind."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
from numba import njit

from firsthand.kernels.vectors import (
    ROUND,
    absolute,
    add,
    divide,
    exp,
    fma,
    larger,
    largest,
    load,
    mul,
    splat,
    store,
    sub,
    times_power_of_two,
    total,
    where_between,
    where_less,
)
from interpreted_kernels import Interpreter

NAN = float("nan")


@njit
def each_operation(numbers: Any, halves: Any, whole: Any, out: Any, half_out: Any, byte_out: Any, sums: Any) -> None:
    a, b, c = load(numbers, 1), load(numbers, 17), load(numbers, 33)
    h, w = load(halves, 3), load(whole, 5)
    store(out, 0, fma(a, b, c))
    store(out, 16, add(a, b))
    store(out, 32, sub(a, b))
    store(out, 48, mul(a, b))
    store(out, 64, divide(a, b))
    store(out, 80, larger(a, b))
    store(out, 96, where_less(a, b, c, h))
    store(out, 112, absolute(a))
    store(out, 128, where_between(3, 11, a, b))
    store(out, 144, where_between(-5, 40, a, b))
    store(out, 160, where_between(7, 7, a, b))
    store(out, 176, h)
    store(out, 192, w)
    store(out, 208, splat(numbers[2]))
    store(out, 224, exp(sub(load(numbers, 49), splat(np.float32(0)))))
    store(out, 240, times_power_of_two(load(numbers, 65), load(numbers, 81)))
    store(out, 256, sub(add(a, splat(ROUND)), splat(ROUND)))
    store(out, 272, divide(mul(a, b), b))
    store(out, 288, sub(a, a))
    store(half_out, 2, c)
    store(byte_out, 1, w)
    store(byte_out, 20, load(numbers, 97))
    sums[0], sums[1], sums[2], sums[3] = total(b), largest(b), total(c), largest(c)


@pytest.mark.slow
def test_every_operation_is_numpys_lane_by_lane() -> None:
    rng = np.random.default_rng(0)
    numbers = np.zeros(114, dtype=np.float32)
    numbers[1:49] = rng.normal(size=48)
    a, b, c, powers, factors, exponents, strange = (numbers[at : at + 16] for at in range(1, 113, 16))
    a[[2, 3, 4]], b[[2, 3, 5]] = [NAN, 1.5, 0.0], [1.0, NAN, -0.0]
    b[2:4] = [1.0, NAN]
    a[5], a[6], b[6] = 0.0, 2.25, 2.25
    c[[0, 15]] = [1e-7, 65519.0]
    powers[:] = [0, -1e-3, -0.34, -0.35, -1, -2.5, -10, -20, -50, -80, -86.9, -87, -88, -1e9, -np.inf, NAN]
    factors[:] = rng.uniform(-2, 2, 16)
    exponents[:] = ROUND + np.arange(-8, 8).astype(np.float32)
    strange[:] = [NAN, 127.4, 127.5, 1e9, -128.5, -129, -1e9, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, np.inf, -np.inf, 3]
    halves = np.arange(40, dtype=np.float32) * -0.37 + 4
    whole = np.arange(-24, 16).astype(np.int8) * 5
    whole[[5, 6, 20]] = [-128, 127, -1]
    out, sums = np.full(305, 7, dtype=np.float32), np.zeros(4, dtype=np.float32)
    half_out, byte_out = np.zeros(20, dtype=np.float16), np.zeros(40, dtype=np.int8)
    half_bits = halves.astype(np.float16).view(np.int16)
    each_operation(numbers, half_bits, whole, out, half_out.view(np.int16), byte_out, sums)

    h, w = halves.astype(np.float16).astype(np.float32)[3:19], whole.astype(np.float32)[5:21]
    lane = np.arange(16)
    with np.errstate(all="ignore"):
        expected = [
            (a.astype(np.float64) * b + c).astype(np.float32),
            a + b,
            a - b,
            a * b,
            a / b,
            np.where(np.isnan(b), a, np.maximum(a, b)),
            np.where(a < b, c, h),
            np.abs(a),
            np.where((lane >= 3) & (lane < 11), a, b),
            a,
            b,
            h,
            w,
            np.full(16, numbers[2]),
        ]
    for number, each in enumerate(expected):
        np.testing.assert_array_equal(out[16 * number : 16 * number + 16], each, err_msg=str(number))
    exponentials = np.exp(np.maximum(powers.astype(np.float64), -87))
    assert np.isnan(out[224 + 15])
    np.testing.assert_allclose(out[224:239], exponentials[:15], rtol=3 * 2.0**-23)
    assert out[304] == 7
    np.testing.assert_array_equal(out[240:256], factors * np.float32(2.0) ** np.arange(-8, 8).astype(np.float32))
    with np.errstate(all="ignore"):  # each operation is rounded on its own, and none is left out
        unfolded = [np.rint(a), a * b / b, a - a]
    for number, each in enumerate(unfolded, 16):
        np.testing.assert_array_equal(out[16 * number : 16 * number + 16], each, err_msg=str(number))
    assert (unfolded[1] != a).sum() > 2, "not all come back"
    np.testing.assert_array_equal(half_out[2:18], c.astype(np.float16))
    assert half_out[[0, 1, 18, 19]].tolist() == [0] * 4
    np.testing.assert_array_equal(byte_out[1:17], whole[5:21])
    assert byte_out[20:36].tolist() == [0, 127, 127, 127, -128, -128, -128, 0, 2, 2, 0, -2, -2, 127, -128, 3]
    assert byte_out[[0, 17, 18, 19, 36]].tolist() == [0] * 5
    lanes = c.copy()
    while len(lanes) > 1:  # by halves, in this order
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    assert (sums[2], sums[3]) == (lanes[0], c.max())
    assert np.isnan(sums[0])


def test_numbers_of_each_kind_are_loaded_as_floats_from_where_they_begin() -> None:
    run = Interpreter()
    values = np.arange(-20, 12)
    for array, step in (
        (values.astype(np.float32) / 8, 8), ((values / 8).astype(np.float16).view(np.int16), 8), (values.astype(np.int8), 1),
    ):  # fmt: skip
        for at in (0, 3, 16):
            assert np.asarray(run.intrinsic(load, array, at)).tolist() == (values[at : at + 16] / step).tolist()
