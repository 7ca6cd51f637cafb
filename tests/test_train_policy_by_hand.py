"""`train_policy` in rehearsal: what each recipe of reinforcement opens, hands to `fit`, makes of rollouts, and saves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from engine_tiny import in_blocks_of_4_bits
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.nn import weights
from firsthand.nn.lora import LoRALinear
from firsthand.nn.routed_lora import RoutedLinear, adapters_off, choose
from firsthand.providers.agents import AgentsModel
from firsthand.sampling import Sampling
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train import reinforcement
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_training import with_adapter
from firsthand.train.adapters.save_adapter import save_adapter
from firsthand.train.agent_heads import AgentHeads
from firsthand.train.conversations import encode_conversations, read_conversations
from firsthand.train.data_order import order
from firsthand.train.endpoint_sampler import EndpointSampler
from firsthand.train.episodes import Episode, Graded
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.objective import Objective
from firsthand.train.recipe_settings import LoopSettings
from firsthand.train.recipes import grpo, ppo
from firsthand.train.reference_policy import ReferencePolicy
from firsthand.train.reinforcement import Policy, _drawn, _tasks, encoded_file, open_agent, reward_head, train_policy
from firsthand.train.reward_scores import RewardModel
from firsthand.train.rollout_batches import GapCheck, RolloutBatches
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.samplers import EngineSampler
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream
from train_rehearsal import Rehearsal, rehearsed, write_lines
from train_tiny import model

torch.set_num_threads(1)
OWN = """
from firsthand import Benchmark
from firsthand.task import Task

def vowels(task, trace):
    return 1.0

def own():
    return Benchmark("own", lambda seed: [Task(f"{seed}-{i}", f"say {i}") for i in range(6)], (vowels,))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    (place / "own.py").write_text(OWN)
    judge = tiny.write_model(place / "judge", seed=2, max_position=64)
    head = nn.Linear(32, 1)
    nn.init.constant_(head.bias, 3.0)
    RewardModel(weights.load(judge), head, 0.75).save_head(judge)
    return tiny.write_model(place / "tiny", max_position=64)


def trained(recipe: str, folder: Path, out: Path, **settings: Any) -> tuple[Any, Rehearsal, Any]:
    given = {
        "benchmark": str(folder.parent / "own.py"),
        "model": str(folder),
        "prompts": 3,
        "group_size": 4,
        **settings,
    }
    return rehearsed(recipe, out, **given)


def episode(ids: Sequence[int], reward: float, group: str = "g", adapter: str = "", start: int = 1) -> Episode:
    mask = np.zeros(len(ids))
    mask[start:] = 1
    own, behaviour = -1.5 * mask, -2.0 * mask
    return Episode(np.array(ids, np.int32), mask, own, behaviour, reward, group, f"{group}{reward}", adapter=adapter)


GRADED = Graded((episode([3, 14, 15, 9], 1.0), episode([26, 5, 35], 0.25, start=2), episode([8, 97], 0.5, "h"),
                 episode([93, 23], 2.0, "h")), {"reward": 9.0})  # fmt: skip


def numbers(rows: Sequence[Any]) -> list[list[float]]:
    return [np.round(np.asarray(each, np.float64), 4).tolist() for each in rows]


def test_fewer_tasks_than_prompts_are_told_and_what_is_mixed_in_is_known_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = write_lines(tmp_path / "mixed.jsonl", [{"text": "one"}, {"text": "two"}])
    num_tasks = len(trained("ppo", folder, tmp_path, prompts=1, ptx=mixed)[1].told["batches"].tasks)
    assert "prompts is" not in capsys.readouterr().out
    _, run, _ = trained("ppo", folder, tmp_path, prompts=num_tasks, ptx=mixed)
    assert "prompts is" not in capsys.readouterr().out
    state = run.told["batches"].state()
    _, run, _ = trained("ppo", folder, tmp_path, prompts=num_tasks + 1, ptx=mixed)
    told = (
        f"{num_tasks} tasks to train on, and prompts is {num_tasks + 1}: a round of rollouts asks at most {num_tasks}"
    )
    assert told in capsys.readouterr().out
    run.told["batches"].load(state)
    write_lines(mixed, [{"text": "one"}, {"text": "six"}])
    _, run, _ = trained("ppo", folder, tmp_path, ptx=mixed)
    with pytest.raises(DataError, match="the texts that are mixed in are not what the run began with"):
        run.told["batches"].load(state)


