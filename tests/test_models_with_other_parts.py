"""Models with parts of other types: layers that are no blocks, routers and gates that the compiled step does not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.batched_lora import AdapterSpan, ModuleSpans, pack_adapter
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.blocks.experts import ExpertRouter, MixtureOfExperts
from firsthand.nn.compiled_experts import mlps_of, why_experts_not_compiled
from firsthand.nn.decoder import Block, Decoder, initialise
from firsthand.nn.lora import Adapter, LoRALinear, LowRankUpdate, attach, has_magnitudes, whole_tensor
from firsthand.nn.routed_lora import adapters_off
from lora_tiny import base

EXPERTS = ExpertSettings(4, 2, 16, (False, True), shared_width=16, has_shared_gate=True)
A = Architecture(
    "qwen2_moe", 30, 16, 32, 2, 2, num_kv_heads=1, head_dim=8, max_position=32, norm_eps=1e-5, windows=(None, None),
    ropes=(Rope(), Rope()), tie_embeddings=False, experts=EXPERTS,
)  # fmt: skip


class Halved(nn.Module):
    """A layer that is no block: it is called as one, and has one site."""

    def forward(self, x_ND: Tensor, by: Any, attend: Any) -> Tensor:
        assert by is not None and isinstance(attend, Packed)
        return x_ND / 2


@torch.no_grad()
def test_a_layer_that_is_no_block_has_the_site_after_it_alone() -> None:
    model = initialise(Decoder(replace(A, experts=None)), seed=1, std=0.3)
    model.layers[0] = Halved()
    ids, positions, packed = torch.tensor([3, 7, 1]), torch.arange(3), Packed([3])
    by = model.rotations(positions, torch.float32)[Rope()]
    halved = model.embed(ids) / 2
    after = model.layers[1](halved, by, packed)
    assert [site for site in model.sites() if site.startswith("blocks.0.")] == ["blocks.0.resid.post"]
    assert model.sites()[:3] == ("embed", "blocks.0.resid.post", "blocks.1.attn.in")
    assert model.sites()[-3:] == ("blocks.1.mlp.act", "norm", "logits")
    plain = model(ids, positions, packed)
    assert torch.allclose(plain, model.norm(after), atol=1e-5)
    seen: dict[str, Tensor] = {}

    def keep(site: str) -> Callable[[Tensor], None]:
        return lambda values: seen.__setitem__(site, values.clone())

    sites = ("embed", "blocks.0.resid.post", "blocks.1.resid.post")
    assert torch.equal(model(ids, positions, packed, taps={site: keep(site) for site in sites}), plain)
    assert torch.equal(seen["embed"], model.embed(ids)) and torch.equal(seen["blocks.0.resid.post"], halved)
    assert torch.allclose(seen["blocks.1.resid.post"], after, atol=1e-5)
    found = model(ids, positions, packed, taps={"blocks.0.resid.post": lambda values: values + 1})
    assert torch.allclose(found, model.norm(model.layers[1](halved + 1, by, packed)), atol=1e-5)
    with pytest.raises(ConfigError, match=r"^no activation site 'blocks\.0\.mlp\.in' in this model"):
        model(ids, positions, packed, taps={"blocks.0.mlp.in": lambda values: None})
    places = list(model.matrices())
    assert len(places) == 7 and {place.split(".")[1] for place in places} == {"1"}


class OtherRouter(ExpertRouter):
    """Its own way to route, which the compiled step would pass over."""


def test_a_router_an_expert_or_a_gate_of_another_kind_is_the_reason_against_the_compiled_step() -> None:
    def mixture(model: Decoder) -> MixtureOfExperts:
        block = model.layers[1]
        assert isinstance(block, Block) and isinstance(block.mlp, MixtureOfExperts)
        return block.mlp

    def router(model: Decoder) -> None:
        mixture(model).router = OtherRouter(16, EXPERTS)

    def expert(model: Decoder) -> None:
        mixture(model).experts[3] = nn.Identity()

    def half(model: Decoder) -> None:
        mixture(model).router.bfloat16()

    def gate(model: Decoder) -> None:
        mixture(model).shared_gate = nn.Sigmoid()  # type: ignore[assignment]

    def no_gate(model: Decoder) -> None:
        mixture(model).shared_gate = None

    def of_shared(model: Decoder) -> None:
        mixture(model).shared = nn.Identity()  # it is checked with the MLPs of all blocks

    other = "its experts or its router are of another type"
    for change, reason in (
        (no_gate, None), (of_shared, None), (router, other), (expert, other), (half, "its router is not float32 on the CPU"),
        (gate, "the gate of its shared expert is a Sigmoid"),
    ):  # fmt: skip
        model = Decoder(A)
        assert why_experts_not_compiled(model) is None
        change(model)
        assert why_experts_not_compiled(model) == reason
    for changes, reason in (
        ({"score": "sigmoid"}, "its router's score is sigmoid"),
        ({"score": "softmax_of_chosen"}, None),
        ({"num_groups": 2, "groups_per_token": 2}, None),
        ({"num_groups": 2}, "its router chooses 1 of 2 groups"),
        ({"has_bias": True}, "its experts or its router have biases"),
        ({"has_correction": True}, "its experts or its router have biases"),
    ):
        assert why_experts_not_compiled(Decoder(replace(A, experts=replace(EXPERTS, **changes)))) == reason  # type: ignore[arg-type]
    biased = Decoder(replace(A, mlp_bias=True))
    assert why_experts_not_compiled(biased) == "its experts or its router have biases"
    with pytest.raises(AssertionError, match="this architecture has no experts"):
        why_experts_not_compiled(Decoder(replace(A, experts=None)))
    alone = Decoder(replace(A, experts=replace(EXPERTS, shared_width=0, has_shared_gate=False)))
    last = alone.layers[1]
    assert isinstance(last, Block) and mlps_of(last) == list(mixture(alone).experts)


class Sharded:
    """A tensor over several processes, whose gathering may still be under way."""

    def __init__(self, whole: Any):
        self.full_tensor = lambda: whole


class Waiting:
    def __init__(self, values: Tensor):
        self.wait = lambda: values


@torch.no_grad()
def test_adapters_are_attached_by_name_switched_off_for_a_while_and_copied_whole() -> None:
    model = base()
    k = "layers.1.attention.k_proj"
    under = model.get_submodule(k)
    a, b = torch.ones(2, 32), torch.arange(32.0).reshape(16, 2)
    delta = LowRankUpdate(a, b, 0.5)
    adapter = Adapter(
        model.architecture.family, {f"{k}.weight": delta, "lm_head.weight": LowRankUpdate(a, torch.ones(96, 2), 1.0)}
    )  # type: ignore[arg-type]
    assert attach(model, adapter, dropout=0.25) is model
    module = model.get_submodule(k)
    assert isinstance(module, LoRALinear) and module.base is under and module.dropout == 0.25
    assert isinstance(model.lm_head, LoRALinear) and not model.lm_head.base.weight.requires_grad
    changed = [name for name, each in model.named_modules() if isinstance(each, LoRALinear)]
    assert changed == [k, "lm_head"] and module.is_on
    x = torch.ones(1, 32)
    model.eval()
    assert torch.allclose(module(x) - under(x), 0.5 * 32 * b.sum(1)[None], atol=1e-3)
    with adapters_off(model):
        assert torch.equal(module(x), under(x)) and not model.lm_head.is_on
    assert module.is_on and model.lm_head.is_on
    copy = module.update()
    module.a.zero_()
    assert torch.equal(copy.a, torch.ones(2, 32)) and copy.magnitude is None and copy.scale == 0.5
    assert not has_magnitudes(adapter)
    mixed = Adapter(adapter.path, {**adapter.deltas, "x": replace(delta, magnitude=torch.ones(16))})
    assert has_magnitudes(mixed) and not has_magnitudes(Adapter(adapter.path, {}))
    with pytest.raises(ConfigError) as told:
        attach(model, adapter)
    assert str(told.value) == f"{k}.weight is a LoRALinear: attach adapters to a model that has none"
    values = nn.Parameter(torch.arange(3.0))
    assert whole_tensor(values).tolist() == [0.0, 1.0, 2.0] and not whole_tensor(values).requires_grad
    for sharded in (Sharded(values), Sharded(Waiting(values))):
        found = whole_tensor(sharded)  # type: ignore[arg-type]
        assert found.tolist() == [0.0, 1.0, 2.0] and not found.requires_grad


@torch.no_grad()
def test_a_chunk_that_wants_no_row_fills_the_cache_and_logits_without_a_cap_are_plain_products() -> None:
    pytest.importorskip("numba")
    from firsthand.kernels.attention.kv_pages import Layout, PackedChunk
    from firsthand.nn.compiled_decoder import Cache, CompiledDecoder

    a = Architecture(
        "llama", 48, 16, 16, 1, 1, num_kv_heads=1, head_dim=16, max_position=64, norm_eps=1e-5, windows=(None,),
        ropes=(Rope(),), tie_embeddings=True,
    )  # fmt: skip
    model = initialise(Decoder(a), seed=2, std=0.5)
    compiled = CompiledDecoder(model, threads=3)
    cache = Cache.empty(a, 3, 16, torch.float32, torch.device("cpu"))
    ids = [(5 * at + 2) % 48 for at in range(18)]
    whole = model(torch.tensor(ids), torch.arange(18), Packed([18]))
    first = compiled.hidden(ids[:17], Layout([PackedChunk(0, 17, [2, 0])], 16), cache, [])
    assert first.shape == (0, 16)
    last = compiled.hidden(ids[17:], Layout([PackedChunk(17, 18, [2, 0])], 16), cache, [0])
    assert torch.allclose(torch.from_numpy(last), whole[17:], atol=1e-4)
    few, many = whole[:2].numpy(), whole[2:7].numpy()
    for hidden in (few, many, few):
        found = compiled.logits(hidden)
        scores = torch.from_numpy(hidden) @ model.embed.weight.T
        assert found.values.shape == (len(hidden), 48) and torch.allclose(found.values, scores, atol=1e-4)
        assert found.best == scores.argmax(1).tolist() and len(found.best) == len(found.normalisers) == len(hidden)
        assert torch.allclose(torch.from_numpy(found.normalisers), scores.logsumexp(1), atol=1e-4)
        assert [row.logprob(3) for row in found.rows()] == pytest.approx(scores.log_softmax(1)[:, 3].tolist(), abs=1e-3)
    assert len(compiled._logits) == 5 * 48 and compiled._angles == 1024
    wide = Cache.empty(a, 65, 16, torch.float32, torch.device("cpu"))
    for position, angles in ((1023, 1024), (1024, 2048)):
        compiled.hidden([3], Layout([PackedChunk(position, position + 1, list(range(65)))], 16), wide, [0])
        assert compiled._angles == angles


@torch.no_grad()
def test_rows_with_an_adapter_beside_blocks_of_8_bits_have_the_states_of_the_modules() -> None:
    pytest.importorskip("numba")
    from firsthand.kernels.attention.kv_pages import Layout, PackedChunk
    from firsthand.nn.compiled_decoder import Cache, CompiledDecoder
    from firsthand.nn.quant import pack

    a = Architecture(
        "llama", 40, 32, 64, 2, 2, num_kv_heads=1, head_dim=16, max_position=64, norm_eps=1e-5, windows=(None, None),
        ropes=(Rope(), Rope()), tie_embeddings=False, qkv_bias=True,
    )  # fmt: skip
    model = initialise(Decoder(a), seed=2, std=0.2)
    generator = torch.Generator().manual_seed(7)
    deltas = {
        f"{name}.weight": LowRankUpdate(
            0.3 * torch.randn(4, module.in_features, generator=generator),
            0.3 * torch.randn(module.out_features, 4, generator=generator),
            1.5,
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.endswith("v_proj")
    }
    pack(model, "int8")
    adapter = Adapter(Path("red"), deltas)
    tiles, matrices = (pack_adapter(adapter, model, tiles_of=mode) for mode in ("int8", None))  # type: ignore[arg-type]
    ids, positions, packed = torch.tensor([3, 7, 1, 19, 30, 2]), torch.arange(6), Packed([6])
    apart, beside = model(ids, positions, packed), ModuleSpans(model)
    with beside.over([AdapterSpan(2, 5, matrices)]):
        states = model(ids, positions, packed)
    with beside.over([AdapterSpan(1, 2, matrices)]):
        scores = model.logits(states)
    assert float((states - apart).abs().max()) > 1
    compiled = CompiledDecoder(model)
    cache = Cache.empty(a, 1, 16, torch.float32, torch.device("cpu"))
    layout = Layout([PackedChunk(0, 6, [0])], 16)
    found = compiled.hidden(ids.tolist(), layout, cache, range(6), spans=[AdapterSpan(2, 5, tiles)])
    assert float((torch.from_numpy(found) - states).abs().mean()) < 0.02
    logits = compiled.logits(states.numpy(), [AdapterSpan(1, 2, tiles)])
    assert float((logits.values - scores).abs().mean()) < 0.02
    plain = compiled.hidden(ids.tolist(), layout, cache, range(6))
    assert float((torch.from_numpy(plain) - apart).abs().mean()) < 0.02
