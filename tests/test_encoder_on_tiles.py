"""The arithmetic of matrix tiles (AMX) as the compiled encoder calls it; Python executes the kernels' instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.errors import ConfigError
from firsthand.kernels.products import amx_products
from firsthand.kernels.step import amx_attention
from firsthand.nn.compiled_encoder import CompiledEncoder, arithmetic_here
from firsthand.nn.encoder import Encoder, Together
from firsthand.nn.encoder_arithmetic import EncoderRows, Shorts, Tiles, flat
from firsthand.nn.families.bert import BertArchitecture
from interpreted_ir import bfloat
from interpreted_kernels import Interpreter


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with tiles, whose kernels are interpreted."""
    monkeypatch.setattr(amx_products, "has_tiles", lambda: True)
    for module, name in ((amx_products, "round_rows"), (amx_products, "products"), (amx_products, "mlp"),
                         (amx_attention, "attend")):  # fmt: skip
        monkeypatch.setattr(module, name, Interpreter()(getattr(module, name)))


def test_the_arithmetic_of_this_machine_has_one_part_for_bfloat16_and_two_for_float32(
    tiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for made, parts, name in (
        (Tiles(), 2, "bfloat16 pairs"), (Tiles(1), 1, "bfloat16"), (arithmetic_here(), 2, "bfloat16 pairs"),
        (arithmetic_here("float32"), 2, "bfloat16 pairs"), (arithmetic_here("bfloat16"), 1, "bfloat16"),
    ):  # fmt: skip
        assert isinstance(made, Tiles) and (made.parts, made.name, made.rows) == (parts, name, 16)
    monkeypatch.setattr(amx_products, "has_tiles", lambda: False)
    assert isinstance(arithmetic_here(), Shorts) and isinstance(arithmetic_here("bfloat16"), Shorts)
    with pytest.raises(ConfigError) as told:
        Tiles(1)
    assert str(told.value) == "this machine has no matrix tiles (AMX), or they are not allowed: use Shorts"


@pytest.mark.parametrize("parts", [1, 2])
def test_rows_on_tiles_are_multiplied_attended_to_and_passed_through_an_mlp(tiles: None, parts: Any) -> None:
    rng = np.random.default_rng(parts)
    by, rows, width, inner = Tiles(parts), 16, 64, 96

    def drawn(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape) / 4)

    def held(values: torch.Tensor) -> EncoderRows:
        room = by.empty(rows, width)
        assert (len(room.numbers), len(room.scales), room.numbers.any()) == (parts * rows * width, 0, False)
        by.round(flat(values), rows, width, room)
        return room

    def read(room: EncoderRows) -> NDArray[np.float64]:
        """The rows of tiles of 16 rows and 32 numbers, the low parts behind the high ones."""
        return bfloat(room.numbers).astype(np.float64).reshape(2, parts, 16, 32).sum(1).swapaxes(0, 1).reshape(16, 64)

    def near(found: Any, expected: Any, fine: float, coarse: float) -> None:
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=fine if parts == 2 else coarse, rtol=0)

    x = drawn(rows, width) * 4
    packed = held(x)
    near(read(packed), x, 1e-4, 2e-2)
    weight, bias = drawn(32, width), drawn(32)
    for arithmetic, count in ((by, parts * 32 * width), (Shorts(), None)):
        for product, sizes in (
            (arithmetic.pack(weight, bias), (width, 32)),
            (arithmetic.pack(drawn(inner, width), drawn(inner)), (width, inner)),
            (arithmetic.pack(drawn(width, inner), drawn(width)), (inner, width)),
        ):
            assert (product.inputs, product.outputs, len(product.bias)) == (*sizes, sizes[1])
        packed_first = arithmetic.pack(weight, bias)
        assert count is None or (len(packed_first.numbers), len(packed_first.scales)) == (count, 0)
        np.testing.assert_array_equal(packed_first.bias, bias.float())
    out = np.full(rows * 32, np.nan, np.float32)
    by.multiply(packed, by.pack(weight, bias), rows, out)
    near(out.reshape(rows, 32), x @ weight.T + bias, 1e-4, 5e-2)

    qkv, of_qkv = drawn(3 * width, width), drawn(3 * width)
    starts, counts, mixed = np.array([0, 3]), np.array([3, 9]), by.empty(rows, width)
    by.attend(packed, by.pack(qkv, of_qkv), starts, counts, 2, rows, mixed)
    q, k, v = (x @ qkv.T + of_qkv).reshape(rows, 3, 2, 32).unbind(1)
    for start, count in zip(starts, counts, strict=True):
        own = slice(start, start + count)
        shares = (torch.einsum("qhd,khd->hqk", q[own], k[own]) * 32**-0.5).softmax(-1)
        expected = torch.einsum("hqk,khd->qhd", shares, v[own]).reshape(count, width)
        near(read(mixed)[own], expected, 1e-3, 0.2)

    up, of_up, down, of_down = drawn(inner, width), drawn(inner), drawn(width, inner), drawn(width)
    result = np.full(rows * width, np.nan, np.float32)
    by.mlp(packed, by.pack(up, of_up), by.pack(down, of_down), rows, result)
    near(result.reshape(rows, width), torch.nn.functional.gelu(x @ up.T + of_up) @ down.T + of_down, 1e-3, 0.2)


@torch.no_grad()
def test_an_encoder_on_tiles_has_the_states_of_the_plain_one(tiles: None) -> None:
    torch.manual_seed(3)
    plain = Encoder(BertArchitecture("bert", 41, 32, 64, 1, 1, 12, 0, 2, 1e-6)).eval()
    for name, parameter in plain.named_parameters():
        parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.15)
    lengths, ids = [4, 1, 12], np.array([(7 * at + 3) % 41 for at in range(17)])  # a row more than a tile has
    positions = torch.cat([torch.arange(length) for length in lengths])
    whole = plain(torch.from_numpy(ids), positions, Together(lengths))
    compiled = CompiledEncoder(plain)
    assert compiled.arithmetic.name == "bfloat16 pairs"
    found = compiled.forward(ids, lengths)
    assert found.shape == (17, 32)
    np.testing.assert_allclose(found, whole, atol=1e-3)
