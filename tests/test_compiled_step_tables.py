"""The compiled step's tables and working memory, its states beside those of the modules, and which models it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from firsthand.kernels.attention.kv_pages import Layout, PackedChunk
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.batched_lora import AdapterSpan, PackedAdapter, pack_adapter
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.compiled_decoder import (
    Cache,
    CompiledDecoder,
    Logits,
    _angles,
    _linears,
    _norm_weights,
    _packed,
    _part,
    _vectors,
    why_not_compiled,
)
from firsthand.nn.compiled_experts import CompiledExperts, _router_rows, linears_of, mlps_of, width_of
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.lora import Adapter, LowRankUpdate
from firsthand.nn.matrices import ATTENTION, BLOCK
from firsthand.nn.quant import DenseLinear, block_linear, pack

pytest.importorskip("numba")
A = Architecture(
    "qwen3", 50, 32, 48, 2, 4, num_kv_heads=2, head_dim=16, max_position=3000, norm_eps=1e-5, windows=(5, None),
    ropes=(Rope(), Rope(500.0)), tie_embeddings=False, qkv_bias=True, qk_norm=True, norm_placement="sandwich",
    norm_unit_offset=True, embed_scale=1.5, attention_scale=0.3, logit_softcap=4.0, activation="gelu_tanh",
)  # fmt: skip
EXPERTS = ExpertSettings(5, 2, 16, (False, True), shared_width=32, has_shared_gate=True, renormalise=False, scale=1.5)


def model(a: Architecture = A) -> Decoder:
    made = initialise(Decoder(a), seed=3, std=0.3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in made.parameters():
            if each.dim() == 1:
                each.add_(0.3 * torch.randn(each.shape, generator=generator))
    return made


def test_states_and_logits_of_two_texts_are_those_of_the_modules_whatever_the_threads_and_the_near_pool() -> None:
    made = model()
    texts = [[(7 * i + 3) % 50 for i in range(19)], [11, 4, 9]]
    ids = [token for text in texts for token in text]
    positions = torch.tensor([*range(19), *range(3)])
    wanted = [18, 0, 21]
    with torch.no_grad():
        whole = made(torch.tensor(ids), positions, Packed([19, 3]))
        expected, scores = whole[wanted], made.logits(whole[wanted])
    layout = Layout([PackedChunk(0, 19, [3, 0]), PackedChunk(0, 3, [2])], 16)
    near = Layout([PackedChunk(0, 19, [1, 2]), PackedChunk(0, 3, [0])], 16)
    for threads, layout_of_windows in ((1, None), (2, near)):
        compiled = CompiledDecoder(made, threads=threads)
        cache = Cache.empty(
            A, 4, 16, torch.float32, torch.device("cpu"), num_near=None if layout_of_windows is None else 3
        )
        found = compiled.hidden(ids, layout, cache, wanted, near=layout_of_windows)
        assert found.shape == (3, 32) and np.allclose(found, expected, atol=1e-4)
        logits = compiled.logits(found)
        assert np.allclose(logits.values, scores, atol=1e-4) and logits.values.shape == (3, 50)
        assert logits.best == scores.argmax(1).tolist()
        assert np.allclose(logits.normalisers, scores.logsumexp(1), atol=1e-4)
        # one token more of the second text reads what the cache holds of it
        with torch.no_grad():
            more = made(torch.tensor([11, 4, 9, 30]), torch.arange(4), Packed([4]))[-1:]
        step = Layout([PackedChunk(3, 4, [2])], 16)
        step_near = None if layout_of_windows is None else Layout([PackedChunk(3, 4, [0])], 16)
        assert np.allclose(compiled.hidden([30], step, cache, [0], near=step_near), more, atol=1e-4)
    with pytest.raises(AssertionError, match="the layout is for other tokens"):
        compiled.hidden(ids[1:], layout, cache, wanted)


def with_adapter(seed: int, rank: int, scale: float, only: str) -> tuple[PackedAdapter, Decoder]:
    """An adapter of the matrices whose names begin so, and the model with it in its weights."""
    changed, generator = model(), torch.Generator().manual_seed(seed)
    deltas = {}
    for name, module in changed.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(only):
            sizes = (rank, module.in_features), (module.out_features, rank)
            deltas[f"{name}.weight"] = LowRankUpdate(
                *(0.2 * torch.randn(size, generator=generator) for size in sizes), scale
            )
    added = Adapter(Path("added"), deltas)
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            parameter.copy_(added.merged(name, parameter))
    return pack_adapter(added, changed, tiles_of="float32"), changed


@torch.no_grad()
def test_rows_with_adapters_have_the_states_and_logits_of_models_with_these_in_their_weights() -> None:
    from firsthand.kernels.step import lora_products

    plain = model()
    red, of_red = with_adapter(5, 20, 1.5, "")  # a rank of more than a tile, and more rows than a piece has
    green, of_green = with_adapter(6, 3, -2.0, "layers.1.")
    lengths, models = [3, 18, 2, 4], [plain, of_red, of_green, plain]
    texts = [[(7 * at + 5 * length) % 50 for at in range(length)] for length in lengths]
    ids = [token for text in texts for token in text]
    wholes = [
        each(torch.tensor(text), torch.arange(len(text)), Packed([len(text)]))
        for each, text in zip(models, texts, strict=True)
    ]
    states = torch.cat(wholes)
    assert all(not torch.allclose(states[at], plain(torch.tensor(ids[3:23]), torch.arange(20), Packed([20]))[at - 3],
                                  atol=0.1) for at in (3, 20))  # fmt: skip
    wanted = [22, 0, 3, 20, 26]  # green, plain, red twice, plain
    scores = torch.cat([each.logits(states[[row]]) for each, row in
                        zip((of_green, plain, of_red, of_red, plain), wanted, strict=True)])  # fmt: skip
    spans = [AdapterSpan(3, 21, red), AdapterSpan(21, 23, green)]
    of_head = [AdapterSpan(0, 1, green), AdapterSpan(2, 4, red)]
    chunks = [PackedChunk(0, length, [2 * at, 2 * at + 1]) for at, length in enumerate(lengths)]
    for threads in (1, 2):
        compiled = CompiledDecoder(plain, threads=threads)
        cache = Cache.empty(A, 8, 16, torch.float32, torch.device("cpu"))
        found = compiled.hidden(ids, Layout(chunks, 16), cache, wanted, spans=spans)
        assert np.allclose(found, states[wanted], atol=2e-4)
        assert (len(compiled._low), len(compiled._lift)) == (3 * 27 * 32, 3 * 27 * lora_products.LIFT)
        logits = compiled.logits(found, of_head)
        assert np.allclose(logits.values, scores, atol=2e-4) and logits.best == scores.argmax(1).tolist()
        assert np.allclose(logits.normalisers, scores.logsumexp(1), atol=2e-4)
        kept, low = compiled._logits, compiled._low
        # without the spans the same rows are the plain model's again, in the memory that there is
        apart = compiled.logits(found[:2])
        assert np.allclose(apart.values, plain.logits(torch.from_numpy(found[:2])), atol=2e-4)
        assert compiled._logits is kept and compiled._low is low and len(kept) == 5 * 64
        assert compiled._adapted([AdapterSpan(0, 1, green)], 27).low is low
        assert len(compiled._adapted([AdapterSpan(0, 1, green)], 28).lift) == 3 * 28 * lora_products.LIFT
        step = Layout([PackedChunk(3, 4, [0])], 16)
        more = plain(torch.tensor([*texts[0], 9]), torch.arange(4), Packed([4]))[-1:]
        assert np.allclose(compiled.hidden([9], step, cache, [0]), more, atol=2e-4)
    later = CompiledDecoder(plain)
    small, large = (later._adapted([AdapterSpan(0, 1, each)], 4) for each in (green, red))
    assert (len(small.low), len(large.low), small.lift is large.lift) == (3 * 4 * 16, 3 * 4 * 32, True)
    empty = compiled._adapted([], 5)
    assert (empty.pieces.shape, empty.rank) == ((0, 3), 16) and empty.low is compiled._low
    mixture = CompiledDecoder(model(replace(A, experts=EXPERTS)))
    with pytest.raises(AssertionError, match="rows with adapters go through the modules of a mixture of experts"):
        mixture.hidden(ids, Layout(chunks, 16), cache, wanted, spans=spans)


def test_the_tables_of_a_model_name_its_matrices_norms_and_layers() -> None:
    made = model()
    compiled = CompiledDecoder(made)
    w = compiled._weights
    assert w.columns.tolist() == [0, 64, 96, 0, 0, 48, 0] and w.matrices.shape == (2, 7, 5)
    entries = [[each.entry() for each in layer] for layer in compiled._held[0]]
    assert w.matrices.tolist() == entries and compiled._head.tolist() == [compiled._held[1].entry()]
    # four norms of 32, two of heads of 16, then the biases of q, k and v
    sizes = [32, 32, 32, 32, 16, 16, 64, 32, 32]
    ends = np.cumsum([0, *sizes])
    assert w.places.tolist() == [
        [*ends[:-1].tolist(), -1, -1, -1, -1],
        [*(ends[:-1] + ends[-1]).tolist(), -1, -1, -1, -1],
        [2 * ends[-1], *[-1] * 12],
    ]
    block = made.layers[1]
    at = ends[-1]
    assert np.array_equal(w.vectors[at : at + 32], 1 + block.attention_norm.weight.detach())
    assert np.array_equal(w.vectors[at + 64 : at + 96], 1 + block.mlp_norm.weight.detach())
    assert np.array_equal(w.vectors[at + 160 : at + 224], block.attention.q_proj.bias.detach())
    assert np.array_equal(w.vectors[2 * at :], 1 + made.norm.weight.detach())
    assert np.array_equal(w.embed, made.embed.weight.detach().reshape(-1))
    assert (compiled._windows, compiled._ropes, compiled.experts) == ([5, 0], [Rope(), Rope(500.0)], None)
    assert (compiled._has_blocks, compiled._has_dense) == (False, True)
    sizes_of, factors = compiled._shape(16, False)
    assert sizes_of.tolist() == [2, 32, 48, 4, 2, 16, 16, 1, 0]
    assert factors.tolist() == np.array([1e-5, 0.3, 1.5], dtype=np.float32).tolist()
    assert compiled._shape(32, True)[0].tolist() == [2, 32, 48, 4, 2, 16, 32, 1, 1]
    assert compiled._shape(16, False)[0] is sizes_of
    assert compiled._shape(32, False)[0].tolist() == [2, 32, 48, 4, 2, 16, 32, 1, 0]
    assert compiled._shape(16, True)[0].tolist() == [2, 32, 48, 4, 2, 16, 16, 1, 1]
    compiled._make_room(1, 1)
    with torch.no_grad():
        made.norm.weight.fill_(2.0)
        made.embed.weight = nn.Parameter(torch.full_like(made.embed.weight, 3.0))
    compiled.refresh()
    compiled._make_room(1, 1)
    assert all(one is other for one, other in zip(compiled._fixed, compiled._weights, strict=True)), "at the next step"
    assert compiled._weights.vectors[2 * at :].tolist() == [3.0] * 32 and (compiled._weights.embed == 3).all()
    assert _part(block, "attention.q_norm") is block.attention.q_norm and _part(block, "mlp") is block.mlp
    assert _linears(block, ATTENTION) == [
        block.attention.q_proj, block.attention.k_proj, block.attention.v_proj, block.attention.o_proj
    ]  # fmt: skip
    assert [None if each is None else each.numel() for each in _vectors(block, BLOCK)] == [*sizes, *[None] * 4]
    assert [None if each is None else each.numel() for each in _vectors(block, ATTENTION)] == [*sizes, *[None] * 4]
    assert _norm_weights(None) is None and _norm_weights(nn.Identity()) is None
    plain = RMSNorm(4, 1e-5)
    assert _norm_weights(plain) is plain.weight


def test_room_is_made_for_the_most_rows_and_positions_so_far() -> None:
    compiled = CompiledDecoder(model())
    compiled._make_room(3, 10)
    stream, rest, rounded, wide = compiled._buffers
    # q is 64 wide, k and v 32 each; gate and up 96 together
    assert (len(stream), len(rest), len(rounded), len(wide)) == (3 * 32, 3 * 64, 0, 3 * 128)
    assert (compiled._rows, compiled._angles) == (3, 1024)
    assert compiled._weights.layers.tolist() == [[5, 0, 0], [0, 1, 1024 * 8]]
    assert len(compiled._weights.cos) == len(compiled._weights.sin) == 2 * 1024 * 8
    turned = torch.arange(1024)[:, None] * 500.0 ** (-torch.arange(8) / 8)
    assert np.allclose(compiled._weights.cos[1024 * 8 :], turned.cos().reshape(-1), atol=1e-3)
    assert np.allclose(compiled._weights.sin[1024 * 8 :], turned.sin().reshape(-1), atol=1e-3)
    compiled._make_room(2, 1024)
    assert compiled._buffers[0] is stream and compiled._angles == 1024
    compiled._make_room(4, 1025)
    assert len(compiled._buffers[0]) == 4 * 32 and compiled._angles == 2048 and compiled._rows == 4
    compiled._make_room(1, 5000)
    assert compiled._angles == 5120 and len(compiled._fixed[6]) == 2 * 5120 * 8
    compiled._make_room(1, 5121)
    assert compiled._angles == 10_240
    long = Rope(300.0, "longrope", 4.0, 1500, divisors=(2.0,) * 8, short_divisors=(1.5,) * 8, attention_factor=1.2)
    ropes = Rope(kind="dynamic", factor=2.0, original_max_position=1500), long
    stretched = model(replace(A, ropes=ropes))
    of = CompiledDecoder(stretched)
    of._make_room(1, 10)
    with torch.no_grad():
        turns = stretched.rotations(torch.arange(1024), torch.float32)
    for number, rope in enumerate(ropes):
        for table, expected in zip((of._weights.cos, of._weights.sin), turns[rope], strict=True):
            part = table[number * 1024 * 8 : (number + 1) * 1024 * 8].reshape(1024, 8)
            assert np.allclose(part, expected.reshape(1024, -1)[:, :8], atol=1e-4), "by the model's length"
    cos, sin = _angles(Rope(kind="linear", factor=4.0, attention_factor=0.5), 4, 2048, 3000)
    pairs = torch.arange(2048)[:, None] / 4 * torch.tensor([1.0, 0.01])
    assert np.allclose(cos, 0.5 * pairs.cos().reshape(-1), atol=1e-4)
    assert np.allclose(sin, 0.5 * pairs.sin().reshape(-1), atol=1e-4)
    for sizes, widths in (
        ({"intermediate_size": 160}, (32, 160, 320)), ({"hidden_size": 192}, (192, 192, 192)),
        ({"num_kv_heads": 4}, (32, 64, 192)), ({"num_heads": 12, "num_kv_heads": 1}, (32, 192, 224)),
    ):  # fmt: skip
        other = CompiledDecoder(model(replace(A, **sizes)))  # type: ignore[arg-type]
        other._make_room(3, 1)
        assert tuple(len(other._buffers[place]) // 3 for place in (0, 1, 3)) == widths
    dense = pack(model(), "float16")
    q = dense.layers[0].attention.q_proj
    assert isinstance(q, DenseLinear) and _packed(q) is q.tiles
    assert CompiledDecoder(dense)._has_dense


def test_rows_of_logits_carry_what_the_device_drew_and_knows() -> None:
    values = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    plain = list(Logits(values, [1, 0], np.array([2.5, 4.5], dtype=np.float32)).rows())
    assert [(row.scores.tolist(), row.best, row.normaliser, row.drawn, row.known, row.drawn_logprob) for row in plain] == [
        ([1.0, 2.0], 1, 2.5, None, {}, 0.0), ([4.0, 3.0], 0, 4.5, None, {}, 0.0)
    ]  # fmt: skip
    full = Logits(values, [1, 0], np.array([2.5, 4.5]), [None, 1], [{0: 7.0}, {1: 8.0}], [-1.0, -2.0])
    assert [(row.drawn, row.known, row.drawn_logprob) for row in full.rows()] == [
        (None, {0: 7.0}, -1.0),
        (1, {1: 8.0}, -2.0),
    ]
    assert [row.logprob(1) for row in full.rows()] == [2.0 - 2.5, 8.0 - 4.5]
    with pytest.raises(ValueError, match="zip"):
        list(Logits(values, [1], np.array([2.5, 4.5])).rows())


def test_a_cache_has_a_pool_of_its_own_for_layers_with_windows() -> None:
    cpu = torch.device("cpu")
    a = replace(A, num_layers=3, windows=(None, 5, None), ropes=(Rope(),) * 3)
    cache = Cache.empty(a, 7, 16, torch.float32, cpu, num_near=2)
    assert cache.spans.tolist() == [[0, 0, 7], [1, 7, 9], [0, 9, 16]] and cache.spans.flags.c_contiguous
    assert [len(each.keys) for each in cache.pages] == [7, 2, 7] and len(cache.arrays) == 4
    cache.pages[1].values.fill_(3.0)
    per_block = cache.pages[0].values[0].numel()
    assert (cache.arrays[1].reshape(-1)[7 * per_block : 9 * per_block] == 3).all()
    assert [each.size for each in cache.arrays[:2]] == [16 * per_block] * 2, "no block is kept that no layer uses"
    for dtype in (torch.float16, torch.int8):
        assert len(Cache.empty(a, 7, 16, dtype, cpu, num_near=2).arrays) == 4
    assert len(Cache.empty(a, 2, 16, torch.float32, cpu, num_near=9).pages[1].keys) == 9
    assert Cache.empty(a, 7, 16, torch.float32, cpu).spans.tolist() == [[0, 0, 7], [0, 7, 14], [0, 14, 21]]
    assert Cache.empty(a, 7, 16, torch.float32, cpu, num_near=0).spans.tolist() == [[0, 0, 7], [1, 7, 7], [0, 7, 14]]
    assert Cache.empty(a, 7, 16, torch.bfloat16, cpu).arrays == ()


class Other(Decoder):
    def logits(self, hidden_MD: torch.Tensor, **more: Any) -> torch.Tensor:
        return super().logits(hidden_MD)


class OtherNorm(RMSNorm):
    pass


def test_the_reason_against_the_compiled_step_names_the_part_or_setting() -> None:
    assert why_not_compiled(model()) is None

    def without_mlp(made: Decoder) -> None:
        made.layers[1].mlp = nn.Identity()

    def other_block(made: Decoder) -> None:
        made.layers[1] = nn.Identity()

    def other_norm(made: Decoder) -> None:
        made.layers[0].mlp_out_norm = OtherNorm(32, 1e-5)

    def other_final(made: Decoder) -> None:
        made.norm = nn.LayerNorm(32)  # type: ignore[assignment]

    def other_linear(made: Decoder) -> None:
        made.layers[1].mlp.down_proj = nn.Identity()

    def double(made: Decoder) -> None:
        made.layers[1].attention.o_proj.double()

    def half_table(made: Decoder) -> None:
        made.embed.bfloat16()

    def blocks(made: Decoder) -> None:  # 48 is no multiple of the 32 inputs of a block
        made.layers[0].mlp.gate_proj = block_linear(torch.ones(48, 32), None, "x")

    for change, said in (
        (without_mlp, "its layer 1 has an unsupported part: Identity"),
        (other_block, "its layer 1 is a Identity"),
        (other_norm, "its layer 0 has an unsupported part: OtherNorm"),
        (other_final, "its embedding or final norm is unsupported"),
        (other_linear, "it has an unsupported layer: Identity"),
        (double, "it is not float32 on the CPU"),
        (half_table, "it is not float32 on the CPU"),
        (blocks, "its widths (32, 48, 64) are not multiples of 32, or head_dim 16 is not one of 16"),
    ):
        made = model()
        change(made)
        assert why_not_compiled(made) == said
    assert why_not_compiled(Other(A)) == "it overrides Decoder's forward or logits"
    narrow = "its widths (24, 48, 64) are not multiples of 16, or head_dim 16 is not one of 16"
    for changes, reason in (
        ({"attention_softcap": 5.0}, "its attention_softcap is 5.0"),
        ({"rotary_dim": 8}, "its rotary_dim is 8"),
        ({"norm_placement": "post"}, "its activation is gelu_tanh and its norm_placement post"),
        ({"activation": "relu"}, "its activation is relu and its norm_placement sandwich"),
        ({"hidden_size": 24}, narrow),
        ({"intermediate_size": 40}, narrow.replace("24, 48", "32, 40")),
        ({"head_dim": 8}, "its widths (32, 48, 32) are not multiples of 16, or head_dim 8 is not one of 16"),
    ):
        assert why_not_compiled(Decoder(replace(A, **changes))) == reason  # type: ignore[arg-type]


def test_the_tables_of_experts_name_every_layer_s_mlps_and_room_is_made_for_the_pairs_of_all_rows() -> None:
    made = model(replace(A, experts=EXPERTS))
    first, second = made.layers
    assert mlps_of(first) == [first.mlp] and mlps_of(second) == [*second.mlp.experts, second.mlp.shared]
    assert [width_of(each) for each in (first.mlp, second.mlp.experts[0], second.mlp.shared)] == [48, 16, 32]
    assert linears_of(first.mlp) == [first.mlp.gate_proj, first.mlp.up_proj, first.mlp.down_proj]
    rows = _router_rows(second.mlp)
    assert torch.equal(rows[:5], second.mlp.router.weight) and torch.equal(rows[5:], second.mlp.shared_gate.weight)
    compiled = CompiledDecoder(made).experts
    assert compiled is not None
    entries, layers, routers = compiled._tables
    packed = compiled._held[0]
    assert [len(mlps) for mlps in packed] == [1, 6]
    assert entries.tolist() == [[each.entry() for each in mlp] for mlps in packed for mlp in mlps]
    # first MLP, experts, experts of a token, a shared one, its gate
    assert layers.tolist() == [[0, 0, 0, 1, 0], [1, 5, 2, 1, 1]]
    assert routers[0].tolist() == [[0] * 5] and routers[1].tolist() == [compiled._held[1][1].entry()]
    # rows of router logits, MLPs of a token, widest MLP, widest rows, no renormalising, float weights
    assert compiled._sizes.tolist() == [16, 3, 48, 48, 0, 1] and compiled._scale.tolist() == [1.5]
    memory = compiled._memory_of(2)
    assert [len(each) for each in memory] == [32, 6, 6, 6, 8, 6, 6, 0, 6 * 2 * 48, 6 * 32]
    assert [each.dtype.name for each in memory] == [
        "float32", "int64", "float32", "int64", "int64", "int64", "int64", "uint8", "float32", "float32"
    ]  # fmt: skip
    assert all(one is other for one, other in zip(memory, compiled._memory_of(1), strict=True))
    assert all(one is other for one, other in zip(memory, compiled._memory_of(2), strict=True))
    assert len(compiled._memory_of(3)[0]) == 48 and len(compiled._memory_of(2)[0]) == 48
    for settings, renormalises in (
        ({"renormalise": True}, 1),
        ({"score": "softmax_of_chosen"}, 1),
        ({"renormalise": True, "has_shared_gate": False, "shared_width": 0}, 1),
    ):
        other = model(replace(A, experts=replace(EXPERTS, **settings)))  # type: ignore[arg-type]
        of = CompiledDecoder(other).experts
        assert of is not None and of._sizes[4] == renormalises
    assert of is not None and of._tables[1].tolist() == [[0, 0, 0, 1, 0], [1, 5, 2, 0, 0]]
    assert _router_rows(other.layers[1].mlp) is other.layers[1].mlp.router.weight
    assert (of._most, of._experts) == (2, 5)
    with pytest.raises(AssertionError, match="this architecture has no experts"):
        CompiledExperts(model(), [])


def test_blocks_of_8_bits_have_room_for_the_rounded_inputs_of_the_widest_product() -> None:
    from firsthand.kernels.products.rounded_rows import BLOCK as BLOCK_OF_INPUTS
    from firsthand.kernels.products.rounded_rows import RECORD

    a = replace(A, intermediate_size=64, experts=replace(EXPERTS, width=32))
    compiled = CompiledDecoder(pack(model(a), "int8"))  # type: ignore[arg-type]
    assert (compiled._has_blocks, compiled._has_dense) == (True, False)
    compiled._make_room(3, 1)
    assert len(compiled._buffers[2]) == 3 * (64 // BLOCK_OF_INPUTS) * RECORD
    experts = compiled.experts
    assert experts is not None and experts._sizes.tolist() == [16, 3, 64, 64, 0, 0]
    assert len(experts._memory_of(2)[7]) == 2 * 3 * (64 // BLOCK_OF_INPUTS) * RECORD
    mixed = pack(model(a), "int8")
    mixed.layers[0].attention.q_proj = nn.Linear(32, 64)  # type: ignore[union-attr]
    both = CompiledDecoder(mixed)  # type: ignore[arg-type]
    assert (both._has_blocks, both._has_dense) == (True, True)
    assert both.experts is not None and (both.experts._has_blocks, both.experts._sizes[5]) == (True, 0)
    mixed.layers[1].mlp.experts[4].down_proj = nn.Linear(32, 32, bias=False)  # type: ignore[union-attr,index]
    some = CompiledDecoder(mixed).experts  # type: ignore[arg-type]
    assert some is not None and (some._has_blocks, some._sizes[5]) == (True, 1), "one of them reads floats"
    floats = CompiledDecoder(model(a)).experts
    assert floats is not None and (floats._has_blocks, floats._sizes[5]) == (False, 1)


@pytest.mark.slow
def test_a_mixture_s_states_are_those_of_its_modules() -> None:
    made = model(replace(A, experts=EXPERTS))
    ids = [(7 * i + 3) % 50 for i in range(9)]
    with torch.no_grad():
        whole = made(torch.tensor(ids), torch.arange(9), Packed([9]))
    cache = Cache.empty(made.architecture, 2, 16, torch.float32, torch.device("cpu"))
    layout = Layout([PackedChunk(0, 9, [1])], 16)
    found = CompiledDecoder(made, threads=2).hidden(ids, layout, cache, [8, 2])
    assert np.allclose(found, whole[[8, 2]], atol=1e-4)
