"""Weights on their way: spread over processes, and sent to a sampler whole, merged or as an adapter."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn

from firsthand.nn.lora import Adapter, LoRALinear, attach
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import fresh_adapter, merged_state, with_adapter
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.samplers import POLICY, EngineSampler, weights_digest
from firsthand.train.sharding import (
    anchor,
    clip_sharded,
    is_sharded,
    like,
    load_whole,
    passes_of_rank,
    sharded,
    spread_state,
    whole_state,
)
from train_tiny import model

SETTINGS = OptimizerSettings(lr=0.01)


# -- sharding in one process --


@contextmanager
def processes(rank: int, count: int) -> Iterator[None]:
    """This process is one of several; torch's fake group sends nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=rank, world_size=count, store=FakeStore())
    try:
        yield
    finally:
        distributed.destroy_process_group()


def test_each_process_makes_every_nth_pass_and_as_many_as_the_others() -> None:
    assert passes_of_rank("abc", in_parts=False) == [("a", "whole"), ("b", "whole"), ("c", "whole")]
    assert passes_of_rank("ab", in_parts=True) == [("a", "anchored"), ("b", "anchored")]
    with processes(1, 3):
        assert passes_of_rank("abcde", in_parts=False) == [("b", "whole"), ("e", "whole")]
        assert passes_of_rank("abcd", in_parts=True) == [("b", "anchored"), ("a", "idle")]
        assert passes_of_rank("abcde", in_parts=True) == [("b", "anchored"), ("e", "anchored")]
        assert passes_of_rank("a", in_parts=True) == [("a", "idle")]


def test_in_one_process_nothing_is_spread_and_an_anchor_reaches_every_weight_with_zeros() -> None:
    made = model()
    assert sharded(made) is made and not is_sharded(made)
    state = whole_state(made)
    assert state.keys() == made.state_dict().keys() and all(
        torch.equal(state[k], v) for k, v in made.state_dict().items()
    )
    row = torch.ones(2)
    assert like(row, torch.zeros(2)) is row
    hidden = torch.randn(3, made.architecture.hidden_size, requires_grad=True)
    value = anchor(made, hidden)
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == 0.0 and hidden.grad is not None and hidden.grad.abs().sum() == 0
    assert made.lm_head.weight.grad is not None
    other = model(seed=5)
    load_whole(other, {"embed.weight": made.embed.weight.detach() + 1})
    assert torch.equal(other.embed.weight, made.embed.weight + 1)
    layer = nn.Linear(2, 2)
    entries = {"state": {0: {"mean": torch.ones(2, 2), "step": torch.tensor(3.0), "n": 4}}, "param_groups": ["g"]}
    spread = spread_state(entries, [layer.weight])
    assert spread["param_groups"] == ["g"] and spread["state"][0]["n"] == 4
    assert torch.equal(spread["state"][0]["mean"], torch.ones(2, 2)) and float(spread["state"][0]["step"]) == 3.0


def test_gradients_are_clipped_to_the_norm_of_all_of_them() -> None:
    def weights(*gradients: list[float] | None) -> list[Tensor]:
        made = []
        for each in gradients:
            weight = torch.zeros(2, requires_grad=True)
            weight.grad = None if each is None else torch.tensor(each)
            made.append(weight)
        return made

    with processes(0, 2):
        given = weights([3.0, 0.0], None, [0.0, 4.0])
        assert clip_sharded(given, 1.0) == pytest.approx(5.0)
        assert [each.grad.tolist() for each in given if each.grad is not None] == [
            pytest.approx([0.6, 0.0], abs=1e-5), pytest.approx([0.0, 0.8], abs=1e-5),
        ]  # fmt: skip
        for bound in (5.1, 0.0):  # 0 is no bound
            given = weights([3.0, 4.0])
            assert clip_sharded(given, bound) == pytest.approx(5.0) and given[0].grad.tolist() == [3.0, 4.0]  # type: ignore[union-attr]
        given = weights([float("nan"), 1.0])
        assert not np.isfinite(clip_sharded(given, 1.0)) and given[0].grad[1] == 1.0  # type: ignore[index]


# -- samplers --


class Told:
    """Stands for an engine's model: keeps what it is given."""

    name = fingerprint = "told"

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def expect_adapter(self, name: str) -> str:
        self.calls.append(("expect", name))
        return f"with {name}"

    async def update(self, state: Mapping[str, Tensor], version: int) -> None:
        self.calls.append(("weights", version, {name: value.detach().clone() for name, value in state.items()}))

    async def update_adapter(self, name: str, adapter: Adapter, version: int) -> None:
        self.calls.append(("adapter", name, version, sorted(adapter.deltas)))


