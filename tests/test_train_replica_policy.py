"""Rollouts on replicas: they take the weights in training, all of them or none, and sample what one engine would."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny
from firsthand import catalog
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.in_process import InProcessStarter
from firsthand.cluster.replicas.replica_worker import Replica, open_replica
from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.config import build
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelFileError, TransientError
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.providers.local import Local
from firsthand.rollout import Place, rollouts
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import add_lora
from firsthand.train.reinforcement import open_agent
from firsthand.train.replica_policy import ReplicaPolicy, replica_settings
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.samplers import EngineSampler
from firsthand.train.training_run import opened, read_metrics
from test_train_reinforcement import OWN

CONFIG = EngineConfig(weights="float32", kv_cache="float32", kv_memory_bytes=1 << 22, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    (place / "own.py").write_text(OWN)
    return tiny.write_model(place / "tiny", max_position=1024)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 100))


def replicas_of(folder: Path, count: int = 2) -> ReplicatedModel:
    starter = InProcessStarter(lambda: Replica(Local(folder, config=CONFIG, free_calls=True)))
    return ReplicatedModel(Fleet(starter, count), "tiny")


def changed(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the model's names and shapes, and other values."""
    torch.manual_seed(1)
    state = weights.load(folder).state_dict()
    return {name: value + 0.1 * torch.randn_like(value) for name, value in state.items()}


async def by_each(model: ReplicatedModel) -> list[Any]:
    """The likelihoods by each replica, asked apart."""
    body = {"method": "score", "prompt": "What", "continuations": [" is"], "adapter": None}
    return [(await model.fleet.call(body, slot=slot))["likelihoods"] for slot in model.fleet.slots]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True])
def test_replicas_sample_what_the_engine_in_the_trainer_s_process_samples(
    folder: Path, tmp_path: Path, adapter: bool
) -> None:
    policy = weights.load(folder)
    if adapter:
        policy = add_lora(policy, LoRAConfig(rank=4))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    settings = RolloutSettings(model=str(folder), temperature=0.8, top_k=40, max_tokens=6)
    local, agent = open_agent(folder, settings)
    benchmark = catalog.benchmark(str(folder.parent / "own.py"))

    async def made(sampler: EngineSampler) -> dict[str, Any]:
        await sampler.send(3)
        one = replace(agent, model=sampler.model)
        places = [Place(one, benchmark, task, epoch) for task in benchmark.tasks(0) for epoch in range(2)]
        found = [trace async for trace in rollouts(places, seed=5)]
        return {f"{trace.task_id} {trace.epoch}": [node.message.sampled for node in trace.nodes] for trace in found}

    async def both() -> None:
        replicas = ReplicaPolicy(replicas_of(folder), policy, tmp_path, AdapterSettings(adapter="lora", rank=4))
        alone, spread = await made(EngineSampler(local, policy)), await made(EngineSampler(replicas, policy))
        assert len(alone) == 12 and spread == alone
        await replicas.replicas.counters()  # of each slot too
        answered = [slot.counters["requests"] for slot in replicas.replicas.fleet.slots]
        assert min(answered) > 3  # warm-up asks thrice
        replicas.close()

    run(both())
    local.close()


@pytest.mark.slow
def test_new_weights_are_in_every_replica_and_in_one_that_comes_back(folder: Path, tmp_path: Path) -> None:
    async def work() -> None:
        model = replicas_of(folder)
        await model.load()
        before, old = await by_each(model), model.fingerprint
        save_file(changed(folder), tmp_path / "new.safetensors")
        await model.load_weights(tmp_path / "new.safetensors", 1)
        after = await by_each(model)
        assert before[0] == before[1] and after[0] == after[1] and after[0] != before[0]
        assert model.fingerprint != old
        sampled = (await model.complete("What", Sampling(max_tokens=2)))[0].message.sampled
        assert sampled is not None and sampled.versions == (1, 1)
        lost = model.fleet.slots[0]
        lost.process.close()  # type: ignore[union-attr]
        while lost.restarts == 0 or lost.state != "ready":
            await asyncio.sleep(0.01)
        assert await by_each(model) == after
        model.close()

    run(work())