@pytest.mark.slow
def test_a_policys_run_has_its_tasks_seed_sampler_checks_and_settings(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    config, run, returned = trained(
        "grpo", folder, tmp_path, held_out=2, seed=7, max_tokens=9, top_k=5, checkpoint_every=4, concurrency=17, kl=0.0
    )
    batches, objective, (check,) = (run.told.pop(name) for name in ("batches", "objective", "sinks"))
    policy, evaluate = run.told.pop("model"), run.told.pop("evaluate")
    assert run.told == {"optimizer": config.optimizer, "schedule": config.schedule, "values": None}
    assert isinstance(batches, RolloutBatches) and batches.plan is config.rollouts
    assert [each.id for each in batches.tasks] == ["7-0", "7-1", "7-2", "7-3"]
    assert [each.id for each in batches.held_out] == ["7-4", "7-5"] and batches.benchmark.name == "own"
    assert (batches.seed, batches.dynamic, batches.rescore, batches.policy is policy) == (7, False, None, True)
    assert isinstance(batches.kept, KeptRollouts) and batches.kept.folder == tmp_path / "rollouts"
    assert isinstance(batches.sampler, EngineSampler) and batches.agent.model is batches.sampler.model
    assert batches.agent.name == "direct" and batches.agent.tools == ()
    assert batches.agent.sampling == Sampling(max_tokens=9, temperature=1.0, top_k=5)
    assert isinstance(check, GapCheck) and check.batches is batches and (check.is_exact, check.has_cuts) == (True, True)
    batches.metrics = {"x": 1.0}
    assert evaluate(3) == {"x": 1.0} and (objective.pg, objective.ref_kl) == (1.0, 0.0)
    assert run.saved.pop("tokenizer").fingerprint == pretrained.load(folder).fingerprint
    assert run.saved == {"model": policy, "base": folder, "adapter": config.adapter, "named": str(folder)}
    assert returned == tmp_path / "model" and not (tmp_path / "rollouts").exists()


@pytest.mark.slow
def test_a_sampler_is_exact_only_in_float32_throughout_and_without_correction(folder: Path, tmp_path: Path) -> None:
    for settings, is_exact in (
        ({}, True), ({"weights": "auto"}, False), ({"dtype": "bfloat16"}, False), ({"correct_to_trainer": "on"}, False),
        ({"correct_to_model": True}, True), ({"correct_to_trainer": "off"}, True), ({"adapter": "lora", "rank": 2}, True),
    ):  # fmt: skip
        _, run, _ = trained("cispo", folder, tmp_path, checkpoint_every=0, **settings)
        (check,) = run.told["sinks"]
        assert (check.is_exact, check.has_cuts, run.told["batches"].kept) == (is_exact, False, None), settings


class InBlocks(Rehearsal):
    """Opens the model as it would come from a GGUF file of quantised blocks."""

    def prepared(self, path: Path, adapter: AdapterSettings, *, agents: Sequence[str] = (), **told: bool) -> Any:
        return with_adapter(in_blocks_of_4_bits(weights.load(path)), adapter, seed=0, agents=agents, verbose=False)


def test_over_blocks_episodes_are_not_corrected_to_the_trainer_too_where_they_are_to_the_model(
    folder: Path, tmp_path: Path
) -> None:
    run = InBlocks(tmp_path, LoopSettings())
    rollouts = RolloutSettings(model=str(folder), correct_to_model=True)
    adapter = AdapterSettings("lora", rank=2, base_weights="blocks")
    config = grpo.Config(str(folder.parent / "own.py"), rollouts=rollouts, adapter=adapter)
    train_policy(run, config, lambda graded, policy: [Stream(each.ids) for each in graded.episodes], Objective(pg=1.0))
    assert sorted(run.told["batches"].make_streams(GRADED)[1]) == ["importance_capped", "importance_ratio"]


@pytest.mark.slow
def test_over_blocks_the_trainer_is_corrected_to_unless_it_is_off_or_the_model_is(folder: Path, tmp_path: Path) -> None:
    adapter, own = AdapterSettings("lora", rank=2, base_weights="blocks"), str(folder.parent / "own.py")
    told = []
    for settings in ({}, {"correct_to_model": True}, {"correct_to_trainer": "off"}, {"correct_to_trainer": "on"}):
        run = InBlocks(tmp_path, LoopSettings())
        config = grpo.Config(own, rollouts=RolloutSettings(model=str(folder), **settings), adapter=adapter)
        train_policy(
            run, config, lambda graded, policy: [Stream(each.ids) for each in graded.episodes], Objective(pg=1.0)
        )
        (check,) = run.told["sinks"]
        found = sorted(run.told["batches"].make_streams(GRADED)[1])
        told.append((found, check.is_exact))
    ratios = ["importance_capped", "importance_ratio"]
    corrected = ([*ratios, "sampler_gap"], False)
    assert told == [corrected, (ratios, True), ([], True), corrected]


def test_what_cannot_be_trained_is_refused_before_the_model_is_read(folder: Path, tmp_path: Path) -> None:
    own = str(folder.parent / "own.py")
    for settings, kind, text in (
        ({"benchmark": ""}, ConfigError,
         "name the benchmark whose tasks are asked, as in `firsthand train grpo arithmetic --model MODEL`"),
        ({"held_out": 6}, ConfigError, "held_out is 6, and own has 6 tasks: leave some to train on"),
        ({"pattern": "dircet"}, UnknownName, "dircet"), ({"tools": ("claculator",)}, UnknownName, "claculator"),
        ({"adapter": "lora", "dropout": 0.25, "model": str(folder)}, ConfigError,
         "dropout is 0.25: the trainer's log-probs would not be the sampler's, so leave it at 0"),
    ):  # fmt: skip
        with pytest.raises(kind) as refused:
            rehearsed("grpo", tmp_path, **{"benchmark": own, "model": str(tmp_path / "none"), **settings})
        assert str(refused.value) == text if kind is ConfigError else text in str(refused.value)
    named, tasks, held_out = _tasks(own, RolloutSettings(held_out=5), 3)
    assert (named.name, [each.id for each in tasks]) == ("own", ["3-0"])
    assert [each.id for each in held_out] == ["3-1", "3-2", "3-3", "3-4", "3-5"]
    assert [len(each) for each in _tasks(own, RolloutSettings(), 3)[1:]] == [6, 0]


class Stops(Rehearsal):
    def fit(self, *given: Any, **told: Any) -> int:
        raise KeyboardInterrupt


def test_rollouts_are_kept_where_training_was_stopped_and_the_engine_is_closed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []

    class Told(reinforcement.Local):
        def close(self) -> None:
            closed.append(tmp_path)
            super().close()

    monkeypatch.setattr(reinforcement, "Local", Told)
    config = grpo.Config(str(folder.parent / "own.py"), rollouts=RolloutSettings(model=str(folder)))
    run = Stops(tmp_path, LoopSettings())
    (tmp_path / "rollouts").mkdir()
    with pytest.raises(KeyboardInterrupt):
        train_policy(run, config, lambda graded, policy: [], Objective(pg=1.0))
    assert (tmp_path / "rollouts").exists() and run.saved == {} and len(closed) == 1
    trained("cispo", folder, tmp_path / "whole")
    assert len(closed) == 2, "after a whole run too"


@pytest.mark.slow
def test_each_recipe_has_the_parts_that_its_paper_has(folder: Path, tmp_path: Path) -> None:
    asked = {}

    def parts(recipe: str, **settings: Any) -> tuple[Any, ...]:
        config, run, returned = trained(recipe, folder, tmp_path, **settings)
        assert returned == tmp_path / "model" and run.told["optimizer"] is config.optimizer
        objective, batches = run.told["objective"], run.told["batches"]
        made, found = batches.make_streams(GRADED)
        asked[recipe] = [each.reference is not None for each in made]
        assert found == {}
        has_values = run.told["values"] is not None
        return (objective.pg, objective.ref_kl, objective.value, objective.ce, batches.dynamic, has_values,
                objective.answer_length, len(made))  # fmt: skip

    assert parts("grpo") == (1, 0.04, 0, 0, False, False, None, 4) and asked["grpo"] == [True] * 4
    assert parts("grpo", kl=0.0)[1] == 0 and asked["grpo"] == [False] * 4
    assert parts("dr_grpo", max_tokens=10, minibatches=2) == (1, 0, 0, 0, False, False, 10, 4)
    assert parts("dr_grpo", kl=0.5)[1] == 0.5 and asked["dr_grpo"] == [True] * 4
    assert parts("dapo") == (1, 0, 0, 0, True, False, None, 4) and asked["dapo"] == [False] * 4
    assert parts("gspo") == parts("cispo") == parts("reinforce") == (1, 0, 0, 0, False, False, None, 4)
    assert parts("rloo") == (1, 0, 0, 0, False, False, None, 4)
    assert parts("ppo") == (1, 0, 0.1, 0, False, True, None, 4)
    assert parts("rejection") == (0, 0, 0, 1, False, False, None, 2)
    assert {name for name, given in asked.items() if any(given)} == {"dr_grpo"}


@pytest.mark.slow
def test_streams_read_the_policy_as_it_is_and_its_reference_as_it_was(folder: Path, tmp_path: Path) -> None:
    _, run, _ = trained("grpo", folder, tmp_path, kl=0.5, temperature=2.0)
    policy, batches, tempered = run.told["model"], run.told["batches"], run.told["objective"].policy_logprobs
    with torch.no_grad():
        policy.embed.weight.mul_(1.25)
    made, _ = batches.make_streams(GRADED)
    ids = [each.ids for each in GRADED.episodes]
    before = stream_logprobs(weights.load(folder), ids, policy_logprobs=tempered)
    assert numbers([each.reference for each in made]) == numbers([each.logprobs for each in before])
    plain = stream_logprobs(weights.load(folder), ids)
    assert numbers([each.reference for each in made]) != numbers([each.logprobs for each in plain])
    _, run, _ = trained("cispo", folder, tmp_path, correct_to_trainer="on", temperature=2.0, importance_cap=1.5)
    batches, tempered = run.told["batches"], run.told["objective"].policy_logprobs
    made, found = batches.make_streams(GRADED)
    now = stream_logprobs(run.told["model"], ids, policy_logprobs=tempered)
    for stream, each, graded in zip(made, now, GRADED.episodes, strict=True):
        assert stream.behaviour[graded.sampled].tolist() == pytest.approx(
            each.logprobs[graded.sampled].tolist(), abs=1e-5
        )
    gaps = [
        (each.logprobs - graded.behaviour)[graded.sampled] for each, graded in zip(now, GRADED.episodes, strict=True)
    ]
    ratio = np.exp(np.concatenate(gaps))
    assert found == pytest.approx({
        "sampler_gap": max(np.abs(each).max() for each in gaps), "importance_ratio": ratio.mean(),
        "importance_capped": (ratio > 1.5).mean(),
    })  # fmt: skip
    _, run, _ = trained("cispo", folder, tmp_path, correct_to_model=True, importance_cap=1.5)
    assert run.told["objective"].policy_logprobs is None
    made, found = run.told["batches"].make_streams(GRADED)
    assert found == pytest.approx({"importance_ratio": np.exp(0.5), "importance_capped": 1.0})
    assert made[0].behaviour.tolist() == [0, -1.5, -1.5, -1.5]


def test_the_reference_of_an_adapter_that_is_gone_on_with_has_it(folder: Path, tmp_path: Path) -> None:
    begun = with_adapter(weights.load(folder), AdapterSettings("lora", rank=2), seed=0, verbose=False)
    drawn_adapters(begun)
    save_adapter(begun, tmp_path / "begun")
    settings = {"kl": 0.5, "adapter": "lora", "rank": 2, "begin_with": str(tmp_path / "begun")}
    _, run, _ = trained("grpo", folder, tmp_path / "run", **settings)
    policy, batches = run.told["model"], run.told["batches"]
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, LoRALinear):
                module.b.mul_(3)
    made, _ = batches.make_streams(GRADED)
    before = stream_logprobs(begun, [each.ids for each in GRADED.episodes])
    for each, reference in zip(made, before, strict=True):
        assert each.reference.tolist() == pytest.approx(reference.logprobs.tolist(), abs=1e-4)