def sent(policy: Any, *versions: int) -> tuple[EngineSampler, list[Any]]:
    told = Told()
    sampler = EngineSampler(told, policy)  # type: ignore[arg-type]
    for version in versions:
        asyncio.run(sampler.send(version))
    return sampler, told.calls


def adapted(kind: str, **more: Any) -> Any:
    agents = more.pop("agents", ())
    settings = AdapterSettings(adapter=kind, rank=2, targets=("q_proj",), **more)  # type: ignore[arg-type]
    return with_adapter(model(), settings, seed=0, agents=agents, verbose=False)


def test_a_policy_is_sent_as_weights_or_as_its_adapter_beside_them() -> None:
    policy = model()
    sampler, calls = sent(policy, 3)
    assert sampler.model is sampler.local and [each[:2] for each in calls] == [("weights", 3)]
    assert calls[0][2].keys() == policy.state_dict().keys()
    names = [f"layers.{layer}.attention.q_proj.weight" for layer in (0, 1)]
    sampler, calls = sent(adapted("lora"), 4, 5)
    found = [("adapter", POLICY, version) for version in (4, 5)]
    assert sampler.model == f"with {POLICY}" and calls[0] == ("expect", "policy")
    assert [each[:3] for each in calls[1:]] == found
    assert all(len(each[3]) == 2 and each[3][0].endswith("q_proj.weight") for each in calls[1:]) and len(names) == 2


def test_an_adapter_that_cannot_stand_beside_is_merged_and_a_rounded_base_is_sent_once() -> None:
    policy = adapted("dora")
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, LoRALinear):
                module.b.fill_(0.5)
    sampler, calls = sent(policy, 7)
    assert sampler.model is sampler.local and [each[:2] for each in calls] == [("weights", 7)]
    merged = merged_state(policy)
    assert calls[0][2].keys() == merged.keys() and all(torch.equal(calls[0][2][k], merged[k]) for k in merged)
    rounded = adapted("lora", base_weights="nf4")
    with torch.no_grad():
        for module in rounded.modules():
            if isinstance(module, LoRALinear):
                module.b.fill_(0.5)
    _, calls = sent(rounded, 8, 9)
    base, merged = merged_state(rounded, adapted=False), merged_state(rounded)
    assert calls[1][2].keys() == base.keys() and all(torch.equal(calls[1][2][k], base[k]) for k in base)
    assert {k for k in base if not torch.equal(base[k], merged[k])} == set(calls[2][3]), (
        "the adapter goes beside it alone"
    )
    assert [each[:2] if each[0] == "weights" else each[:3] for each in calls[1:]] == [
        ("weights", 0), ("adapter", POLICY, 8), ("adapter", POLICY, 9),
    ]  # fmt: skip


def test_magnitudes_in_one_layer_of_several_are_enough_to_merge_the_adapter() -> None:
    for layers in ((0,), (1,), (0, 1)):
        policy = model()
        fresh = fresh_adapter(policy, LoRAConfig(kind="dora", rank=2, targets=("q_proj",)))
        deltas = {
            name: update if int(name.split(".")[1]) in layers else replace(update, magnitude=None)
            for name, update in fresh.deltas.items()
        }
        sampler, calls = sent(attach(policy, Adapter(fresh.path, deltas)), 1, 2)
        assert sampler.model is sampler.local, "no adapter is expected"
        assert [each[:2] for each in calls] == [("weights", 1), ("weights", 2)]


def test_each_agents_adapter_is_sent_under_its_name() -> None:
    sampler, calls = sent(adapted("lora", agents=("lead", "aide")), 2)
    assert calls[:2] == [("expect", "lead"), ("expect", "aide")]
    assert [each[:3] for each in calls[2:]] == [("adapter", "lead", 2), ("adapter", "aide", 2)]
    assert sampler.model.views == {"lead": "with lead", "aide": "with aide"}  # type: ignore[attr-defined]


def test_a_digest_of_weights_is_of_names_and_bytes_of_what_is_trained() -> None:
    layer: Any = nn.Linear(2, 1)
    expected = hashlib.blake2b(digest_size=16)
    for name in ("weight", "bias"):
        expected.update(name.encode() + getattr(layer, name).detach().numpy().tobytes())
    assert weights_digest(layer) == expected.hexdigest()
    layer.bias.requires_grad_(False)
    assert weights_digest(layer) != expected.hexdigest()
