"""Adapters in reinforcement and preference learning: one for the policy or for each agent, on our engine or an endpoint."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from firsthand import catalog
from firsthand.config import build
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelError, TrainingError
from firsthand.message import Message, Sampled, Text
from firsthand.model import Completion, Sampling, Usage
from firsthand.nn import weights
from firsthand.nn.lora import LoRALinear, read_adapter
from firsthand.nn.routed_lora import RoutedLinear, adapters_off, agents_of, choose
from firsthand.providers.agents import agent_of
from firsthand.providers.local import Local
from firsthand.providers.openai import OpenAIModel
from firsthand.rollout import Place, rollouts
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_training import adapter_of, with_adapter
from firsthand.train.agent_heads import AgentHeads, choose_head, value_head
from firsthand.train.endpoint_sampler import EndpointPolicy
from firsthand.train.episodes import grade
from firsthand.train.fit import fit
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.reference_policy import ReferencePolicy
from firsthand.train.samplers import weights_digest
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream, micro_batches
from firsthand.train.training_run import opened, read_metrics
from served import serving
from thorough import THOROUGH
from train_tiny import Kept, Lists

torch.set_num_threads(1)
OWN = '''
from firsthand import Benchmark
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.sub_patterns import attempt, part_of
from firsthand.task import Task
from firsthand.trace import Score

def vowels(task, trace):
    """Share of vowels in the answer."""
    text = trace.answer or ""
    return sum(each in "aeiou" for each in text) / max(1, len(text))

def spaces(task, trace):
    """Share of spaces of each worker's message, as a score there."""
    found = []
    for call in trace.calls:
        text = trace.nodes[call.nodes[0]].message.text
        if call.id.startswith("0."):
            found.append(Score("spaces", text.count(" ") / max(1, len(text)), node=call.nodes[0]))
    return tuple(found)

def own():
    return Benchmark("own", lambda seed: [Task(str(i), f"say {i}") for i in range(6)], (vowels, spaces))

async def team(task, ctx):
    """A lead, two workers beside each other, and the lead again."""
    lead = await ctx.say(task.question).generate()
    parts = [(f"worker {i}", part_of(task, f"w{i}", f"part {i}")) for i in (1, 2)]
    outcomes = await ctx.group(attempt(name, direct, part, ctx) for name, part in parts)
    lead = await lead.say(" ".join(each.report for each in outcomes)).generate()
    return lead.text
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    (place / "own.py").write_text(OWN)
    (place / "team.py").write_text(OWN)
    return tiny.write_model(place / "tiny", max_position=1024)


def train(recipe: str, folder: Path, out: Path, *, resume: bool = False, **settings: Any) -> list[dict[str, float]]:
    """Run a recipe of reinforcement with an adapter; returns its metrics."""
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    rank = {} if settings.get("adapter") == "none" else {"rank": 4}
    values = {
        "benchmark": str(folder.parent / "own.py"), "model": str(folder), "prompts": 2, "group_size": 4, "max_tokens": 5,
        "steps": 2, "lr": 1e-2, "checkpoint_every": 0, "adapter": "lora", **rank, **settings,
    }  # fmt: skip
    config = build(module.Config, values)
    with opened(out, recipe, config, resume=resume) as run:
        getattr(module, recipe)(config, run)
    return read_metrics(out)


