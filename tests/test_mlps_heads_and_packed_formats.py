"""MLPs value by value, the head of a cross-encoder, the dtype of products, and the formats of packed matrices."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from firsthand.errors import ModelFileError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Activation, Architecture, Rope
from firsthand.nn.blocks.mlp import MLP, PlainMLP, activate, clamped_silu, mlp_of
from firsthand.nn.decoder import _for_products
from firsthand.nn.encoder import Together
from firsthand.nn.families.bert import BertArchitecture
from firsthand.nn.packed_format import PackedFormat, packed_format, packed_shape
from firsthand.nn.packed_linears import unpack
from firsthand.nn.pair_classifier import PairClassifier

A = Architecture(
    "llama", 20, 4, 6, 1, 2, num_kv_heads=1, head_dim=2, max_position=64, norm_eps=1e-5, windows=(None,), ropes=(Rope(),),
    tie_embeddings=False, mlp_bias=True, activation_limit=1.5,
)  # fmt: skip


def filled(module: Any) -> Any:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return module


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_hand(x: float, activation: Activation) -> float:
    """The activation of one value."""
    tanh = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return {
        "silu": x * sigmoid(x), "relu": max(x, 0.0), "gelu": x / 2 * (1 + math.erf(x / math.sqrt(2))),
        "gelu_tanh": x / 2 * (1 + tanh),
    }[activation]  # fmt: skip


KINDS: tuple[Activation, ...] = ("silu", "relu", "gelu", "gelu_tanh")


@torch.no_grad()
def test_each_activation_is_its_formula_with_a_gate_and_without() -> None:
    values = [-3.0, -0.5, 0.0, 1.0, 2.5]
    for kind in KINDS:
        assert activate(torch.tensor(values), kind).tolist() == pytest.approx(
            [by_hand(x, kind) for x in values], abs=1e-6
        )
    rows = torch.tensor([[0.0, math.log(3.0)], [2.0, 2.0]])
    assert activate(rows, "solu").flatten().tolist() == pytest.approx([0.0, 0.75 * math.log(3.0), 1.0, 1.0])
    with pytest.raises(AssertionError, match="it has two inputs"):
        activate(rows, "clamped_silu")
    gates, ups = torch.tensor([-9.0, 1.0, 9.0, 9.0]), torch.tensor([-9.0, 0.5, 9.0, -9.0])
    top = 2 * sigmoid(1.702 * 2)
    assert clamped_silu(gates, ups, 2.0).tolist() == pytest.approx(
        [-1 * -9 * sigmoid(-1.702 * 9), 1.5 * sigmoid(1.702), 3 * top, -1 * top], abs=1e-6
    )
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    for kind in (*KINDS, "solu", "clamped_silu"):
        gated: MLP = filled(MLP(replace(A, activation=kind)))  # type: ignore[arg-type]
        gate, up = gated.gate_proj(x), gated.up_proj(x)
        limited = clamped_silu(gate, up, 1.5) if kind == "clamped_silu" else activate(gate, kind) * up  # type: ignore[arg-type]
        seen: list[tuple[str, Tensor]] = []

        def double(site: str, act: Tensor, seen: list[tuple[str, Tensor]] = seen) -> Tensor:
            seen.append((site, act))
            return 2 * act

        assert torch.allclose(gated(x), gated.down_proj(limited), atol=1e-5)
        assert torch.allclose(gated(x, double), gated.down_proj(2 * limited), atol=1e-5)
        assert [site for site, _ in seen] == ["act"] and torch.allclose(seen[0][1], limited, atol=1e-6)
        if kind == "clamped_silu":
            continue
        plain: PlainMLP = filled(PlainMLP(replace(A, activation=kind)))  # type: ignore[arg-type]
        act = activate(plain.up_proj(x), kind)  # type: ignore[arg-type]
        assert torch.allclose(plain(x), plain.down_proj(act), atol=1e-5)
        assert torch.allclose(plain(x, double), plain.down_proj(2 * act), atol=1e-5)
    assert type(mlp_of(A)) is MLP and type(mlp_of(replace(A, is_gated=False))) is PlainMLP
    shapes = {name: tuple(each.shape) for name, each in mlp_of(A).named_parameters()}
    assert shapes == {
        "gate_proj.weight": (6, 4), "gate_proj.bias": (6,), "up_proj.weight": (6, 4), "up_proj.bias": (6,),
        "down_proj.weight": (4, 6), "down_proj.bias": (4,),
    }  # fmt: skip
    bare = mlp_of(replace(A, is_gated=False, mlp_bias=False))
    assert [name for name, _ in bare.named_parameters()] == ["up_proj.weight", "down_proj.weight"]


@torch.no_grad()
def test_a_pair_has_the_logit_of_its_first_token() -> None:
    a = BertArchitecture("bert", 20, 8, 12, 1, 2, 18, 0, 2, 1e-5)
    model: PairClassifier = filled(PairClassifier(a))
    assert (model.architecture, model.dense.weight.shape, model.out.weight.shape) == (a, (8, 8), (1, 8))
    first = torch.randn(3, 8, generator=torch.Generator().manual_seed(3))
    expected = torch.tanh(first @ model.dense.weight.T + model.dense.bias) @ model.out.weight[0] + model.out.bias[0]
    assert torch.allclose(model.logits(first), expected, atol=1e-5) and model.logits(first).shape == (3,)
    ids, places = torch.tensor([1, 7, 9, 1, 4]), torch.tensor([0, 1, 2, 0, 1])
    types, starts, attend = torch.tensor([0, 0, 1, 0, 1]), torch.tensor([0, 3]), Together([3, 2])
    states = model.encoder(ids, places, attend, types)
    found = model(ids, places, attend, types, starts)
    assert torch.allclose(found, model.logits(states[[0, 3]]), atol=1e-5)
    assert torch.allclose(model(ids, places, attend, types, starts.flip(0)), found.flip(0), atol=1e-5)


def test_inputs_of_products_take_the_dtype_of_autocast_where_it_is_on() -> None:
    x = torch.ones(2, 3)
    assert _for_products(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        assert _for_products(x).dtype == torch.bfloat16
        meta = nn.Linear(3, 2, device="meta").weight
        assert _for_products(meta) is meta
        with torch.autocast("cpu", torch.float16):
            assert _for_products(x).dtype == torch.float16
        with torch.autocast("cpu", enabled=False):
            assert _for_products(x) is x
    assert _for_products(x) is x


def test_a_packed_format_has_its_bits_its_group_and_the_offset_of_its_first_version() -> None:
    def read(**stated: Any) -> PackedFormat | None:
        return packed_format(Fields({"quantization_config": stated}, "c"))

    gptq, awq = {"quant_method": "gptq", "bits": 4}, {"quant_method": "awq", "bits": 4}
    assert packed_format(Fields({"quantization_config": None}, "c")) is None
    for stated, found in (
        (gptq, PackedFormat("gptq", 4, 128, 1)), (gptq | {"bits": 2}, PackedFormat("gptq", 2, 128, 1)),
        (gptq | {"bits": 8, "group_size": 1}, PackedFormat("gptq", 8, 1, 1)),
        (gptq | {"group_size": (1 << 20) - 1}, PackedFormat("gptq", 4, (1 << 20) - 1, 1)),
        (gptq | {"group_size": -1, "checkpoint_format": None}, PackedFormat("gptq", 4, -1, 1)),
        (gptq | {"checkpoint_format": "gptq_v2", "version": "gemv"}, PackedFormat("gptq", 4, 128, 0)),
        (awq, PackedFormat("awq", 4, 128, 0)), (awq | {"version": "Gemm"}, PackedFormat("awq", 4, 128, 0)),
        (awq | {"checkpoint_format": "GEMM", "version": None}, PackedFormat("awq", 4, 128, 0)),
        (gptq | {"format": "gptq_v2"}, PackedFormat("gptq", 4, 128, 0)),
        (gptq | {"checkpoint_format": "gptq", "format": "gptq_v2"}, PackedFormat("gptq", 4, 128, 1)),
        (awq | {"format": "gemm", "backend": "autoawq"}, PackedFormat("awq", 4, 128, 0)),
    ):  # fmt: skip
        assert read(**stated) == found
    size = "c: quantization_config: group_size is '{}': expected -1 or a whole number above 0"
    which = "gptq or awq; take the unquantised model or a GGUF file"
    for stated, said in (
        ({"quant_method": "GPTQ", "bits": 4}, f"c: quantization_config is 'GPTQ': expected {which}"),
        ({"bits": 4}, f"c: quantization_config is '': expected {which}"),
        ({"quant_method": "gptq"}, "c: quantization_config has no bits: expected a whole number from 0 to 2**31"),
        (gptq | {"bits": 3}, "c: quantization_config: bits is '3': expected 2, 4 or 8 for gptq, 4 for awq"),
        (gptq | {"bits": 16}, "c: quantization_config: bits is '16': expected 2, 4 or 8 for gptq, 4 for awq"),
        (awq | {"bits": 2}, "c: quantization_config: bits is '2': expected 2, 4 or 8 for gptq, 4 for awq"),
        (awq | {"version": "gemv_fast"}, "c: quantization_config: version is 'gemv_fast': expected gemm"),
        *((gptq | {"group_size": value}, size.format(value)) for value in (0, -2, 1 << 20, True, 64.0, "64")),
    ):
        with pytest.raises(ModelFileError) as told:
            read(**stated)
        assert str(told.value) == said
    assert packed_shape((3, 5), PackedFormat("gptq", 4, 8)) == (5, 24)
    assert packed_shape((3, 5), PackedFormat("gptq", 2, 8)) == (5, 48)
    assert packed_shape((3, 5), PackedFormat("gptq", 8, 8)) == (5, 12)
    assert packed_shape((3, 5), PackedFormat("awq", 4, 8)) == (40, 3)
    for shape in ((), (3,), (3, 5, 1)):
        with pytest.raises(ModelFileError, match=rf"^a packed matrix has {len(shape)} dimensions: expected 2$"):
            packed_shape(shape, PackedFormat("awq", 4, 8))


def whole_numbers(rows: list[list[int]], bits: int) -> Tensor:
    """Integers of 32 bits that each hold the numbers of a row, the first lowest: rows by one."""
    found = [sum(value << bits * place for place, value in enumerate(each)) for each in rows]
    return torch.tensor([value - (1 << 32 if value >= 1 << 31 else 0) for value in found], dtype=torch.int32)


@pytest.mark.parametrize(("bits", "group", "zero_offset"), [(2, 10, 1), (2, -1, 0), (8, 3, 1), (8, 4, 0)])
def test_a_matrix_of_2_or_8_bits_is_unpacked_by_groups_of_which_the_last_may_be_smaller(
    bits: int, group: int, zero_offset: int
) -> None:
    each, top = 32 // bits, 2**bits - 1
    inputs, outputs = (16, 16) if bits == 2 else (8, 4)
    groups = {10: 2, -1: 1, 3: 3, 4: 2}[group]
    codes = [[(5 * k + 3 * o + k * o) % (top + 1) for o in range(outputs)] for k in range(inputs)]
    codes[each - 1][0] = top  # the sign of an integer is a bit of a code
    zeros = [
        [(7 * g + o) % (top + 1) for o in range(outputs)] for g in range(groups)
    ]  # 0 is stored as the largest in v1
    scales = torch.tensor([[0.5 + g + 0.25 * o for o in range(outputs)] for g in range(groups)]).half()
    columns = [[[codes[k][o] for k in range(at, at + each)] for o in range(outputs)] for at in range(0, inputs, each)]
    stored = [[(zero - zero_offset) & top for zero in row] for row in zeros]
    tensors = {
        "qweight": torch.stack([whole_numbers(rows, bits) for rows in columns]),
        "qzeros": torch.stack([whole_numbers([row[at : at + each] for at in range(0, outputs, each)], bits)
                               for row in stored]),
        "scales": scales,
    }  # fmt: skip
    of = PackedFormat("gptq", bits, group, zero_offset)
    size = inputs if group == -1 else group
    expected = [
        [(codes[k][o] - zeros[k // size][o]) * float(scales[k // size, o]) for k in range(inputs)]
        for o in range(outputs)
    ]
    found = unpack(tensors.get, of, "w")
    assert found.tolist() == expected and found.is_contiguous() and found.dtype == torch.float32
    turned = torch.tensor([(k + 1) % groups for k in range(inputs)], dtype=torch.int32)
    by_index = unpack((tensors | {"g_idx": turned}).get, of, "w")
    assert float(by_index[1, 2]) == (codes[2][1] - zeros[3 % groups][1]) * float(scales[3 % groups, 1])
    for name in tensors:
        with pytest.raises(ModelFileError) as told:
            unpack({key: each for key, each in tensors.items() if key != name}.get, of, "w")
        assert str(told.value) == "w is packed and lacks its qweight, qzeros or scales"
    shape, of_zeros = (groups, outputs), (groups, outputs // each)
    for changes in (
        {"scales": scales[:, :1]}, {"scales": torch.cat([scales, scales[:1]])},
        {"qzeros": torch.cat([tensors["qzeros"]] * 2)}, {"qzeros": tensors["qzeros"][:, :-1]},
    ):  # fmt: skip
        wrong = tensors | changes
        with pytest.raises(ModelFileError) as told:
            unpack(wrong.get, of, "w")
        assert str(told.value) == (
            f"w has scales of shape {tuple(wrong['scales'].shape)} and zeros of {tuple(wrong['qzeros'].shape)}: expected "
            f"{shape} and {of_zeros} for groups of {size}"
        )
    for index in (turned + groups, turned - groups, turned[1:]):
        with pytest.raises(ModelFileError) as told:
            unpack((tensors | {"g_idx": index}).get, of, "w")
        assert str(told.value) == (
            f"w has a g_idx that names groups outside 0 to {groups - 1}, or not one for each input"
        )