@pytest.mark.slow
def test_ppo_mixes_texts_in_and_its_values_begin_at_0_or_as_the_reward_model(folder: Path, tmp_path: Path) -> None:
    lines = [{"prompt": "a", "completion": "12" + "!" * number} for number in range(3)]
    mixed = write_lines(tmp_path / "mixed.jsonl", lines)
    given = {"ptx": str(mixed), "ptx_batch": 2, "ptx_weight": 0.3, "seed": 5}
    _, run, _ = trained("ppo", folder, tmp_path, **given)
    head, batches = run.told["values"], run.told["batches"]
    assert isinstance(head, nn.Linear) and not head.weight.any() and not head.bias.any()
    assert run.told["objective"].ce == 0.3
    tokenizer = pretrained.load(folder)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    streams = encode_conversations(read_conversations(mixed), tokenizer, chat, context=64).streams
    own = encoded_file(mixed, folder, run.told["model"])
    assert [each.ids.tolist() for each in own] == [each.ids.tolist() for each in streams]
    first, second = order(5, 0, 3).tolist(), order(5, 1, 3).tolist()
    for rounds, rows in ((1, first[:2]), (2, [first[2], second[0]]), (3, second[1:])):
        batches.rounds = rounds
        made, _ = batches.make_streams(GRADED)
        assert [each.ids.tolist() for each in made[4:]] == [streams[row].ids.tolist() for row in rows]
        assert all(each.ce is not None and each.ce.any() for each in made[4:])
    values = [each.old_values.tolist() for each in made[:4]]
    assert values == [[0.0] * len(each.ids) for each in GRADED.episodes]
    judge = folder.parent / "judge"
    _, run, _ = trained("ppo", folder, tmp_path, reward_model=str(judge), value_init="reward")
    begun, given_head = run.told["values"], RewardModel.load(judge)
    assert torch.equal(begun.weight, given_head.head.weight) and float(begun.bias.detach()) == pytest.approx(3 - 0.75)
    rescored = run.told["batches"].rescore(GRADED)
    assert [each.reward for each in rescored.episodes] == pytest.approx(
        given_head.scores([e.ids for e in GRADED.episodes])
    )
    assert rescored.metrics["gold_reward"] == 9.0 and rescored.metrics["reward_std"] == pytest.approx(
        np.std([each.reward for each in rescored.episodes])
    )
    _, run, _ = trained("ppo", folder, tmp_path, reward_model=str(judge))
    assert not run.told["values"].weight.any() and run.told["batches"].rescore is not None
    with pytest.raises(ConfigError) as refused:
        ppo.Config("x", value_init="reward")
    assert (
        str(refused.value)
        == "value_init is reward, and there is no reward model: give one with `--reward-model FOLDER`"
    )