@pytest.mark.slow
def test_weights_that_do_not_fit_change_no_replica(folder: Path, tmp_path: Path) -> None:
    async def work() -> None:
        model = replicas_of(folder)
        await model.load()
        before = await by_each(model)
        state = changed(folder)
        save_file({name: value for name, value in list(state.items())[1:]}, tmp_path / "few.safetensors")
        with pytest.raises(ConfigError):
            await model.load_weights(tmp_path / "few.safetensors", 1)
        save_file(state, tmp_path / "cut.safetensors")
        (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
        with pytest.raises(ModelFileError, match="no whole safetensors file"):
            await model.load_weights(tmp_path / "cut.safetensors", 1)
        with pytest.raises(ModelFileError, match="cannot be read"):
            await model.load_weights(tmp_path / "none.safetensors", 1)
        assert await by_each(model) == before and model.weights.loaded is None
        model.close()

    run(work())


@pytest.mark.slow
def test_a_replica_that_refuses_what_the_others_took_is_replaced(folder: Path, tmp_path: Path) -> None:
    class Full(Local):
        """A model that cannot take weights once."""

        refusals = 1

        async def update(self, *arguments: Any, **options: Any) -> None:
            if Full.refusals:
                Full.refusals -= 1
                raise ModelFileError("no room for them")
            await super().update(*arguments, **options)

    async def work() -> None:
        model = ReplicatedModel(Fleet(InProcessStarter(lambda: Replica(Full(folder, config=CONFIG))), 2), "tiny")
        await model.load()
        save_file(changed(folder), tmp_path / "new.safetensors")
        await model.load_weights(tmp_path / "new.safetensors", 1)
        while sum(slot.restarts for slot in model.fleet.slots) == 0 or any(
            s.state != "ready" for s in model.fleet.slots
        ):
            await asyncio.sleep(0.01)
        one, other = await by_each(model)
        assert one == other
        assert model.weights.loaded is not None and model.weights.loaded.version == 1
        model.close()

    run(work())


def test_a_fleet_without_replicas_takes_no_weights(folder: Path, tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(TransientError, match="no replica is there to load the weights"):
            await replicas_of(folder).load_weights(tmp_path / "new.safetensors", 1)

    run(work())


def test_replicas_compute_as_the_engine_does_and_have_a_gpu_each(folder: Path) -> None:
    found = replica_settings(folder, replace(CONFIG, max_sequences=7))
    assert found["model"] == str(folder) and found["free_calls"]
    assert found["engine"] == {
        "weights": "float32", "kv_cache": "float32", "kv_memory_bytes": 1 << 22, "threads": 1, "max_sequences": 7
    }  # fmt: skip
    replica = open_replica(found | {"neighbours": 1})
    assert isinstance(replica.model, Local) and replica.model.free_calls
    assert replica.model.config == replace(CONFIG, max_sequences=7)
    on_gpu = replica_settings(folder, replace(CONFIG, device="cuda:1"))["engine"]
    assert on_gpu["device"] == "cuda" and "kv_memory_bytes" not in on_gpu


@pytest.mark.parametrize("sampler", ["ray", "ray:0", "ray:x", "ray:2@", "workers:2", "openai:tiny"])
def test_a_sampler_that_is_none_is_one_sentence(sampler: str) -> None:
    with pytest.raises(ConfigError, match=r"sampler is .*: give local, ray:N"):
        RolloutSettings(sampler=sampler)


@pytest.mark.slow
def test_a_policy_is_trained_on_rollouts_of_ray_workers_to_the_digit(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    module = importlib.import_module("firsthand.train.recipes.grpo")

    def trained(sampler: str, out: Path) -> list[dict[str, float]]:
        values = {
            "benchmark": str(folder.parent / "own.py"), "model": str(folder), "prompts": 2, "group_size": 4,
            "max_tokens": 5, "steps": 3, "lr": 1e-3, "temperature": 0.9, "sampler": sampler,
        }  # fmt: skip
        config = build(module.Config, values)
        with opened(out, "grpo", config) as run:
            module.grpo(config, run)
        return read_metrics(out)

    alone, spread = trained("local", tmp_path / "alone"), trained("ray:2", tmp_path / "spread")
    compared = ("loss", "reward", "sampler_gap", "grad_norm", "answer_tokens")
    assert [[row[name] for name in compared] for row in alone] == [[row[name] for name in compared] for row in spread]
    assert not (tmp_path / "spread" / "sampler" / "process-0").exists()
