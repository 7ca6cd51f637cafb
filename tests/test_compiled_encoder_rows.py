"""A compiled encoder's tables, the rows it gives packed texts of two types, and products of 16 bits against float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.nn.compiled_encoder import CompiledEncoder, Norm, can_compile, is_fast_here
from firsthand.nn.encoder import Encoder, Together
from firsthand.nn.encoder_arithmetic import EncoderProduct, Shorts, flat
from firsthand.nn.families.bert import BertArchitecture

A = BertArchitecture("roberta", 41, 64, 96, 2, 2, 23, 3, 2, 0.02)


def encoder(a: BertArchitecture = A) -> Encoder:
    torch.manual_seed(2)
    made = Encoder(a).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.15)
    return made


def weights(product: EncoderProduct) -> NDArray[np.float64]:
    """The weights that a product of 16 bits holds: outputs by inputs."""
    panels = product.numbers.view(np.int16).reshape(product.outputs // 32, product.inputs // 2, 32, 2)
    whole = panels.transpose(0, 2, 1, 3).reshape(product.outputs, product.inputs)
    return whole * product.scales[:, None].astype(np.float64)


def near(found: Any, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=tolerance, rtol=0)


@torch.no_grad()
def test_each_table_of_a_compiled_encoder_is_that_of_the_plain_one() -> None:
    plain, by = encoder(), Shorts()
    compiled = CompiledEncoder(plain, by)
    assert compiled.arithmetic is by and compiled.architecture is A and plain.types is not None
    assert np.array_equal(compiled.words, plain.words.weight.reshape(-1))
    assert np.array_equal(compiled.kind, plain.types.weight[0])
    both = compiled.positions.reshape(2, 23, 64)
    assert np.array_equal(both[0], plain.positions.weight)
    near(both[1] + compiled.kind, plain.positions.weight + plain.types.weight[1], 1e-6)
    assert len(compiled.layers) == 2
    for mine, layer in zip(compiled.layers, plain.layers, strict=True):
        matrices = {
            "qkv": [layer.q_proj, layer.k_proj, layer.v_proj],
            "out": [layer.o_proj],
            "up": [layer.up_proj],
            "down": [layer.down_proj],
        }
        for name, parts in matrices.items():
            product = getattr(mine, name)
            weight = torch.cat([each.weight for each in parts])
            assert (product.outputs, product.inputs) == tuple(weight.shape)
            near(weights(product), weight, 3e-5)
            assert np.array_equal(product.bias, torch.cat([each.bias for each in parts]))
    norms = [(compiled.norm, plain.norm)]
    for mine, layer in zip(compiled.layers, plain.layers, strict=True):
        norms += [(mine.attention_norm, layer.attention_norm), (mine.mlp_norm, layer.mlp_norm)]
    for norm, of in norms:
        assert isinstance(norm, Norm) and norm.eps == np.float32(0.02) and type(norm.eps) is np.float32
        assert np.array_equal(norm.gain, of.weight) and np.array_equal(norm.bias, of.bias)
    three = encoder(BertArchitecture("bert", 41, 64, 96, 1, 2, 23, 0, 3, 0.02))  # the third type is not compiled
    assert CompiledEncoder(three, by).positions.shape == (2 * 23 * 64,)
    one = CompiledEncoder(encoder(BertArchitecture("bert", 41, 64, 96, 1, 2, 23, 0, 1, 0.02)), by)
    none = CompiledEncoder(encoder(BertArchitecture("distilbert", 41, 64, 96, 1, 2, 23, 0, 0, 0.02)), by)
    assert one.positions.shape == none.positions.shape == (23 * 64,)
    assert one.kind.any() and none.kind.tolist() == [0.0] * 64 and none.kind.dtype == np.float32
    with pytest.raises(AssertionError):
        CompiledEncoder(encoder(BertArchitecture("mpnet", 41, 64, 96, 1, 2, 23, 2, 0, 0.02, num_buckets=8)), by)


@torch.no_grad()
def test_packed_texts_of_two_types_have_the_states_of_the_plain_encoder() -> None:
    plain = encoder()
    compiled = CompiledEncoder(plain, Shorts())
    lengths = [1, 20, 2, 6]  # the second has a row of the table for each token, and no more
    ids = np.array([(7 * at + 3) % 41 for at in range(29)])
    ids[[4, 9]] = 0, 40
    types = np.array([at % 3 == 1 for at in range(29)], dtype=np.int64)
    positions = torch.cat([torch.arange(length) for length in lengths])
    whole = plain(torch.from_numpy(ids), positions, Together(lengths), torch.from_numpy(types))
    found = compiled.forward(ids, lengths, types)
    assert found.shape == (29, 64) and found.dtype == np.float32
    near(found, whole, 3e-3)
    untyped = plain(torch.from_numpy(ids), positions, Together(lengths))
    near(compiled.forward(ids, lengths), untyped, 3e-3)
    assert np.array_equal(compiled.forward(ids, lengths), compiled.forward(ids, lengths, np.zeros_like(types)))
    assert float((untyped - whole).abs().max()) > 0.1
    assert types.sum() == 10 and ids.max() == 40  # what came is as it was
    alone = compiled.forward(ids[21:23], [2], types[21:23])
    assert np.array_equal(alone, found[21:23]) and alone.shape == (2, 64)
    of_one = CompiledEncoder(encoder(BertArchitecture("bert", 41, 64, 96, 1, 2, 23, 0, 1, 0.02)), Shorts())
    assert of_one.forward(ids[:23], [23], np.zeros(23, np.int64)).shape == (23, 64)
    wrong: tuple[tuple[CompiledEncoder, Any, list[int], Any], ...] = (
        (compiled, ids, [1, 20, 2, 5], None),
        (compiled, ids[:3], [3, 0], None),
        (compiled, ids[:21], [21], None),
        (compiled, np.array([-1]), [1], None),
        (compiled, np.array([41]), [1], None),
        (compiled, ids[:2], [2], types[:3]),
        (compiled, ids[:2], [2], np.array([0, 2])),
        (compiled, ids[:2], [2], np.array([-1, 0])),
        (of_one, ids[:2], [2], np.array([0, 1])),
    )
    for model, tokens, counts, kinds in wrong:
        with pytest.raises(AssertionError):
            model.forward(tokens, counts, kinds)


def test_rows_of_16_bits_are_multiplied_attended_to_and_passed_through_an_mlp() -> None:
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    by, rows, width, inner = Shorts(), 12, 64, 96
    assert (by.name, by.rows) == ("int16", 6)
    x, square, bias = drawn(rows, width), drawn(width, width) / 8, drawn(width)
    held = by.empty(rows, width)
    assert (held.numbers.shape, held.scales.shape) == ((rows * width,), (rows * 2,))
    assert (held.numbers.dtype, held.scales.dtype) == (np.int16, np.float32) and not held.numbers.any()
    by.round(flat(x), rows, width, held)
    kept = held.numbers.reshape(rows, 2, 32) * held.scales.reshape(rows, 2, 1).astype(np.float64)
    near(kept.reshape(rows, width), x, 2e-4)
    out = np.full(rows * width, np.nan, np.float32)
    product = by.pack(square, bias)
    near(product.bias, bias, 1e-6)
    by.multiply(held, product, rows, out)
    near(out.reshape(rows, width), x @ square.T + bias, 2e-3)

    qkv, qkv_bias = drawn(3 * width, width) / 8, drawn(3 * width)
    starts, counts = np.array([0, 5, 6]), np.array([5, 1, 4])  # the last two rows belong to no text
    mixed = by.empty(rows, width)
    by.attend(held, by.pack(qkv, qkv_bias), starts, counts, 2, rows, mixed)
    q, k, v = (x @ qkv.T + qkv_bias).reshape(rows, 3, 2, 32).unbind(1)
    found = (mixed.numbers.reshape(rows, 2, 32) * mixed.scales.reshape(rows, 2, 1)).reshape(rows, width)
    for start, count in zip(starts, counts, strict=True):
        own = slice(start, start + count)
        shares = (torch.einsum("qhd,khd->hqk", q[own], k[own]) * 32**-0.5).softmax(-1)
        near(found[own], torch.einsum("hqk,khd->qhd", shares, v[own]).reshape(count, width), 5e-3)
    assert not found[10:].any()

    up, up_bias, down, down_bias = drawn(inner, width) / 8, drawn(inner), drawn(width, inner) / 8, drawn(width)
    result = np.full(rows * width, np.nan, np.float32)
    by.mlp(held, by.pack(up, up_bias), by.pack(down, down_bias), rows, result)
    expected = torch.nn.functional.gelu(x @ up.T + up_bias) @ down.T + down_bias
    near(result.reshape(rows, width), expected, 3e-3)
    # 32 equal weights may not be longer than 46,336 together, and one alone not larger than 32,767
    level, alone = torch.full((32, 32), -2.0), torch.zeros(32, 32)
    alone[:, 5] = 3.0
    for values, scale in ((level, 2 * 32**0.5 / 46336), (alone, 3 / 32767)):
        np.testing.assert_allclose(by.pack(values, torch.zeros(32)).scales, scale, rtol=1e-6)
    assert set(by.pack(level, torch.zeros(32)).numbers.view(np.int16).tolist()) == {-8191}
    zeros = by.pack(torch.zeros(32, 32), torch.ones(32))  # no length to divide by
    assert not zeros.numbers.any() and zeros.bias.tolist() == [1.0] * 32 and np.isfinite(zeros.scales).all()


def test_shapes_of_multiples_of_32_with_gelu_and_no_buckets_are_compiled_where_the_machine_has_the_instructions() -> (
    None
):
    shape: dict[str, Any] = dict(
        family="bert", vocab_size=9, hidden_size=64, intermediate_size=96, num_layers=1, num_heads=2, max_position=8,
        first_position=0, num_types=2, norm_eps=1e-12,
    )  # fmt: skip
    assert can_compile(BertArchitecture(**shape)) and can_compile(BertArchitecture(**{**shape, "num_heads": 1}))
    for changes in (
        {"hidden_size": 80, "num_heads": 1}, {"intermediate_size": 80}, {"num_heads": 4}, {"activation": "relu"},
        {"num_buckets": 8},
    ):  # fmt: skip
        assert not can_compile(BertArchitecture(**{**shape, **changes})), changes
    flags = Path("/proc/cpuinfo")
    if flags.exists():
        assert is_fast_here() is ("avx512_vnni" in flags.read_text())
