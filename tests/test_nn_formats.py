"""Rounded weights, their files and tables: codes, packings, folds, mixtures of types and settings worked out by hand."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.errors import ConfigError, ModelFileError
from firsthand.kernels.attention.kv_pages import Layout, PackedChunk
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
from firsthand.nn.calibrated_rounding import _group_of, awq_scales, gptq
from firsthand.nn.compiled_decoder import Cache, CompiledDecoder, LogitRow, _Vectors
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.int8_outliers import OutlierLinear, to_int8_outliers
from firsthand.nn.layout_reader import LayoutReader
from firsthand.nn.matrices import columns, num_active_parameters, num_multiplied_parameters, num_parameters
from firsthand.nn.nf4 import BLOCK, GROUP, INT4, NF4, FourBitLinear, four_bits
from firsthand.nn.packed_format import PackedFormat, packed_shape
from firsthand.nn.packed_linears import RoundedMatrix, _join, _split, group_grid, round_groups, unpack
from firsthand.nn.quant import fits_float16
from firsthand.nn.weight_layout import (
    ALTERNATING,
    AS_ROW,
    COLUMNS,
    PLUS_ONE,
    ROWS,
    STACK,
    FileLayout,
    by_head,
    file_tensors,
    heads_beside,
    interleaved,
    row,
    shape_in_file,
    stacked,
)
from firsthand.nn.weight_names import bert_name, gguf_name, huggingface_name

SMALL = Architecture(
    family="llama", vocab_size=40, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1,
    head_dim=16, max_position=64, norm_eps=1e-5, windows=(None, None), ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=tolerance, atol=tolerance)


def test_four_bits_are_the_nearest_levels_of_each_block_with_uneven_tails():
    weight = drawn(5, 27) * torch.tensor([0.1, 1, 3, 9, 0.01])[:, None]
    for levels, table in (("nf4", NF4), ("int4", INT4)):
        single = four_bits(weight, levels=levels, double=False)  # type: ignore[arg-type]
        flat = np.pad(weight.numpy().reshape(-1), (0, -135 % BLOCK)).reshape(-1, BLOCK)
        largest = np.abs(flat).max(1)
        nearest = np.abs(flat[:, :, None] / largest[:, None, None] - np.array(table)).argmin(-1)
        close(single.values(), (np.array(table)[nearest] * largest[:, None]).reshape(-1)[:135].reshape(5, 27))
        assert single.codes[:2].tolist() == [
            int(nearest[0, 0] << 4 | nearest[0, 1]),
            int(nearest[0, 2] << 4 | nearest[0, 3]),
        ]
    assert single.size_bytes == 96 + 4 * 3 and single.bits_per_weight == pytest.approx(8 * 108 / 135)
    wide = drawn(3, BLOCK * GROUP // 2)
    double = four_bits(wide)
    assert double.absmax.dtype == torch.int8 and double.scales is not None and len(double.scales) == 2
    largest = wide.reshape(-1, BLOCK).abs().amax(1)
    off = (double.absmax_values() - largest).abs()
    assert off[:GROUP].max() <= double.scales[0] / 2 + 1e-6 and off[GROUP:].max() <= double.scales[1] / 2 + 1e-6
    assert double.mean is not None and float(double.mean) == pytest.approx(float(largest.mean()))
    linear = FourBitLinear(double, torch.tensor([1.0, 2.0, 3.0]))
    x = drawn(2, wide.shape[1], seed=1)
    close(linear(x), x @ double.values().T + torch.tensor([1.0, 2.0, 3.0]), 1e-4)
    assert four_bits(torch.zeros(2, 64)).values().abs().max() == 0
    for bad, said in ((torch.full((1, 2), math.inf), "no finite numbers"), (torch.zeros(3), "4 bits are for matrices")):
        with pytest.raises(ConfigError, match=said):
            four_bits(bad)


def test_features_with_outliers_are_multiplied_in_floats():
    weight, bias = drawn(4, 6), torch.tensor([0.5, -1, 2, 0])
    linear = OutlierLinear(weight, bias, threshold=6.0)
    scales = weight.abs().amax(1) / 127
    codes = (weight / scales[:, None]).round()
    close(linear.weight, codes * scales[:, None])
    assert linear.size_bytes == 24 + 16 and linear.out_features == 4
    x = drawn(3, 6, seed=1)
    x[0, 2], x[1, 4] = 6.0, -7.5
    rest = x.clone()
    rest[:, [2, 4]] = 0
    row_scales = rest.abs().amax(1) / 127
    whole = (rest / row_scales[:, None]).round() @ codes.T
    expected = whole * row_scales[:, None] * scales + x[:, [2, 4]] @ linear.weight[:, [2, 4]].T + bias
    close(linear(x), expected)
    close(linear(x.reshape(1, 3, 6))[0], expected)
    decoder = to_int8_outliers(initialise(Decoder(SMALL)), threshold=3.0)
    kinds = {name: type(each).__name__ for name, each in decoder.named_modules() if name.endswith(("proj", "lm_head"))}
    assert kinds.pop("lm_head") == "Linear" and set(kinds.values()) == {"OutlierLinear"} and len(kinds) == 14
    some = to_int8_outliers(initialise(Decoder(SMALL)), ["lm_head"])
    assert isinstance(some.lm_head, OutlierLinear) and not isinstance(some.layers[0].mlp.up_proj, OutlierLinear)
    with pytest.raises(ConfigError, match="no finite numbers"):
        OutlierLinear(torch.tensor([[math.nan]]), None)


def test_groups_are_rounded_between_their_ends_with_nought_and_packed_in_both_layouts():
    weight = torch.tensor([[0.0, 1.5, 3.0, 0.75, -4.0, -2.0, 0.0, -1.0], [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]])
    scales, zeros = group_grid(weight, 4, 4)
    close(scales, torch.tensor([[3 / 15, 4 / 15], [4 / 15, 2.0**-14]]).half().float())
    assert zeros.tolist() == [[0, 15], [0, 0]]
    made = round_groups(weight, 4, 4)
    assert made.codes.tolist() == [[0, 8, 15, 4, 0, 7, 15, 11], [4, 8, 11, 15, 0, 0, 0, 0]]
    close(made.values()[0, :4], made.codes[0, :4].float() * scales[0, 0])
    codes = torch.arange(16).reshape(8, 2) % 16
    gptq_format, awq_format = PackedFormat("gptq", 4, 4, 1), PackedFormat("awq", 4, 4)
    packed = _join(codes, gptq_format, rows=True)
    assert packed.tolist() == [
        [sum(int(codes[k, o]) << 4 * k for k in range(8)) - (1 << 32 if codes[7, o] >= 8 else 0) for o in (0, 1)]
    ]
    assert _split(packed, gptq_format, rows=True).tolist() == codes.tolist()
    beside = _join(codes.T.contiguous(), awq_format, rows=False)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    assert int(beside[0, 0]) & 0xFFFFFFFF == sum(int(codes[order[place], 0]) << 4 * place for place in range(8))
    assert _split(beside, awq_format, rows=False).tolist() == codes.T.tolist()
    matrix = round_groups(drawn(16, 12, seed=2), 4, 4)
    for of in (gptq_format, awq_format):
        wide = RoundedMatrix(matrix.codes[:, :8], matrix.scales[:, :2], matrix.zeros[:, :2])
        tensors = wide.tensors(of)
        close(unpack(tensors.get, of, "w"), wide.values(), 1e-3)
        assert packed_shape(tuple(tensors["qweight"].shape), of) == (16, 8)
        with pytest.raises(ModelFileError, match="w is packed and lacks"):
            unpack({**tensors, "scales": None}.get, of, "w")
        with pytest.raises(ModelFileError, match=r"expected \(2, 16\) and \(2, 2\) for groups of 4"):
            unpack({**tensors, "scales": tensors["scales"][:1]}.get, of, "w")
    index = torch.tensor([1, 1, 0, 0, 1, 1, 0, 0])
    tensors = wide.tensors(gptq_format) | {"g_idx": index}
    turned = (wide.codes.float() - wide.zeros[:, index]) * wide.scales[:, index]
    close(unpack(tensors.get, gptq_format, "w"), turned, 1e-3)
    for wrong in (index + 1, index - 1, index[:7]):
        with pytest.raises(ModelFileError, match="w has a g_idx that names groups outside 0 to 1"):
            unpack({**tensors, "g_idx": wrong}.get, gptq_format, "w")
    with pytest.raises(ModelFileError, match="a packed matrix has 1 dimensions"):
        packed_shape((3,), awq_format)


def test_calibrated_rounding_moves_errors_on_and_scales_what_matters():
    weight = drawn(3, 8, seed=3)
    plain = gptq(weight, torch.eye(8), 4)
    close(plain.values(), round_groups(weight, 4, 4).values())
    x = drawn(60, 8, seed=4) @ drawn(8, 8, seed=5)
    hessian = x.T @ x
    error = lambda made: float(((x @ (made.values() - weight).T) ** 2).sum())  # noqa: E731
    assert error(gptq(weight, hessian, 4)) < 0.9 * error(round_groups(weight, 4, 4))
    dead = torch.diag(torch.tensor([1.0, 0, 1, 1, 1, 1, 1, 1]))
    close(gptq(weight, dead, 8).values()[:, 1], np.zeros(3))
    mean = torch.tensor([9.0, 1, 1, 1, 1, 1, 1, 0.1])
    many = torch.diag(mean**2)
    scales = awq_scales([weight], many, mean, 4)
    assert scales[0] > scales[1] > scales[7] and float(scales.max() * scales.min()) == pytest.approx(1.0, rel=1e-4)
    missed = lambda scale: float(((((round_groups(weight * scale, 4, 4).values() / scale) - weight) * mean) ** 2).sum())  # noqa: E731
    tried = [(mean.clamp(min=1e-4) ** (step / 20)) for step in range(20)]
    best = min(missed(each / (each.max() * each.min()).sqrt()) for each in tried)
    assert missed(scales) == pytest.approx(best, rel=1e-4)
    assert [_group_of(widths) for widths in ([256, 384], [64, 128], [96], [128])] == [128, 64, 32, 128]
    with pytest.raises(ConfigError, match="rows that groups of 32 do not divide"):
        _group_of([128, 48])


def test_folds_lay_parts_out_and_take_them_apart_again():
    a, b, c = (torch.arange(8).reshape(4, 2) + 10 * n for n in range(3))
    six, rows = torch.arange(12).reshape(6, 2), torch.arange(32).reshape(16, 2)
    shapes = [(4, 2)] * 3
    for fold, parts, joined in (
        (ROWS, [a, b], torch.cat([a, b])), (COLUMNS, [a, b], torch.cat([a, b]).T), (STACK, [a, b], torch.stack([a, b])),
        (ALTERNATING, [a, b], torch.stack([a, b], 1).reshape(8, 2)),
        (by_head(2), [a, b, c], torch.cat([a[:2], b[:2], c[:2], a[2:], b[2:], c[2:]])),
        (stacked(ROWS, 2), [a, b, c, a], torch.stack([torch.cat([a, b]), torch.cat([c, a])])),
        (PLUS_ONE, [a], a + 1), (AS_ROW, [a[:1]], a[0]),
        (interleaved(0, 1), [a], a[[0, 2, 1, 3]]),
        (interleaved(1, 1), [torch.cat([c[:1], a])], torch.cat([c[:1], a[[0, 2, 1, 3]]])),
        (interleaved(0, 1), [six], six[[0, 3, 1, 4, 2, 5]]),  # three pairs: first and second halves take turns
        (interleaved(2, 2), [rows], rows[[0, 1, 2, 5, 3, 6, 4, 7, 8, 9, 10, 13, 11, 14, 12, 15]]),
    ):  # fmt: skip
        found = fold.join(parts)
        assert found.tolist() == joined.tolist()
        back = fold.split(joined, [tuple(part.shape) for part in parts])
        assert [each.tolist() for each in back] == [part.tolist() for part in parts]
    one, two = torch.arange(12).reshape(2, 2, 3), torch.arange(6).reshape(2, 1, 3) + 50
    beside = heads_beside(2).join([one, two])
    assert beside.tolist() == [*one[0].tolist(), *two[0].tolist(), *one[1].tolist(), *two[1].tolist()]
    assert [each.tolist() for each in heads_beside(2).split(beside, [(2, 2, 3), (2, 1, 3)])] == [
        one.tolist(),
        two.tolist(),
    ]
    bias = torch.arange(4)
    assert COLUMNS.join([bias, bias]).tolist() == [0, 1, 2, 3] * 2 and shapes


def test_a_layout_names_the_tensors_of_each_layer_and_expert_and_reads_their_parts():
    layout = FileLayout(
        (row("wte", "embed"),),
        (row("attn", "attention.q_proj", "attention.k_proj"), row("moe.{e}.up", "mlp.experts.{e}.up_proj"),
         row("downs", "mlp.experts.{e}.down_proj", fold=STACK), row("sinks", "attention.sinks", suffixes=("", ""))),
        layers="h", prefix="model.", ignored=(r".*\.masked",),
    )  # fmt: skip
    shapes = {
        "embed.weight": (5, 2), "layers.0.attention.q_proj.weight": (3, 2), "layers.0.attention.k_proj.weight": (1, 2),
        "layers.0.attention.q_proj.bias": (3,), "layers.0.attention.k_proj.bias": (1,), "layers.0.attention.sinks": (4,),
        **{f"layers.1.mlp.experts.{e}.{part}_proj.weight": (2, 3) for e in (0, 1) for part in ("up", "down")},
    }  # fmt: skip
    found = {each.name: each.ours for each in file_tensors(layout, shapes)}
    assert found == {
        "wte.weight": ("embed.weight",),
        "h.0.attn.weight": ("layers.0.attention.q_proj.weight", "layers.0.attention.k_proj.weight"),
        "h.0.attn.bias": ("layers.0.attention.q_proj.bias", "layers.0.attention.k_proj.bias"),
        "h.0.sinks": ("layers.0.attention.sinks",),
        "h.1.moe.0.up.weight": ("layers.1.mlp.experts.0.up_proj.weight",),
        "h.1.moe.1.up.weight": ("layers.1.mlp.experts.1.up_proj.weight",),
        "h.1.downs.weight": ("layers.1.mlp.experts.0.down_proj.weight", "layers.1.mlp.experts.1.down_proj.weight"),
    }
    sizes = {each.name: shape_in_file(each, shapes) for each in file_tensors(layout, shapes)}
    assert (
        sizes["h.0.attn.weight"] == (4, 2) and sizes["h.1.downs.weight"] == (2, 2, 3) and sizes["h.0.attn.bias"] == (4,)
    )
    with pytest.raises(KeyError, match="no row for other"):
        file_tensors(layout, {**shapes, "other": (1,)})
    reads: list[str] = []

    def read(name: str) -> torch.Tensor:
        reads.append(name)
        return torch.arange(math.prod(sizes[name])).reshape(sizes[name])

    reader = LayoutReader(layout, dict.fromkeys(found), read)
    assert reader.needed(shapes) == sizes and reader.is_ignored("h.0.masked") and not reader.is_ignored("h.0.attn")
    assert reader.read("layers.0.attention.k_proj.weight").tolist() == [[6, 7]]
    assert reader.read("layers.0.attention.q_proj.weight").tolist() == [[0, 1], [2, 3], [4, 5]]
    assert reader.read("layers.1.mlp.experts.1.down_proj.weight").tolist() == [[6, 7, 8], [9, 10, 11]]
    assert reads == ["h.0.attn.weight", "h.1.downs.weight"]
    assert reader.rows("layers.0.attention.k_proj.weight") == ("h.0.attn.weight", 3, 4)
    assert reader.name_of("embed.weight") == "wte.weight"


def test_names_in_files_follow_the_family():
    post = replace(SMALL, norm_placement="sandwich")
    assert huggingface_name("layers.3.mlp_norm.weight", SMALL) == "model.layers.3.post_attention_layernorm.weight"
    assert huggingface_name("layers.3.mlp_norm.weight", post) == "model.layers.3.pre_feedforward_layernorm.weight"
    assert huggingface_name("embed.weight", SMALL) == "model.embed_tokens.weight"
    assert (
        gguf_name("layers.12.attention.o_proj.bias") == "blk.12.attn_output.bias"
        and gguf_name("norm.weight") == "output_norm.weight"
    )
    assert bert_name("layers.0.up_proj.weight", "bert.") == "bert.encoder.layer.0.intermediate.dense.weight"
    assert bert_name("layers.1.up_proj.bias", family="distilbert") == "transformer.layer.1.ffn.lin1.bias"
    assert bert_name("layers.1.v_proj.bias", family="mpnet") == "encoder.layer.1.attention.attn.v.bias"


def test_parameters_are_counted_as_the_modules_hold_them():
    plain = replace(SMALL, qkv_bias=True, o_bias=True, qk_norm=True, norm_placement="sandwich")
    tied = replace(SMALL, tie_embeddings=True, mlp_bias=True, is_gated=False, norm="layer", learned_positions=64)
    experts = ExpertSettings(5, 2, 8, (False, True), shared_width=4, has_shared_gate=True, has_correction=True)
    for a in (SMALL, plain, tied, replace(SMALL, experts=experts), replace(SMALL, has_sinks=True, embed_norm=True)):
        with torch.device("meta"):
            assert num_parameters(a) == sum(each.numel() for each in Decoder(a).parameters())
    mixed = replace(SMALL, experts=experts)
    one = 3 * 32 * 8
    assert num_parameters(mixed) - num_active_parameters(mixed) == 3 * one
    attention = 32 * 32 + 2 * 16 * 32 + 32 * 32
    router = 5 * 32 + 3 * 32 * 4 + 32
    assert num_multiplied_parameters(mixed) == 2 * attention + 40 * 32 + 3 * 32 * 48 + 2 * one + router
    assert [*columns(SMALL)] == [0, 32, 48, 0, 0, 48, 0] and SMALL.kv_bytes_per_token(0.5) == 2 * 2 * 16 / 2
    latent = LatentSettings(rank=8, nope_dim=6, rope_dim=8, value_dim=5, query_rank=7)
    a = replace(SMALL, num_kv_heads=1, head_dim=16, latent=latent, rotary_dim=8)
    with torch.device("meta"):
        assert num_parameters(a) == sum(each.numel() for each in Decoder(a).parameters())


def test_a_gguf_file_refuses_what_float16_cannot_hold_on_either_side(tmp_path: Path):
    for value in (65504.0, -65504.0, 65520.0, -65520.0, -1e6):
        decoder = initialise(Decoder(SMALL))
        with torch.no_grad():
            decoder.layers[1].mlp.up_proj.weight[3, 4] = value
        path = tmp_path / f"{value}.gguf"
        if abs(value) <= 65504:
            save_gguf(decoder, path)
            assert path.is_file()
            continue
        with pytest.raises(
            ConfigError, match=re.escape(f"blk.1.ffn_up.weight holds {abs(value):g}, and F16 ends at 65504")
        ):
            save_gguf(decoder, path)
        assert not path.exists()
    assert fits_float16(torch.tensor([65504.0, -65504.0])) and not fits_float16(torch.tensor([-65520.0, 0]))
    assert not fits_float16(torch.tensor([math.nan, 0]))


def test_a_compiled_model_reads_replaced_experts_and_joins_the_plans_of_two_windows():
    experts = ExpertSettings(4, 2, 16, (True, True))
    fused = CompiledDecoder(initialise(Decoder(replace(SMALL, experts=experts)), seed=1))
    before = fused.experts
    with torch.no_grad():
        fused.model.layers[1].mlp.experts[2].up_proj.weight.fill_(0.25)
    fused.refresh()
    assert fused.experts is not None and fused.experts is not before
    up = fused.experts._held[0][1][2][1]
    assert float(np.asarray(up.memory).max()) == 0.25
    two = CompiledDecoder(initialise(Decoder(replace(SMALL, windows=(None, 40)))), threads=2)
    layout = Layout([PackedChunk(500, 503, list(range(40))), PackedChunk(20, 21, [50, 51])], 16, threads=2)
    alone = [layout.plan(2, window) for window in (0, 40)]
    bounds, tasks, members, slots, merged, num_slots = two._plans(layout, None)
    counts = [len(plan.tasks) for plan in alone]
    assert bounds.tolist() == [
        [0, counts[0], 0, len(alone[0].merged)],
        [counts[0], sum(counts), len(alone[0].merged), len(alone[0].merged) + len(alone[1].merged)],
    ]
    assert len(alone[0].members) != len(alone[0].merged)
    for plan, first, moved in ((alone[0], 0, 0), (alone[1], counts[0], len(alone[0].members))):
        mine = tasks[first : first + len(plan.tasks)]
        assert (mine[:, [0, 1, 2, 4, 5]] == plan.tasks[:, [0, 1, 2, 4, 5]]).all()
        assert (mine[:, 3] == plan.tasks[:, 3] + moved).all()
    assert members.tolist() == [*alone[0].members, *alone[1].members] and merged.tolist() == [
        *alone[0].merged,
        *alone[1].merged,
    ]
    assert slots.tolist() == [plan.slots.tolist() for plan in alone] and num_slots == max(
        plan.num_slots for plan in alone
    )
    near = Layout([PackedChunk(500, 503, list(range(60, 100))), PackedChunk(20, 21, [7, 8])], 16, threads=2)
    apart = two._plans(layout, near)[1]
    assert (apart[counts[0] :, 0] == near.plan(2, 40).tasks[:, 0] + 42).all() and (
        apart[: counts[0], 0] == alone[0].tasks[:, 0]
    ).all()
    cache = Cache.empty(two.model.architecture, 9, 16, torch.float32, torch.device("cpu"), num_near=4)
    assert cache.spans.tolist() == [[0, 0, 9], [1, 9, 13]] and [len(each.keys) for each in cache.pages] == [9, 4]
    vectors = _Vectors()
    assert [vectors.add(each) for each in (torch.ones(3), None, 2 * torch.ones(17), torch.ones(1))] == [0, -1, 16, 48]
    assert vectors.joined()[[0, 2, 3, 16, 32, 33, 48]].tolist() == [1, 1, 0, 2, 2, 0, 1]
    scores = LogitRow(torch.tensor([1.0, 3.0]), 1, 2.5, known={0: 9.0})
    assert scores.logprob(0) == 6.5 and scores.logprob(1) == 0.5
