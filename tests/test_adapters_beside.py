"""Adapters beside the weights: packed once, in spans of a step's rows, and one for each agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from firsthand.errors import ConfigError
from firsthand.nn.batched_lora import (
    COLUMNS,
    AdapterSpan,
    ModuleSpans,
    PackedAdapter,
    SpanCompiler,
    _place,
    pack_adapter,
)
from firsthand.nn.lora import Adapter, LoRALinear, LowRankUpdate, attach
from firsthand.nn.routed_lora import RoutedLinear, adapters_off, agents_of, attach_agents, choose
from lora_tiny import base

OURS = "layers.1.attention.k_proj.weight"


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def adapter_of(model: nn.Module, *places: str, seed: int = 0, rank: int = 3, scale: float = 1.5) -> Adapter:
    deltas = {}
    for at, place in enumerate(places):
        outputs, inputs = model.get_submodule(place).weight.shape  # type: ignore[misc, union-attr]
        deltas[f"{place}.weight"] = LowRankUpdate(
            numbers(rank + at, inputs, seed=seed),
            numbers(outputs, rank + at, seed=seed + 1),
            scale,  # type: ignore[arg-type]
        )
    return Adapter(Path("red"), deltas)


K, HEAD = "layers.1.attention.k_proj", "lm_head"


def test_a_packed_adapter_has_its_scale_in_b_and_an_entry_for_each_matrix_that_it_changes() -> None:
    model = base()
    adapter = adapter_of(model, K, HEAD)
    first, second = adapter.deltas.values()
    assert [_place(name, model.architecture) for name in (HEAD, K, "layers.0.mlp.down_proj")] == [
        (2, 0),
        (1, 1),
        (0, 6),
    ]
    assert len(COLUMNS) == 7
    modules = pack_adapter(adapter, model, tiles_of=None)
    assert (modules.rank, modules.tiles, modules.entries.any(), list(modules.matrices)) == (4, {}, False, [K, HEAD])
    a, b = modules.matrices[K]
    assert torch.equal(a, first.a) and torch.equal(b, 1.5 * first.b)
    assert modules.size_bytes == 4 * (3 * 32 + 16 * 3 + 4 * 32 + 96 * 4)
    assert modules.pair("layers.0.attention.k_proj") is None and modules.pair(K) is modules.matrices[K]
    half = pack_adapter(adapter, model.to(torch.bfloat16), tiles_of=None)
    assert half.matrices[K][0].dtype == torch.bfloat16 and half.size_bytes == modules.size_bytes // 2
    model = base()
    for mode, dtype in (("float16", np.float16), ("float32", np.float32), ("int8", np.float16)):
        packed = pack_adapter(adapter, model, tiles_of=mode)  # type: ignore[arg-type]
        assert packed.matrices == {} and packed.entries.shape == (3, 7, 2, 5) and packed.rank == 4
        assert {each.memory.dtype for pair in packed.tiles.values() for each in pair} == {np.dtype(dtype)}
        assert packed.entries[1, 1].tolist() == [each.entry() for each in packed.tiles[K]]
        assert packed.entries[2, 0].tolist() == [each.entry() for each in packed.tiles[HEAD]]
        assert packed.entries.any((-1, -2)).sum() == 2
        pair = packed.pair(K)
        assert pair is not None and torch.allclose(pair[0], first.a, rtol=1e-3)
        assert torch.allclose(pair[1], 1.5 * first.b, rtol=1e-3)
        assert packed.size_bytes == sum(each.memory.nbytes for pair in packed.tiles.values() for each in pair) > 0
    for where, value in (("a", -70_000.0), ("a", 70_000.0), ("b", 50_000.0), ("b", -50_000.0)):  # b is scaled by 1.5
        large = replace(first, **{where: torch.full_like(getattr(first, where), value)})
        packed = pack_adapter(Adapter(Path("x"), {OURS: large, "lm_head.weight": second}), model, tiles_of="float16")
        assert [packed.tiles[name][0].memory.dtype for name in (K, HEAD)] == [np.float32, np.float16]
    dora = Adapter(Path("blue"), {OURS: replace(first, magnitude=torch.ones(16))})
    with pytest.raises(ConfigError, match=r"^blue is a DoRA adapter, .* as MODEL\+lora:blue$"):
        pack_adapter(dora, model, tiles_of=None)


def test_spans_are_cut_into_pieces_and_each_adapter_keeps_its_number_until_it_is_forgotten() -> None:
    def packed(rank: int, mark: int) -> PackedAdapter:
        return PackedAdapter({}, np.full((3, 7, 2, 5), mark, dtype=np.int64), {}, rank, 0)

    red, green = packed(5, 1), packed(17, 2)
    compiler = SpanCompiler(2)
    empty = compiler([])
    assert (empty.pieces.shape, empty.entries.shape, empty.rank) == ((0, 3), (3, 0, 7, 2, 5), 16)
    found = compiler([AdapterSpan(2, 35, green), AdapterSpan(40, 41, red), AdapterSpan(41, 57, green)])
    assert found.pieces.tolist() == [[2, 18, 0], [18, 34, 0], [34, 35, 0], [40, 41, 1], [41, 57, 0]]
    assert (found.rank, found.entries.shape, found.entries[0, :, 0, 0, 0].tolist()) == (32, (3, 2, 7, 2, 5), [2, 1])
    again = compiler([AdapterSpan(0, 3, red)])
    assert (again.pieces.tolist(), again.rank, again.entries is found.entries) == ([[0, 3, 1]], 16, True)
    compiler.forget()
    after = compiler([AdapterSpan(0, 3, red)])
    assert (after.pieces.tolist(), after.entries[0, :, 0, 0, 0].tolist()) == ([[0, 3, 0]], [1])
    compiler.forget()
    assert compiler([]).entries.shape == (3, 0, 7, 2, 5)


def test_rows_of_a_span_get_the_update_of_their_adapter_and_no_others_do() -> None:
    model = base()
    spans = ModuleSpans(model)
    packed = pack_adapter(adapter_of(model, K, HEAD), model, tiles_of=None)
    other = pack_adapter(adapter_of(model, K, seed=7), model, tiles_of=None)
    x = numbers(6, 32, seed=4)
    module, head = model.get_submodule(K), model.lm_head
    with torch.no_grad():
        plain, of_head = module(x), head(x)
        with spans.over([AdapterSpan(1, 3, packed), AdapterSpan(5, 6, other)]):
            found, head_found = module(x), head(x)
        with pytest.raises(KeyError), spans.over([AdapterSpan(0, 6, packed)]):
            raise KeyError
        assert torch.equal(module(x), plain)
        for rows, each in ((slice(1, 3), packed), (slice(5, 6), other)):
            a, b = each.matrices[K]
            assert torch.allclose(found[rows], plain[rows] + x[rows] @ a.T @ b.T, atol=1e-4)
        assert torch.equal(found[[0, 3, 4]], plain[[0, 3, 4]]) and torch.equal(head_found[3:], of_head[3:])
        assert not torch.allclose(head_found[1:3], of_head[1:3])


def test_one_agent_s_adapter_is_on_at_a_time_and_all_may_be_off_for_a_while() -> None:
    model = base()
    x = numbers(2, 32, seed=4)
    under = model.get_submodule(K)
    with torch.no_grad():
        plain = under(x)
        agents = {name: adapter_of(model, K, HEAD, seed=seed) for name, seed in (("red", 1), ("blue", 5))}
        expected = {
            name: plain + 1.5 * x @ each.deltas[OURS].a.T @ each.deltas[OURS].b.T for name, each in agents.items()
        }
        assert agents_of(model) == () and attach_agents(model, agents) is model
        routed = model.get_submodule(K)
        assert isinstance(routed, RoutedLinear) and routed.base is under and agents_of(model) == ("red", "blue")
        assert routed.chosen == "red" and torch.allclose(routed(x), expected["red"], atol=1e-4)
        assert torch.equal(routed.adapter("blue").a, agents["blue"].deltas[OURS].a)
        choose(model, "blue")
        assert torch.allclose(routed(x), expected["blue"], atol=1e-4) and model.lm_head.chosen == "blue"
        with pytest.raises(ConfigError, match=r"^no agent 'green' has an adapter: there are red, blue$"):
            choose(model, "green")
        with pytest.raises(KeyError), adapters_off(model):
            assert torch.equal(routed(x), plain) and model.lm_head.chosen is None
            assert not routed.adapter("red").is_on
            raise KeyError
        assert (routed.chosen, model.lm_head.chosen) == ("blue", "blue")
        routed.adapter("red").is_on = False
        with adapters_off(model):
            pass
        assert (routed.adapter("red").is_on, routed.adapter("blue").is_on) == (False, True)
    with pytest.raises(
        ConfigError, match=f"^{HEAD}.weight is a RoutedLinear: attach adapters to a model that has none$"
    ):
        attach_agents(model, {"red": Adapter(Path("a"), {"lm_head.weight": agents["red"].deltas["lm_head.weight"]})})
    with pytest.raises(ConfigError, match="is a RoutedLinear: attach adapters to a model that has none"):
        attach(model, agents["red"])
    fewer = Adapter(Path("a"), {OURS: agents["red"].deltas[OURS]})
    with pytest.raises(
        ConfigError, match=r"^the adapters of red, blue change different matrices: give them equal targets$"
    ):
        attach_agents(base(), {"red": fewer, "blue": agents["blue"]})
    with pytest.raises(ConfigError, match=r"^an agent's name cannot be used \(.*\): give it another one$"):
        attach_agents(base(), {"a.b": fewer})
    one = attach(base(), fewer, dropout=0.25).get_submodule(K)
    assert isinstance(one, LoRALinear) and one.dropout == 0.25
