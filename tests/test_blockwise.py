"""Matrices in blocks: ggml's layouts read exactly, and products that do not depend on the batch or the instruction set."""

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from firsthand.errors import ConfigError
from firsthand.kernels.products.blockwise import GGUF_TYPES, Blockwise, from_gguf, from_values
from firsthand.nn.quant import BlockLinear, pack
from thorough import part

products = pytest.importorskip("firsthand.kernels.products.blockwise_products")
from firsthand.kernels.jit import kernel, named  # noqa: E402
from firsthand.kernels.products import dot_instructions  # noqa: E402
from firsthand.kernels.products.rounded_rows import RECORD, round_row  # noqa: E402
from firsthand.kernels.products.tiled_weights import KINDS, tile, untile  # noqa: E402


def random_bytes(kind: str, outputs: int, inputs: int, seed: int) -> NDArray[np.uint8]:
    """A tensor of that type with sane scales."""
    rng = np.random.default_rng(seed)
    bytes_each, _ = GGUF_TYPES[kind]
    raw = rng.integers(0, 256, (outputs * inputs // (256 if kind.endswith("_K") else 32), bytes_each), dtype=np.uint8)
    heads = slice(208, 210) if kind == "Q6_K" else slice(0, 4 if kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else 2)
    scales = rng.normal(size=(len(raw), (heads.stop - heads.start) // 2)) * 0.05
    raw[:, heads] = scales.astype(np.float16).view(np.uint8)
    return raw.reshape(outputs, -1)


def matrix(kind: str, outputs: int = 37, inputs: int = 512, seed: int = 0) -> Blockwise:
    return from_gguf(kind, random_bytes(kind, outputs, inputs, seed), (outputs, inputs))


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_every_type_has_the_values_that_ggml_gives_it(kind: str) -> None:
    raw = random_bytes(kind, 5, 768, seed=1)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(from_gguf(kind, raw, (5, 768)).values(), expected)


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_tiles_hold_the_same_matrix(kind: str) -> None:
    found = untile(tile(matrix(kind)))
    np.testing.assert_array_equal(found.values(), matrix(kind).values())
    assert found.bits == matrix(kind).bits


def rounded(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the product makes of its inputs: whole numbers up to 127 times a scale for each 32."""
    blocks = rows.reshape(len(rows), -1, 32).astype(np.float64)
    scales = np.abs(blocks).max(-1, keepdims=True) / 127
    return (np.rint(blocks / np.where(scales > 0, scales, 1)) * scales).reshape(rows.shape)


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_products_are_those_of_rounded_inputs(kind: str) -> None:
    rows = np.random.default_rng(2).normal(size=(11, 512)).astype(np.float32)
    found = products.product(rows, tile(matrix(kind)))
    expected = rounded(rows) @ matrix(kind).values().astype(np.float64).T
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_a_row_has_the_same_bits_in_any_company(kind: str) -> None:
    rows = np.random.default_rng(3).normal(size=(150, 512)).astype(np.float32)
    tiles = tile(matrix(kind))
    together = products.product(rows, tiles)
    for count in (1, 2, 3, 4, 5, 6, 7, 8, 13, 23, 65, 127, 128):
        np.testing.assert_array_equal(products.product(rows[-count:], tiles), together[-count:])


COMPILED = [(how, place) for how in ("vnni256", "avx2", "plain") for place in range(len(KINDS))]
"""Each compiles for some seconds."""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "place"), part(COMPILED, 5))
def test_every_instruction_set_gives_the_same_bits(how: str, place: int) -> None:
    needed = {"vnni256": "avx512vnni", "avx2": "avx2"}  # AVX-VNNI's instruction also exists under AVX-512's name
    features = dot_instructions.binding.get_host_cpu_features()
    if how in needed and not (features.get(needed[how]) or (how == "vnni256" and features.get("avxvnni"))):
        pytest.skip(f"this processor has no {how}")
    kind = next(k for k in GGUF_TYPES if tile(matrix(k)).kind == place)
    tiles = tile(matrix(kind))
    rows = np.random.default_rng(4).normal(size=(7, 512)).astype(np.float32)
    other = products._make_multiply(KINDS[place], how)
    records = np.empty(7 * 16 * RECORD, np.uint8)
    out = np.empty(7 * 48, np.float32)

    @named(f"all_rows_{place}_{how}")
    def all_rows(flat, records, address, count, tile_bytes, inputs, out):  # type: ignore[no-untyped-def]
        for row in range(7):
            round_row(flat, row * 512, 512, records, row, 7)
        other(address, count, tile_bytes, inputs, 0, 2, 7, records, out, 0, 48)

    address, _, count, tile_bytes, inputs = tiles.entry()
    kernel(all_rows)(rows.reshape(-1), records, address, count, tile_bytes, inputs, out)
    np.testing.assert_array_equal(out.reshape(7, 48)[:, :37], products.product(rows, tiles))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1e-4, 1.0, 1e4, 1e30]))
def test_rounding_to_eight_bits_is_off_by_half_a_step_at_most(seed: int, size: float) -> None:
    values = (np.random.default_rng(seed).normal(size=(3, 64)) * size).astype(np.float32)
    made = from_values(values)
    step = np.repeat(made.scales, 32, axis=1)
    top = np.abs(values).reshape(3, 2, 32).max(-1).repeat(32).reshape(3, 64)
    assert np.isfinite(made.values()).all() or size > 1e6  # float16 scales end at 65504
    small = (top > 1e-2) & (top < 1e6)
    assert (np.abs(made.values() - values)[small] <= 0.51 * step[small] + 1e-3 * top[small]).all()


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_spoils_its_own_row_and_no_other(strange: float) -> None:
    rows = np.random.default_rng(5).normal(size=(9, 512)).astype(np.float32)
    expected = products.product(rows, tile(matrix("Q4_1")))
    rows[4, 100] = strange
    found = products.product(rows, tile(matrix("Q4_1")))
    assert np.isnan(found[4]).all()
    np.testing.assert_array_equal(np.delete(found, 4, 0), np.delete(expected, 4, 0))


def test_a_linear_packed_to_eight_bits_stays_close_and_takes_new_weights() -> None:
    torch.manual_seed(0)
    linear, other = torch.nn.Linear(64, 40), torch.nn.Linear(64, 40)
    x = torch.randn(5, 3, 64)
    expected = linear(x)
    model = pack(torch.nn.Sequential(linear), "int8")
    assert isinstance(model[0], BlockLinear)  # type: ignore[index]
    assert (model(x) - expected).abs().max() < 0.03
    model.load_state_dict({f"0.{name}": value for name, value in other.state_dict().items()})
    assert (model(x) - other(x)).abs().max() < 0.03
    with pytest.raises(RuntimeError, match=r"0\.bias"):
        model.load_state_dict({"0.weight": other.weight.detach()})


def test_widths_that_are_no_multiple_of_32_are_refused() -> None:
    with pytest.raises(ConfigError, match="33 inputs"):
        pack(torch.nn.Sequential(torch.nn.Linear(33, 4)), "int8")