def test_a_reward_model_of_another_width_gives_no_values(folder: Path) -> None:
    judge, other = folder.parent / "judge", SimpleNamespace(architecture=SimpleNamespace(hidden_size=48))
    with pytest.raises(ConfigError) as refused:
        reward_head(other, judge)  # type: ignore[arg-type]
    assert str(refused.value) == (
        f"the reward model in {judge} has the hidden size 32, and the policy 48: train the reward model from the policy, or "
        "take value_init zero"
    )


def drawn_adapters(decoder: nn.Module) -> None:
    torch.manual_seed(3)
    for module in decoder.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.b, std=0.1)


@pytest.mark.slow
def test_each_agents_episodes_are_read_with_its_own_adapter_and_values() -> None:
    lora = AdapterSettings("lora", rank=2)
    decoder = with_adapter(model(), lora, seed=0, agents=("lead", "worker"), verbose=False)
    before = ReferencePolicy(decoder)
    drawn_adapters(decoder)
    episodes = [episode([3, 14, 15], 1, adapter="worker"), episode([9, 26], 1, adapter="lead"),
                episode([5, 35, 8, 9], 1, adapter="worker")]  # fmt: skip
    heads = AgentHeads({"lead": nn.Linear(32, 1), "worker": nn.Linear(32, 1)})
    policy = Policy(decoder, Objective(pg=1.0), value_head=heads, before=before)

    def by_hand(values: Any = None) -> list[Any]:
        found = []
        for each in episodes:
            choose(decoder, each.adapter)
            own = None if values is None else values.heads[("lead", "worker").index(each.adapter)]
            found += stream_logprobs(decoder, [each.ids], values=own)
        return found

    expected = by_hand()
    choose(decoder, "lead")
    assert numbers(policy.own(episodes)) == numbers([each.logprobs for each in expected])
    assert numbers(policy.values(episodes)) == numbers([each.values for each in by_hand(heads)])
    with adapters_off(decoder):
        plain = stream_logprobs(decoder, [each.ids for each in episodes])
    assert numbers(policy.references(episodes)) == numbers([each.logprobs for each in plain])
    assert numbers([each.logprobs for each in plain]) != numbers([each.logprobs for each in expected])
    policy.before = ReferencePolicy(decoder, is_fresh=False)
    with torch.no_grad():
        for module in decoder.modules():
            if isinstance(module, LoRALinear):
                module.b.mul_(3)
    assert numbers(policy.references(episodes)) == numbers([each.logprobs for each in expected])
    changed = numbers([each.logprobs for each in by_hand()])
    assert numbers(policy.own(episodes)) == changed != numbers([each.logprobs for each in expected])
    assert {each.chosen for each in decoder.modules() if isinstance(each, RoutedLinear)} == {"lead"}