def values_of(folder: Path, base: Path) -> dict[str, torch.Tensor]:
    """The matrices B of a saved adapter, which begin at 0."""
    return {name: update.b for name, update in read_adapter(folder, weights.load(base)).deltas.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": "lora"}, {"adapter": "rslora", "kl": 0.1, "temperature": 0.7}, {"adapter": "dora"},
        {"adapter": "lora", "base_weights": "nf4"}, {"adapter": "dora", "base_weights": "nf4"},
    ],
)  # fmt: skip
def test_the_engine_samples_base_and_adapter_as_they_are_trained(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    rows = train("grpo", folder, tmp_path / "run", steps=3, **settings)
    assert all(row["sampler_gap"] < 1e-4 for row in rows) and any(row["grad_norm"] > 0 for row in rows)
    trained = values_of(tmp_path / "run", folder)
    assert any(b.abs().max() > 1e-3 for b in trained.values())
    base = weights.load(folder)
    merged = weights.load(tmp_path / "run" / "model")
    assert torch.equal(base.embed.weight, merged.embed.weight)  # frozen
    if "base_weights" not in settings:
        whole = weights.load(folder, adapter=tmp_path / "run" / "adapter")
        place = next(iter(trained)).removesuffix(".weight")
        assert torch.allclose(whole.get_submodule(place).weight, merged.get_submodule(place).weight, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ppo", "rloo", "dapo", "rejection"])
def test_recipes_with_values_references_and_rounds_train_adapters(recipe: str, folder: Path, tmp_path: Path) -> None:
    rows = train(recipe, folder, tmp_path / "run")
    assert recipe == "rejection" or all(row["sampler_gap"] < 1e-4 for row in rows)
    assert any(b.abs().max() > 1e-3 for b in values_of(tmp_path / "run" / "adapter", folder).values())


def test_the_reference_is_the_base_with_its_adapter_off_or_the_adapter_that_was_gone_on_with(folder: Path) -> None:
    ids = [np.arange(3, 20, dtype=np.int32)]
    settings = AdapterSettings(adapter="lora", rank=4)
    base = weights.load(folder)
    expected = stream_logprobs(base, ids)[0].logprobs
    for is_fresh in (True, False):
        model = with_adapter(weights.load(folder), settings, seed=0)
        reference = ReferencePolicy(model, is_fresh=is_fresh)
        assert reference.copy is None  # no second model
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(0.1)
        moved = stream_logprobs(model, ids)[0].logprobs
        with reference.there() as before:
            assert np.abs(stream_logprobs(before, ids)[0].logprobs - expected).max() < 1e-6
        assert np.array_equal(stream_logprobs(model, ids)[0].logprobs, moved) and np.abs(moved - expected).max() > 1e-3


@pytest.mark.slow
def test_a_reward_goes_on_from_the_adapter_of_another_run(folder: Path, tmp_path: Path) -> None:
    train("grpo", folder, tmp_path / "first")
    before = values_of(tmp_path / "first", folder)
    train("grpo", folder, tmp_path / "second", steps=1, lr=0.0, begin_with=str(tmp_path / "first"))
    after = values_of(tmp_path / "second", folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dpo", "kto", "reward"])
def test_preferences_train_adapters_against_the_base(recipe: str, folder: Path, tmp_path: Path) -> None:
    lines = [{"prompt": f"say {n}", "chosen": " a a a", "rejected": " b b"} for n in range(6)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    values = {"data": str(tmp_path / "pairs.jsonl"), "model": str(folder), "batch_size": 3, "steps": 6, "lr": 1e-2}
    config = build(module.Config, values | {"adapter": "lora", "rank": 4, "checkpoint_every": 0})
    with opened(tmp_path / "run", recipe, config) as run:
        getattr(module, recipe)(config, run)
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["loss"] < rows[0]["loss"]
    if recipe == "dpo":
        assert rows[0]["chosen_log_ratio"] == 0 and rows[-1]["chosen_log_ratio"] > rows[-1]["rejected_log_ratio"]
    assert values_of(tmp_path / "run" / "adapter", folder)
    assert torch.equal(weights.load(tmp_path / "run" / "model").embed.weight, weights.load(folder).embed.weight)


@pytest.mark.slow
def test_a_trained_adapter_answers_under_the_name_of_its_run(folder: Path, tmp_path: Path) -> None:
    train("grpo", folder, tmp_path / "run", lr=0.05)
    sampling = Sampling(max_tokens=8, temperature=0)

    async def said(model: Any) -> tuple[int, ...]:
        (found,) = await model.complete("What is", sampling)
        return tuple(found.message.sampled.token_ids)

    names = (f"{folder}+adapter:{tmp_path / 'run'}", str(tmp_path / "run" / "model"), str(folder))
    models = [catalog.model(name, weights="float32") for name in names]
    beside, merged, base = (asyncio.run(said(model)) for model in models)
    for model in models:
        model.close()
    assert beside == merged and beside != base


@pytest.mark.slow
def test_settings_of_adapters_that_cannot_be_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    cases = [
        ({"dropout": 0.1}, "dropout is 0.1: the trainer's log-probs would not be the sampler's"),
        ({"adapter": "none", "begin_with": "x"}, "begin_with is x, and adapter is none"),
        ({"agents": "lead", "adapter": "none"}, "agents are lead, and each has an adapter beside shared weights"),
        ({"agents": "lead", "adapter": "dora"}, "agents are lead, and each has an adapter beside shared weights"),
        ({"agents": "lead,lead"}, "agents are lead, lead: give each name once"),
        ({"agents": "a.b"}, "agents are a.b: give each name once"),
        ({"agents": "keys"}, "an agent's name cannot be used"),
        ({"sampler": "openai:tiny@http://127.0.0.1:9/v1", "adapter": "dora"}, "an endpoint takes new weights as LoRA"),
        ({"sampler": "openai:tiny@http://127.0.0.1:9/v1", "temperature": 0.5}, "whose log-probs are the model's own"),
        ({"sampler": "vllm"}, "sampler is 'vllm': give local, ray:N, ray:N@HOST:PORT, or openai:NAME@http"),
        ({"correct_to_trainer": "on", "correct_to_model": True}, "give one of them"),
    ]
    for number, (settings, sentence) in enumerate(cases):
        with pytest.raises(ConfigError, match=sentence):
            train("grpo", folder, tmp_path / str(number), **settings)


# -- agents --


def agents(folder: Path, out: Path, recipe: str = "grpo", **settings: Any) -> list[dict[str, float]]:
    return train(
        recipe, folder, out, pattern=f"{folder.parent / 'team.py'}:team", agents="lead=vowels,worker=spaces", **settings
    )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["grpo", "ppo"])
def test_each_agent_is_trained_by_its_part_of_the_reward(recipe: str, folder: Path, tmp_path: Path) -> None:
    rows = agents(folder, tmp_path / "run", recipe)
    for row in rows:
        assert row["sampler_gap"] < 1e-4 and row["agent.lead.reward"] == pytest.approx(row["reward"])
        assert row["agent.worker.reward"] != row["agent.lead.reward"]
        assert row["groups"] == 4  # two tasks, and each agent has groups of its own
    lead, worker = (values_of(tmp_path / "run" / "adapters" / each, folder) for each in ("lead", "worker"))
    assert all(any(b.abs().max() > 1e-3 for b in each.values()) for each in (lead, worker))
    assert not any(torch.equal(lead[name], worker[name]) for name in lead)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
def test_an_agent_that_is_not_named_answers_with_the_base_and_is_not_trained(folder: Path, tmp_path: Path) -> None:
    settings = {"pattern": f"{folder.parent / 'team.py'}:team", "agents": "worker=spaces"}
    rows = train("grpo", folder, tmp_path / "run", **settings)
    assert all(row["sampler_gap"] < 1e-4 and "agent.lead.reward" not in row for row in rows)
    with pytest.raises(TrainingError, match="no branch of the rollouts belongs to the agent 'critic'"):
        train("grpo", folder, tmp_path / "other", pattern=settings["pattern"], agents="critic")
    with pytest.raises(TrainingError, match=r"none of 8 rollouts has a reward: rollout . has no score 'beauty'"):
        train("grpo", folder, tmp_path / "none", pattern=settings["pattern"], agents="worker=beauty")


@pytest.mark.slow
def test_the_tokens_of_a_rollout_say_whose_adapter_sampled_them(folder: Path, tmp_path: Path) -> None:
    agents(folder, tmp_path / "run", lr=0.05)
    model = catalog.model(f"agents:{folder}@{tmp_path / 'run'}", weights="float32")
    pattern, _ = catalog.pattern(f"{folder.parent / 'team.py'}:team")
    from firsthand.agent import Agent

    agent = Agent("team", model, pattern, sampling=Sampling(max_tokens=6, temperature=1.0))
    benchmark = catalog.benchmark(str(folder.parent / "own.py"))

    async def made() -> Any:
        return [trace async for trace in rollouts([Place(agent, benchmark, benchmark.tasks(0)[0])])]

    (trace,) = asyncio.run(made())
    model.close()
    assert trace.error is None
    episodes = grade([trace], agents={"lead": "vowels", "worker": "spaces"}).episodes
    assert [each.adapter for each in episodes].count("worker") == 2
    assert trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace
    trained = weights.load(folder)
    for name in ("lead", "worker"):
        alone = weights.load(folder, adapter=tmp_path / "run" / "adapters" / name)
        for each in (each for each in episodes if each.adapter == name):
            at = each.sampled
            assert np.abs(stream_logprobs(alone, [each.ids])[0].logprobs[at] - each.own[at]).max() < 1e-4
            assert np.abs(stream_logprobs(trained, [each.ids])[0].logprobs[at] - each.own[at]).max() > 1e-3


def test_a_branch_belongs_to_the_agent_it_is_called_after() -> None:
    assert agent_of("", ["lead"]) == "lead" and agent_of("", ["worker"]) is None
    assert agent_of("worker 2.1", ["worker"]) == "worker"
    assert agent_of("worker 2", ["worker", "worker 2"]) == "worker 2"
    assert agent_of("workers", ["worker"]) is None and agent_of("worker 2", ["lead"]) is None


@pytest.mark.slow
def test_streams_of_different_agents_never_share_a_pass_and_results_do_not_depend_on_passes(folder: Path) -> None:
    rng = np.random.default_rng(0)
    streams = [
        Stream(rng.integers(5, 60, 9), ce=np.ones(9), adapter=("lead", "worker", "worker")[each % 3])
        for each in range(12)
    ]
    groups = micro_batches(streams, 40)
    assert all(len({each.adapter for each in group}) == 1 for group in groups) and sum(map(len, groups)) == 12
    found = []
    for micro_tokens in (10, 10_000):
        model = with_adapter(
            weights.load(folder), AdapterSettings(adapter="lora", rank=4), seed=3, agents=("lead", "worker")
        )
        optimizer = optimizer_for(model, OptimizerSettings(lr=1e-2))
        kept = Kept()
        fit(
            model, Lists(streams, streams), objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1.0,
            steps=2, track=kept, micro_tokens=micro_tokens,
        )  # fmt: skip
        found.append((kept.rows[-1]["loss"], adapter_of(model, agent="worker").deltas))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert all((found[0][1][name].b - found[1][1][name].b).abs().max() < 1e-5 for name in found[0][1])


def test_one_agent_at_a_time_is_on_and_none_within_adapters_off(folder: Path) -> None:
    model = with_adapter(weights.load(folder), AdapterSettings(adapter="lora"), seed=0, agents=("a", "b"))
    assert agents_of(model) == ("a", "b")
    ids = [np.arange(3, 12, dtype=np.int32)]
    base = stream_logprobs(weights.load(folder), ids)[0].logprobs
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, RoutedLinear):
                module.adapter("b").b.fill_(0.05)
    choose(model, "b")
    on = stream_logprobs(model, ids)[0].logprobs
    choose(model, "a")
    assert np.abs(stream_logprobs(model, ids)[0].logprobs - base).max() < 1e-6 < np.abs(on - base).max()
    choose(model, "b")
    with adapters_off(model):
        assert np.abs(stream_logprobs(model, ids)[0].logprobs - base).max() < 1e-6
    assert np.array_equal(stream_logprobs(model, ids)[0].logprobs, on)
    with pytest.raises(ConfigError, match="no agent 'c' has an adapter: there are a, b"):
        choose(model, "c")


def test_each_agent_s_values_are_learned_by_its_own_head(folder: Path) -> None:
    model = with_adapter(weights.load(folder), AdapterSettings(adapter="lora"), seed=0, agents=("lead", "worker"))
    heads = AgentHeads({agent: value_head(model) for agent in ("lead", "worker")})
    choose_head(heads, "worker")
    streams = [Stream([5, 6, 7, 8], value=[0, 1, 1, 1], returns=np.ones(4), adapter="lead") for _ in range(2)]
    optimizer = optimizer_for(torch.nn.ModuleDict({"m": model, "h": heads}), OptimizerSettings(lr=1e-2))
    fit(
        model, Lists(streams), objective=Objective(value=1.0), optimizer=optimizer, schedule=lambda step: 1.0, steps=1,
        values=heads,
    )  # fmt: skip
    changed = [bool(head.bias.abs().max() > 0) for head in heads.heads]  # type: ignore[union-attr, operator]
    assert changed == [True, False]


# -- an endpoint as the sampler --


@pytest.mark.slow
def test_rollouts_of_an_endpoint_are_those_of_the_weights_in_training(folder: Path, tmp_path: Path) -> None:
    config = EngineConfig(weights="float32", kv_cache="float32")
    settings = {"lr": 0.05, "steps": 3}
    with serving(Local(folder, config=config), name="tiny", adapter_root=tmp_path) as running:
        url = f"openai:tiny@{running.url}/v1"
        rows = train("grpo", folder, tmp_path / "run", sampler=url, **settings)
        team = agents(folder, tmp_path / "team", sampler=url, **settings)
    for row in (*rows, *team):
        assert row["sampler_gap"] < 1e-4 and row["importance_ratio"] == pytest.approx(1, abs=1e-4)
        assert row["importance_capped"] == 0 and row["rollouts"] == 8
    assert team[0]["agent.worker.tokens"] > 0
    assert any(b.abs().max() > 1e-3 for b in values_of(tmp_path / "run", folder).values())


@pytest.mark.slow
def test_an_endpoint_that_takes_no_adapters_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with (
        serving(Local(folder, config=EngineConfig(weights="float32", kv_cache="float32")), name="tiny") as running,
        pytest.raises(TrainingError, match=r"did not load the adapter of step 1 .status 404: .*--adapter-root"),
    ):
        train("grpo", folder, tmp_path / "run", sampler=f"openai:tiny@{running.url}/v1")


def test_an_endpoint_that_hides_its_tokens_is_one_sentence() -> None:
    policy = EndpointPolicy(OpenAIModel("tiny", "http://127.0.0.1:9/v1"))
    message = Message("assistant", (Text("a"),), Sampled((5,), (-0.5,)))
    with pytest.raises(ModelError, match="returned no prompt_token_ids"):
        policy._whole(Completion(message, "stop", Usage()))
    with pytest.raises(ModelError, match="returned no log-probs or token ids"):
        policy._whole(Completion(Message("assistant", (Text("a"),)), "stop", Usage(), prompt_ids=(1,)))
    whole = policy._whole(Completion(message, "stop", Usage(), prompt_ids=(1,)))
    assert whole.message.sampled is not None and whole.message.sampled.behaviour_logprobs == (-0.5,)


# -- finished rollouts are kept --


def trace_of(number: int) -> Any:
    from firsthand.trace import Trace, new_trace_id

    return Trace(new_trace_id(), "own", str(number), {"name": "a"}, 0, 0, "", 0.1, answer="é", place=f"p{number}")


def test_finished_rollouts_are_read_back_unless_they_are_of_other_weights_or_cut_short(tmp_path: Path) -> None:
    kept, one, two = KeptRollouts(tmp_path / "r"), trace_of(1), trace_of(2)
    assert kept.begin("round", 7, "w") == {}
    kept.add(one)
    kept.add(two)
    assert KeptRollouts(tmp_path / "r").begin("round", 7, "w") == {"p1": one, "p2": two}
    assert KeptRollouts(tmp_path / "r").begin("round", 8, "w") == {}
    (file,) = (tmp_path / "r").glob("round-000007-*")
    file.write_bytes(file.read_bytes()[:-9])
    again = KeptRollouts(tmp_path / "r")
    assert again.begin("round", 7, "w") == {"p1": one}
    again.add(two)
    assert KeptRollouts(tmp_path / "r").begin("round", 7, "w") == {"p1": one, "p2": two}
    assert KeptRollouts(tmp_path / "r").begin("round", 7, "other") == {}
    again.drop_before("round", 8)
    assert [each.name for each in (tmp_path / "r").iterdir()] == ["round-000008-0.jsonl"]


def test_rollouts_are_known_by_the_weights_that_are_trained(folder: Path) -> None:
    model = with_adapter(weights.load(folder), AdapterSettings(adapter="lora"), seed=0)
    before = weights_digest(model)
    layer = next(module for module in model.modules() if isinstance(module, LoRALinear))
    with torch.no_grad():
        layer.base.weight.add_(1.0)
    assert weights_digest(model) == before  # frozen: the file's
    with torch.no_grad():
        layer.b[0, 0] += 1e-7
    assert weights_digest(model) != before


@pytest.mark.slow
def test_a_run_that_ended_within_a_batch_goes_on_with_its_finished_rollouts(folder: Path, tmp_path: Path) -> None:
    settings = {"steps": 4, "checkpoint_every": 1, "adapter": "none", "lr": 1e-3}
    whole = train("grpo", folder, tmp_path / "whole", **settings)
    made: list[str] = []
    real = KeptRollouts.add

    def stop_within(self: KeptRollouts, trace: Any) -> None:
        real(self, trace)
        made.append(trace.place)
        if len(made) == 21:
            raise KeyboardInterrupt

    KeptRollouts.add = stop_within  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            train("grpo", folder, tmp_path / "cut", **settings)
    finally:
        KeptRollouts.add = real  # type: ignore[method-assign]
    before = list(made)
    KeptRollouts.add = lambda self, trace: (real(self, trace), made.append(trace.place))  # type: ignore
    try:
        rows = train("grpo", folder, tmp_path / "cut", resume=True, **settings)
    finally:
        KeptRollouts.add = real  # type: ignore[method-assign]
    again = set(before[16:]) & set(made[len(before) :])
    assert not again and len(made) == 32  # two whole batches, five rollouts of the third; three and eight more
    names = ("loss", "grad_norm", "reward", "answer_tokens")
    for a, b in zip(whole, rows, strict=True):
        assert [a[name] for name in names] == [b[name] for name in names]
    one, other = (weights.load(tmp_path / each / "model").state_dict() for each in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / "cut" / "rollouts").exists()


# -- a file's own blocks --


@pytest.mark.skipif(
    not THOROUGH, reason="FIRSTHAND_THOROUGH alone runs it: tests/test_train_policy_by_hand.py trains a smaller one"
)
@pytest.mark.weights
def test_over_smollm2_s_own_blocks_the_difference_is_corrected_and_shown(smollm2: Path, tmp_path: Path) -> None:
    settings = {"steps": 2, "group_size": 2, "max_tokens": 12, "lr": 1e-4, "rank": 8}
    module = importlib.import_module("firsthand.train.recipes.grpo")
    values = {"benchmark": "arithmetic", "model": str(smollm2), "prompts": 2, "checkpoint_every": 0, "adapter": "lora"}
    config = build(module.Config, values | settings | {"base_weights": "blocks", "weights": "auto"})
    with opened(tmp_path / "run", "grpo", config) as run:
        module.grpo(config, run)
    for row in read_metrics(tmp_path / "run"):
        assert 0 < row["sampler_gap"] < 1 and row["importance_ratio"] == pytest.approx(1, abs=0.2)
        assert 0 <= row["importance_capped"] <= 1 and row["ratio"] == pytest.approx(1, abs=1e-6)  # to the trainer's own
    assert (tmp_path / "run" / "adapter").is_dir()
