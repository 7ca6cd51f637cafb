"""Layers rounded with a calibration text, packed ones in a state of weights, and the readers of joined tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.calibrated_rounding import _SITES, _hessians, _linear, _place, _scale, awq_scales, gptq, round_model
from firsthand.nn.decoder import Block, Decoder, initialise
from firsthand.nn.families.rope_config import rope_from_parameters, rotated_values
from firsthand.nn.layout_reader import LayoutReader, laid_out, tensors_of
from firsthand.nn.packed_format import PackedFormat
from firsthand.nn.packed_linears import _join, _split, round_groups
from firsthand.nn.quant import BlockLinear, DenseLinear, _taken, block_linear, fits_float16, pack, weight_shapes
from firsthand.nn.weight_layout import GATE_UP, QKV, STACK, FileLayout, by_head, row

A = Architecture(
    "llama", 40, 32, 64, 2, 4, num_kv_heads=4, head_dim=8, max_position=64, norm_eps=1e-5, windows=(None, None),
    ropes=(Rope(), Rope(500.0)), tie_embeddings=False, embed_scale=1.5, mlp_bias=True, qkv_bias=True,
)  # fmt: skip
TEXTS = [[3, 9, 30, 4, 4, 1, 7], [8], [], [5, 2, 39]]


def made(a: Architecture = A) -> Decoder:
    model = initialise(Decoder(a), seed=4, std=0.3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in model.parameters():
            if each.dim() == 1:
                each.add_(0.3 * torch.randn(each.shape, generator=generator))
    return model


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize(("method", "bits"), [("gptq", 2), ("gptq", 4), ("gptq", 8), ("awq", 4)])
def test_codes_are_joined_in_the_order_of_their_method_along_rows_and_columns(
    method: Any, bits: int, rows: bool
) -> None:
    of, each = PackedFormat(method, bits, 4), 32 // bits
    codes = torch.randint(0, 2**bits, (2 * each, 3), generator=torch.Generator().manual_seed(bits))
    codes = codes if rows else codes.T.contiguous()
    joined = _join(codes, of, rows=rows)
    assert joined.dtype == torch.int32 and tuple(joined.shape) == ((2, 3) if rows else (3, 2))
    assert torch.equal(_split(joined, of, rows=rows), codes)
    order = (0, 2, 4, 6, 1, 3, 5, 7) if method == "awq" else tuple(range(each))
    for at in range(2):
        for other in range(3):
            mine = codes[at * each : (at + 1) * each, other] if rows else codes[other, at * each : (at + 1) * each]
            expected = sum(int(mine[position]) << bits * place for place, position in enumerate(order))
            assert int(joined[at, other] if rows else joined[other, at]) & 0xFFFFFFFF == expected


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_blocks_are_rounded_first_to_last_with_what_the_rounded_ones_before_give(method: Any) -> None:
    model, other, told = made(), made(), list[tuple[int, int]]()
    found, group = round_model(model, TEXTS, method, told=lambda done, total: told.append((done, total)))
    assert (group, told) == (32, [(1, 2), (2, 2)])
    assert list(found) == [
        f"layers.{layer}.{part}_proj" for layer in range(2) for part in (
            "attention.q", "attention.k", "attention.v", "attention.o", "mlp.gate", "mlp.up", "mlp.down"
        )
    ]  # fmt: skip
    # the same by hand: texts of one token or none teach nothing
    hidden = [other.embed(torch.tensor(text)) * 1.5 for text in TEXTS if len(text) > 1]
    for layer, block in enumerate(other.layers):
        assert isinstance(block, Block)
        sums = _hessians(other, layer, block, hidden, keep=False)[0]
        if method == "awq":
            for site, names in _SITES.items():
                _scale(block, site, [_linear(block, name) for name in names], sums[site], 32)
        for site, names in _SITES.items():
            for name in names:
                linear = _linear(block, name)
                weight = linear.weight.clone()
                rounded = gptq(weight, sums[site][0], 32) if method == "gptq" else round_groups(weight, 4, 32)
                assert torch.equal(found[_place(layer, name)].codes, rounded.codes), (layer, name)
                linear.weight.copy_(rounded.values())
                assert torch.equal(model.get_submodule(_place(layer, name)).weight, linear.weight)  # type: ignore[arg-type]
        by = [other.rotations(torch.arange(len(x)), torch.float32)[A.ropes[layer]] for x in hidden]
        hidden = [block(x, turned, Packed([len(x)])) for x, turned in zip(hidden, by, strict=True)]


@pytest.mark.slow
@torch.no_grad()
def test_scaled_inputs_are_divided_out_of_what_makes_them() -> None:
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.1, 4, 32)
    wide = torch.randn(9, 64, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.1, 4, 64)
    before: Tensor
    for unit_offset in (0, 1):
        block = made(replace(A, norm_unit_offset=bool(unit_offset))).layers[0]
        assert isinstance(block, Block)
        for site, rows, norm in (("attn.in", x, block.attention_norm), ("mlp.in", x, block.mlp_norm)):
            linears = [_linear(block, name) for name in _SITES[site]]
            seen = (rows.T @ rows, rows.abs().mean(0))
            scale = awq_scales([each.weight for each in linears], *seen, 32)
            expected = [each(norm(x)) for each in linears]
            weights = [each.weight * scale for each in linears]
            before = (norm.weight + unit_offset) / scale - unit_offset  # type: ignore[operator]
            _scale(block, site, linears, seen, 32)
            assert not torch.allclose(scale, torch.ones(32)) and torch.allclose(norm.weight, before)  # type: ignore[arg-type]
            for linear, weight, out in zip(linears, weights, expected, strict=True):
                assert torch.equal(linear.weight, weight) and torch.allclose(linear(norm(x)), out, atol=1e-3)
        for site, maker, width in (("mlp.act", "up_proj", 64), ("attn.mixed", "v_proj", 32)):
            [linear] = [_linear(block, name) for name in _SITES[site]]
            first = _linear(block, maker)
            rows = wide if width == 64 else x
            seen = (rows.T @ rows, rows.abs().mean(0))
            out = linear(first(x))
            scale = awq_scales([linear.weight], *seen, 32)
            bias = first.bias / scale
            _scale(block, site, [linear], seen, 32)
            assert torch.allclose(linear(first(x)), out, atol=1e-3) and torch.allclose(first.bias, bias)
    shared = made(replace(A, num_kv_heads=2)).layers[0]
    assert isinstance(shared, Block)
    kept = [shared.attention.v_proj.weight.clone(), shared.attention.o_proj.weight.clone()]
    _scale(shared, "attn.mixed", [shared.attention.o_proj], (x.T @ x, x.abs().mean(0)), 32)  # type: ignore[list-item]
    assert torch.equal(shared.attention.v_proj.weight, kept[0]) and torch.equal(shared.attention.o_proj.weight, kept[1])
    with pytest.raises(ConfigError, match=r"^a block has no plain gate_proj: quantise this model to GGUF instead$"):
        _linear(Block(replace(A, is_gated=False), 0), "gate_proj")
    odd = replace(A, hidden_size=64, intermediate_size=64, num_heads=4, num_kv_heads=1, head_dim=16)
    assert round_model(made(odd), TEXTS, "gptq")[1] == 64
    narrow = replace(A, num_heads=8, num_kv_heads=1, head_dim=4)
    with pytest.raises(
        ConfigError, match=r"^awq packs eight weights in an integer: this model has matrices of other sizes$"
    ):
        round_model(made(narrow), TEXTS, "awq")
    model = made()
    model.layers[1] = nn.Identity()
    with pytest.raises(
        ConfigError, match=r"^awq takes blocks of attention and a gated MLP: quantise this model to GGUF"
    ):
        round_model(model, TEXTS, "awq")


@torch.no_grad()
def test_a_packed_layer_takes_a_linear_s_weights_and_tells_what_is_missing() -> None:
    pytest.importorskip("numba")
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(3))
    bias = torch.arange(6.0)
    half, blocks = DenseLinear(weight, bias), block_linear(weight, bias, "x")
    assert half.extra_repr() == "in_features=32, out_features=6, bias=True, float16"
    assert DenseLinear(weight, None).extra_repr() == "in_features=32, out_features=6, bias=False, float16"
    assert blocks.extra_repr() == "in_features=32, out_features=6, 8 bits in blocks of 32"
    assert torch.equal(half.weight, weight.half().float()) and torch.allclose(blocks.weight, weight, atol=0.02)
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(4))
    for layer, tolerance in ((half, 1e-4), (blocks, 0.2)):
        assert layer.entry() == layer.tiles.entry()
        assert torch.allclose(layer(x), x @ layer.weight.T + bias, atol=tolerance) and layer(x).shape == (2, 3, 6)
        assert torch.allclose(layer.product(x), x @ layer.weight.T, atol=tolerance)
        with torch.enable_grad():
            asked = x.clone().requires_grad_()
            layer(asked).sum().backward()
        assert asked.grad is not None and torch.allclose(asked.grad, layer.weight.sum(0).expand_as(x), atol=1e-4)
        layer.load_state_dict({"weight": 2 * weight, "bias": bias + 1})
        assert torch.allclose(layer.weight, 2 * weight, atol=0.05) and torch.equal(layer.bias, bias + 1)  # type: ignore[arg-type]
        for state, said in (({"weight": weight}, 'Missing key.*"bias"'),
                            ({"weight": weight, "bias": bias, "more": bias}, 'Unexpected key.*"more"')):  # fmt: skip
            with pytest.raises(RuntimeError, match=rf"(?s){said}"):
                layer.load_state_dict(state)
        fewer = layer.load_state_dict({"weight": 3 * weight}, strict=False)  # nothing is taken by halves
        assert fewer.missing_keys == ["bias"] and torch.allclose(layer.weight, weight, atol=0.05)
    missing, unexpected = list[str](), list[str]()
    state = {"a.weight": weight, "a.bias": bias, "b.x": bias}
    assert len(_taken(state, "a.", True, True, missing, unexpected)) == 2 and (missing, unexpected) == ([], [])
    assert (
        _taken(state, "b.", False, True, missing, unexpected) == []
        and missing == ["b.weight"]
        and unexpected == ["b.x"]
    )
    assert _taken(state, "b.", False, False, missing, unexpected) == [] and unexpected == ["b.x"]
    net = nn.ModuleDict({"a": half, "b": nn.Linear(3, 2), "c": DenseLinear(weight, None)})
    assert weight_shapes(net) == {
        "a.weight": (6, 32),
        "a.bias": (6,),
        "b.weight": (2, 3),
        "b.bias": (2,),
        "c.weight": (6, 32),
    }
    assert weight_shapes(blocks) == {"weight": (6, 32), "bias": (6,)}
    with pytest.raises(ConfigError, match=r"^x has 31 inputs: int8 takes multiples of 32; use weights='float16'$"):
        block_linear(weight[:, :31], None, "x")
    with pytest.raises(
        ConfigError, match=r"^x is torch\.float64 on cpu: packing takes float32 on the CPU; load the model "
    ):
        DenseLinear(weight.double(), None, name="x")
    with pytest.raises(ConfigError, match=r"^x holds 70000, and float16 ends at 65504: use weights='float32'$"):
        DenseLinear(torch.full((2, 2), -70_000.0), None, name="x")
    assert fits_float16(torch.tensor([-65504.0, 65504.0])) and not fits_float16(torch.tensor([65505.0]))
    small = nn.Sequential(nn.Linear(32, 4), nn.Linear(32, 1), nn.Sequential(nn.Linear(32, 2, bias=False)))
    assert pack(small, "float32") is small and type(small[0]) is nn.Linear
    kept = small[1]
    assert pack(small, "int8") is small and isinstance(small[0], BlockLinear) and small[1] is kept
    assert isinstance(small[2][0], BlockLinear) and small[2][0].bias is None and small[0].bias is not None
    bad = nn.Sequential(nn.Linear(32, 4), nn.Linear(32, 4).double())
    with pytest.raises(ConfigError, match=r"^1 is torch\.float64"):
        pack(bad, "float16")
    assert type(bad[0]) is nn.Linear


def test_a_reader_cuts_joined_tensors_and_keeps_only_the_last() -> None:
    inner = (
        row("qkv", *QKV),
        row("gu", *GATE_UP, fold=by_head(2)),
        row("down", "mlp.experts.{e}.down_proj", fold=STACK),
    )
    outer = (row("t.wte", "embed"), row("lm_head", "lm_head"))
    layout = FileLayout(outer, inner, layers="t.h", prefix="t.", ignored=(r"t\.h\.\d\.mask",))
    shapes = {
        "embed.weight": (5, 4), "layers.0.attention.q_proj.weight": (4, 4), "layers.0.attention.k_proj.weight": (2, 4),
        "layers.0.attention.v_proj.weight": (2, 4), "layers.0.attention.q_proj.bias": (4,),
        "layers.0.attention.k_proj.bias": (2,), "layers.0.attention.v_proj.bias": (2,),
        "layers.1.mlp.gate_proj.weight": (4, 3), "layers.1.mlp.up_proj.weight": (4, 3),
        "layers.1.mlp.experts.0.down_proj.weight": (3, 2), "layers.1.mlp.experts.1.down_proj.weight": (3, 2),
    }  # fmt: skip
    parameters = {
        name: nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(at)))
        for at, (name, shape) in enumerate(shapes.items())
    }
    needed = {
        "t.wte.weight": (5, 4), "t.h.0.qkv.weight": (8, 4), "t.h.0.qkv.bias": (8,), "t.h.1.gu.weight": (8, 3),
        "t.h.1.down.weight": (2, 3, 2),
    }  # fmt: skip
    file = dict(laid_out(layout, parameters))
    assert {name: tuple(values.shape) for name, values in file.items()} == needed
    for prefix in ("t.", ""):
        stored = {name.removeprefix("t.") if not prefix else name: values for name, values in file.items()}
        asked: list[str] = []

        def read(name: str, stored: dict[str, Tensor] = stored, asked: list[str] = asked) -> Tensor:
            asked.append(name)
            return stored[name]

        reader = LayoutReader(layout, stored, read)
        assert reader.needed(shapes) == {prefix + name.removeprefix("t."): shape for name, shape in needed.items()}
        for name, values in parameters.items():
            assert torch.equal(reader.read(name), values), name
        assert asked == [f"{prefix}{each}" for each in ("wte.weight", "h.0.qkv.weight", "h.0.qkv.bias", "h.1.gu.weight",
                                                        "h.1.down.weight")]  # fmt: skip
        k = "layers.0.attention.k_proj.weight"
        assert (
            reader.rows(k) == (f"{prefix}h.0.qkv.weight", 4, 6) and reader.rows("layers.1.mlp.up_proj.weight") is None
        )
        assert reader.rows("layers.1.mlp.experts.1.down_proj.weight") == (f"{prefix}h.1.down.weight", 3, 6)
        assert reader.name_of(k) == f"{prefix}h.0.qkv.weight" and reader.name_of("lm_head.weight") == "lm_head.weight"
    assert reader.is_ignored("t.h.3.mask") and not reader.is_ignored("t.h.3.mask.x")
    more = {**shapes, "layers.0.mlp.x.weight": (1,)}
    said = "^files of this family cannot hold this model: the family's layout has no row for layers.0.mlp.x.weight$"
    with pytest.raises(ModelFileError, match=said):
        reader.needed(more)
    with pytest.raises(ConfigError, match=said):
        tensors_of(layout, more)


def test_a_rope_s_parameters_fall_back_on_the_config_and_what_is_not_known_is_refused() -> None:
    config = Fields({"max_position_embeddings": 400}, "c")

    def rope(theta: float = 300.0, may_be_partial: bool = False, of: Fields = config, **parameters: Any) -> Rope:
        return rope_from_parameters(Fields(parameters, "c: p"), of, theta=theta, may_be_partial=may_be_partial)

    assert rope() == Rope(300.0) and rope(rope_theta=7.0) == Rope(7.0)
    assert rope(rope_type="linear", factor=2.0) == Rope(300.0, "linear", 2.0)
    yarn = rope(rope_type="yarn", original_max_position_embeddings=100)
    assert (yarn.factor, yarn.original_max_position) == (4.0, 100)
    assert rope(may_be_partial=True, partial_rotary_factor=0.5) == Rope(300.0)
    for parameters in (
        {"partial_rotary_factor": 0.5}, {"rope_type": "spiral"}, {"rope_type": "linear"},
        {"full_attention": {"rope_theta": 1.0}}, {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0},
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match=r"^c"):
            rope(**parameters)  # type: ignore[arg-type]
    assert rotated_values(Fields({}, "c"), 10) == 10
    half = {"partial_rotary_factor": 0.5}
    assert rotated_values(Fields(half, "c"), 10) == 5
    assert rotated_values(Fields({**half, "rope_scaling": {"partial_rotary_factor": 0.25}}, "c"), 10) == 2
    for share in (0.0, 1.01):
        with pytest.raises(
            ModelFileError, match=rf"^c: partial_rotary_factor is '{share}': expected above 0, and 1 at most$"
        ):
            rotated_values(Fields({"partial_rotary_factor": share}, "c"), 10)