def test_agents_with_adapters_are_asked_by_name(folder: Path, tmp_path: Path) -> None:
    settings = {"adapter": "lora", "rank": 2, "agents": ("lead", "worker=vowels"), "seed": 4}
    _, run, _ = trained("ppo", folder, tmp_path, **settings)
    batches, values = run.told["batches"], run.told["values"]
    assert isinstance(batches.agent.model, AgentsModel) and isinstance(values, AgentHeads)
    assert values.agents == ("lead", "worker") == batches.sampler.agents
    with pytest.raises(
        ConfigError, match=r"sampler is openai:x@http://127\.0\.0\.1:1/v1, and an endpoint takes new weights"
    ):
        trained("grpo", folder, tmp_path, sampler="openai:x@http://127.0.0.1:1/v1")
    _, run, _ = trained("cispo", folder, tmp_path, sampler="openai:x@http://127.0.0.1:1/v1/", adapter="rslora", rank=2)
    (check,), sampler = run.told["sinks"], run.told["batches"].sampler
    assert isinstance(sampler, EndpointSampler) and not check.is_exact
    assert (sampler.url, sampler.base, sampler.names) == ("http://127.0.0.1:1/v1", "x", {"": tmp_path.name})
    assert sampler.folder == tmp_path / "sampler" and run.told["batches"].agent.model is sampler.model


