"""Endpoints and replicas that a policy sends its weights to, and what they must answer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from firsthand.cluster.replicas import ray_replicas
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelError, TrainingError
from firsthand.message import Message, Sampled, Text
from firsthand.model import Completion, Delta, Sampling, Usage
from firsthand.nn.lora import LoRALinear
from firsthand.providers.agents import AgentsModel
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_training import adapter_of, with_adapter
from firsthand.train.endpoint_sampler import EndpointPolicy, EndpointSampler
from firsthand.train.replica_policy import ReplicaPolicy, open_on_ray, replica_settings
from train_tiny import model

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


def drawn_adapters(decoder: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for module in decoder.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.b, std=0.1)
    return decoder


class Answers:
    """An inner model that keeps what it was asked."""

    name, fingerprint = "there", "url there"

    def __init__(self, *completions: Completion):
        self.completions, self.asked = completions, []

    async def complete(self, prompt: Any, sampling: Any, *, tools: Sequence[Any] = (), n: int = 1) -> list[Completion]:
        self.asked.append((prompt, sampling, tools, n))
        return list(self.completions)

    async def stream(self, prompt: Any, sampling: Any, *, tools: Sequence[Any] = ()) -> AsyncIterator[Delta]:
        self.asked.append((prompt, sampling, tools))
        yield Delta("a")
        yield Delta("", self.completions[0])

    async def score(self, prompt: Any, continuations: Sequence[str]) -> Any:
        return prompt, tuple(continuations)


def completion(sampled: Sampled | None, prompt_ids: tuple[int, ...] | None = (1, 2)) -> Completion:
    return Completion(Message("assistant", (Text("a"),), sampled), "stop", Usage(), prompt_ids=prompt_ids)


def test_answers_of_an_endpoint_need_ids_and_log_probs_which_are_those_of_what_was_sampled() -> None:
    sampled = Sampled((5, 6), (-0.5, -0.25))
    inner = Answers(completion(sampled), completion(replace(sampled, token_ids=(7, 8))))
    policy = EndpointPolicy(inner)  # type: ignore[arg-type]
    found = asyncio.run(policy.complete("q", Sampling(), tools=("t",), n=2))  # type: ignore[arg-type]
    assert [each.message.sampled for each in found] == [
        Sampled((5, 6), (-0.5, -0.25), (-0.5, -0.25)), Sampled((7, 8), (-0.5, -0.25), (-0.5, -0.25))
    ]  # fmt: skip
    assert found[0].message.sampled.behaviour_logprobs == (-0.5, -0.25) and found[0].prompt_ids == (1, 2)

    async def streamed() -> list[Delta]:
        return [each async for each in policy.stream("q", Sampling(), tools=("u",))]  # type: ignore[arg-type]

    first, last = asyncio.run(streamed())
    assert first == Delta("a") and last.completion.message.sampled.behaviour_logprobs == (-0.5, -0.25)
    assert inner.asked == [("q", Sampling(), ("t",), 2), ("q", Sampling(), ("u",))]
    assert asyncio.run(policy.score("q", ["x"])) == ("q", ("x",)) and (policy.name, policy.fingerprint) == (
        "there",
        "url there",
    )
    for given, missing in (
        (completion(None), "log-probs or token ids"),
        (completion(sampled, None), "prompt_token_ids"),
    ):
        with pytest.raises(ModelError) as refused:
            asyncio.run(EndpointPolicy(Answers(given)).complete("q", Sampling()))  # type: ignore[arg-type]
        assert str(refused.value) == (
            f"there returned no {missing}: rollouts to train on need an endpoint that answers `return_token_ids`, such as "
            "`firsthand serve` or vLLM"
        )


@pytest.fixture
def server() -> Iterator[Any]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.asked.append((self.path, body, self.headers.get("Authorization")))
            status, text = made.replies[min(len(made.asked), len(made.replies)) - 1]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *given: Any) -> None:
            pass

    made: Any = HTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.replies = [], [(200, "ok")]
    thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.slow
def test_an_endpoint_loads_every_adapter_in_place_before_a_batch(
    home: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lora, url = AdapterSettings("lora", rank=2), f"http://127.0.0.1:{server.server_port}/v1"
    routed = drawn_adapters(with_adapter(model(), lora, seed=0, agents=("lead", "the worker"), verbose=False))
    sampler = EndpointSampler(f"openai:org/base@x@{url}/", routed, home / "my run", lora)
    assert sampler.names == {"lead": "my-run.lead", "the worker": "my-run.the-worker"}
    assert (sampler.base, sampler.url, sampler.folder) == ("org/base@x", url, home / "my run" / "sampler")
    assert isinstance(sampler.model, AgentsModel)
    asyncio.run(sampler.send(3))
    places = [home / "my run" / "sampler" / name for name in ("my-run.lead", "my-run.the-worker")]
    assert server.asked == [
        ("/v1/load_lora_adapter", {"lora_name": each.name, "lora_path": str(each), "load_inplace": True}, None)
        for each in places
    ]  # fmt: skip
    for place, agent in zip(places, ("lead", "the worker"), strict=True):
        tensors = load_file(place / "adapter_model.safetensors")
        own = adapter_of(routed, agent=agent).deltas["layers.0.attention.q_proj.weight"].b
        assert torch.equal(tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"], own)
        assert json.loads((place / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base@x"
    monkeypatch.setenv("OPENAI_API_KEY", " key ")
    server.asked.clear()
    for reply, told in (
        ((400, '{"error": {"message": "no such folder"}}'), "status 400: no such folder"),
        ((404, '{"detail": "gone"}'), "status 404: {'detail': 'gone'}"), ((500, "[1]"), "status 500: [1]"),
        ((422, json.dumps({"error": {"message": "y" * 400}})), f"status 422: {'y' * 300}"),
        ((503, "x" * 400), f"status 503: {'x' * 300}"), ((201, "made"), "status 201: made"),
    ):  # fmt: skip
        server.replies = [reply]
        with pytest.raises(TrainingError) as refused:
            asyncio.run(sampler.send(7))
        assert str(refused.value) == (
            f"{url} did not load the adapter of step 7 ({told}): serve the base with `--adapter-root` above the run's "
            "folder, or vLLM with runtime LoRA updating"
        )
    assert [each[2] for each in server.asked] == ["Bearer key"] * 6, "after the first refusal nothing more is sent"
    single = EndpointSampler(
        "openai:b@http://127.0.0.1:9/v1", with_adapter(model(), lora, seed=0, verbose=False), home, lora
    )
    assert isinstance(single.model, EndpointPolicy) and single.names == {"": home.name}
    with pytest.raises(TrainingError, match=r"did not load the adapter of step 1 \(ConnectError: "):
        asyncio.run(single.send(1))
    (home / "a run+1").mkdir()
    monkeypatch.chdir(home / "a run+1")
    here = EndpointSampler(
        "openai:b@http://x/v1",
        with_adapter(model(), replace(lora, adapter="rslora"), seed=0, verbose=False),
        Path(),
        lora,
    )
    assert (here.names, here.folder) == ({"": "a-run-1"}, home / "a run+1" / "sampler"), "a folder by its own name"
    rounded = [AdapterSettings(kind, base_weights=base) for kind in ("lora", "rslora") for base in ("nf4", "int4")]
    for settings in (AdapterSettings(), AdapterSettings("dora"), *rounded):
        with pytest.raises(ConfigError) as unfit:
            EndpointSampler("openai:b@http://x/v1", model(), home, settings)
        assert str(unfit.value) == (
            "sampler is openai:b@http://x/v1, and an endpoint takes new weights as LoRA adapters of its own base: give "
            "--adapter lora or rslora, with base_weights kept or blocks"
        )


class Replicas(Answers):
    """Replicas that keep the order of what they were told."""

    def __init__(self) -> None:
        super().__init__(completion(None))
        self.told: list[Any] = []

    async def load(self) -> None:
        self.told.append("load")

    async def load_weights(self, file: Path, version: int) -> None:
        self.told.append((version, file, sorted(each.name for each in file.parent.iterdir()), sorted(load_file(file))))

    async def load_adapter(self, name: str, folder: Path, *, version: int, replace: bool) -> None:
        self.told.append((name, folder, version, replace))

    def expect_adapter(self, name: str) -> Any:
        return f"with {name}"

    def close(self) -> None:
        self.told.append("closed")


def test_replicas_load_each_version_of_the_weights_and_the_one_before_is_removed(home: Path) -> None:
    lora, replicas = AdapterSettings("lora", rank=2), Replicas()
    adapted = drawn_adapters(with_adapter(model(), lora, seed=0, verbose=False))
    policy = ReplicaPolicy(replicas, adapted, home / "run", lora)  # type: ignore[arg-type]
    place = home / "run" / "sampler" / "process-0"
    for version in (1, 2):
        asyncio.run(policy.update({"b": torch.ones(2), "a": torch.ones(2, 3).T}, version))
    names = [f"weights-{version}.safetensors" for version in (1, 2)]
    assert replicas.told == [
        "load", (1, place / names[0], names[:1], ["a", "b"]), "load", (2, place / names[1], names, ["a", "b"])
    ]  # fmt: skip
    assert [each.name for each in place.iterdir()] == names[1:]
    asyncio.run(policy.update({"b": torch.ones(2)}, 2))
    assert [each.name for each in place.iterdir()] == names[1:], "the same version takes its own place"
    replicas.told.clear()
    asyncio.run(policy.update_adapter("the worker", adapter_of(adapted), 5))
    assert replicas.told == ["load", ("the worker", place / "the-worker", 5, True)]
    assert json.loads((place / "the-worker" / "adapter_config.json").read_text())["base_model_name_or_path"] == "there"
    assert asyncio.run(policy.complete("q", Sampling(), tools=("t",), n=3)) == list(replicas.completions)  # type: ignore[arg-type]
    assert replicas.asked == [("q", Sampling(), ("t",), 3)] and asyncio.run(policy.score("q", ["x"])) == ("q", ("x",))
    assert (policy.name, policy.fingerprint, policy.expect_adapter("a")) == ("there", "url there", "with a")
    policy.close()
    assert replicas.told[-1] == "closed"
    engine = EngineConfig(weights="int8", kv_memory_bytes=99, max_sequences=7)
    assert replica_settings(Path("/m"), engine) == {
        "model": "/m", "embedder": None, "free_calls": True,
        "engine": {"weights": "int8", "kv_memory_bytes": 99, "max_sequences": 7},
    }  # fmt: skip
    assert replica_settings(Path("/m"), replace(engine, device="cuda:1"))["engine"] == {
        "weights": "int8", "max_sequences": 7, "device": "cuda"
    }  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        open_on_ray("ray:2", home / "none", engine, adapted, home, lora)
    assert str(refused.value) == f"no model in {home / 'none'}"


@pytest.mark.parametrize(
    ("device", "gpus", "engine"),
    [
        ("cpu", 0, {}),
        ("cuda", 1, {"device": "cuda"}),
        ("cuda:0", 1, {"device": "cuda"}),
    ],
)
def test_replicas_on_ray_are_as_many_as_asked_and_silent_as_long_as_a_step_takes(
    device: str, gpus: int, engine: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    starter = object()

    def open_ray(*given: Any, **named: Any) -> Any:
        asked.append((given, named))
        return starter

    monkeypatch.setattr(ray_replicas, "open_ray", open_ray)
    (home / "base").mkdir()
    lora, policy = AdapterSettings("lora", rank=2), model()
    for sampler, count, address in (("ray:1", 1, None), ("ray:3@head:6379", 3, "head:6379"), ("ray:2@", 2, None)):
        opened = open_on_ray(sampler, home / "base", EngineConfig(device=device), policy, home / "weights", lora)
        fleet = opened.replicas.fleet
        assert (fleet.starter, fleet.silent_s, [each.number for each in fleet.slots]) == (
            starter, math.inf, list(range(count)),
        )  # fmt: skip
        assert (opened.name, opened.policy, opened.folder) == (
            "base",
            policy,
            home / "weights" / "sampler" / "process-0",
        )
        settings = {"model": str(home / "base"), "embedder": None, "engine": engine, "free_calls": True}
        assert asked.pop() == ((settings, count), {"address": address, "cpus": None, "gpus": gpus})