def test_the_rollouts_engine_is_that_of_its_settings_and_device(folder: Path) -> None:
    plan = RolloutSettings(str(folder), concurrency=9, pattern="react", tools=("calculator",), max_tokens=7)
    local, agent = open_agent(folder, plan)
    assert local.config == EngineConfig(
        device="cpu",
        kv_memory_bytes=None,
        weights="float32",
        kv_cache="float32",
        max_sequences=9,
        max_batch_tokens=2048,
    )
    assert (local.path, local.free_calls, agent.name, agent.model is local) == (folder, True, "react", True)
    assert [each.name for each in agent.tools] == ["calculator"] and agent.sampling == plan.sampling
    local.close()
    local, _ = open_agent(
        folder, RolloutSettings(str(folder), concurrency=900, weights="int8"), device=torch.device("cpu")
    )
    config = local.config
    assert (config.device, config.max_sequences, config.weights, config.kv_cache) == ("cpu", 256, "int8", "auto")
    local.close()


def test_a_policy_may_use_tools_of_mcp_servers(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    _, run, _ = trained("rloo", folder, tmp_path, tools=("calculator", "mcp:time"))
    agent = run.told["batches"].agent
    assert agent.to_json()["tools"] == ["calculator", "mcp:time"] and len(agent.own_tools) == 1


def test_streams_are_drawn_pass_after_pass() -> None:
    streams = [Stream([each + 1]) for each in range(3)]
    first, second, third = (order(9, epoch, 3).tolist() for epoch in range(3))
    places = [each + 1 for each in (*first, *second, *third)]
    assert [[int(each.ids[0]) for each in _drawn(streams, 4, 9, batch)] for batch in (1, 2)] == [
        places[:4],
        places[4:8],
    ]
    assert _drawn([], 4, 9, 1) == [] and _drawn(streams, 0, 9, 3) == []
