"""RL recipes from end to end: rollouts of our engine, streams of each algorithm, and steps on what was sampled."""

from __future__ import annotations

import asyncio
import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from firsthand import catalog
from firsthand.config import build
from firsthand.errors import ConfigError, TrainingError
from firsthand.nn import weights
from firsthand.rollout import Place, rollouts
from firsthand.train.episodes import grade
from firsthand.train.policy_objective import policy_objective
from firsthand.train.policy_streams import policy_streams
from firsthand.train.reinforcement import open_agent, train_policy
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.step_loss import step_loss
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream, num_answers, packed
from firsthand.train.training_run import opened, read_metrics

torch.set_num_threads(1)
OWN = '''
import math
from firsthand import Benchmark
from firsthand.message import ToolCall
from firsthand.task import Task
from firsthand.tool import tool

def vowels(task, trace):
    """Share of vowels in the answer."""
    text = trace.answer or ""
    return sum(each in "aeiou" for each in text) / max(1, len(text))

def constant(task, trace):
    return 1.0

def broken(task, trace):
    return math.nan if task.id == "0" else 1 / 0

def half(task, trace):
    return math.nan if trace.epoch % 2 else vowels(task, trace)

def own(*, reward: str = "vowels"):
    scorer = {"vowels": vowels, "constant": constant, "broken": broken, "half": half}[reward]
    parts = (scorer, constant) if reward == "vowels" else (scorer,)
    return Benchmark("own", lambda seed: [Task(str(i), f"say {i}") for i in range(6)], parts)

@tool(effect="read")
def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b

async def turns(task, ctx):
    """A turn, a tool's result, and two answers."""
    ctx = await ctx.say(task.question).generate(tools=[add])
    result = await ctx.call(ToolCall("call_0", "add", {"a": 12, "b": 30}))
    first, second = await ctx.say(result).sample(2, tools=[add])
    return first.text
'''
ALGORITHMS = ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce", "ppo", "rejection"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    (place / "own.py").write_text(OWN)
    (place / "turns.py").write_text(OWN)
    return tiny.write_model(place / "tiny", max_position=1024)


def config_of(recipe: str, folder: Path, *, reward: str = "vowels", **settings: Any) -> Any:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    values = {
        "benchmark": f"{folder.parent / 'own.py'}:reward={reward}", "model": str(folder), "prompts": 2, "group_size": 4,
        "max_tokens": 5, "steps": 2, "lr": 1e-3, "checkpoint_every": 0, **settings,
    }  # fmt: skip
    return build(module.Config, values)


def train(recipe: str, folder: Path, out: Path, *, resume: bool = False, **settings: Any) -> list[dict[str, float]]:
    """Run a recipe; returns its metrics."""
    config = config_of(recipe, folder, **settings)
    with opened(out, recipe, config, resume=resume) as run:
        getattr(importlib.import_module(f"firsthand.train.recipes.{recipe}"), recipe)(config, run)
    return read_metrics(out)


def same_weights(a: Path, b: Path) -> bool:
    one, other = weights.load(a / "model").state_dict(), weights.load(b / "model").state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ALGORITHMS)
def test_every_algorithm_makes_steps_on_the_log_probs_that_were_sampled(
    recipe: str, folder: Path, tmp_path: Path
) -> None:
    rows = train(recipe, folder, tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    before, after = weights.load(folder), weights.load(tmp_path / "run" / "model")
    assert not torch.equal(before.embed.weight, after.embed.weight)
    for row in rows:
        assert math.isfinite(row["loss"]) and 0 <= row["reward"] <= 1 and row["answer_tokens"] <= 5
        assert row["score.constant"] == 1 and (row["score.vowels"] == pytest.approx(row["reward"]) or recipe == "dapo")
        assert recipe == "rejection" or row["sampler_gap"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "cuts", [{"temperature": 0.6}, {"temperature": 1.5, "top_k": 7}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.7}]
)
def test_sampler_and_trainer_agree_after_temperature_and_cuts(
    cuts: dict[str, float], folder: Path, tmp_path: Path
) -> None:
    for row in train("grpo", folder, tmp_path / "run", prompts=4, **cuts):
        assert row["sampler_gap"] < 1e-4 and row["ratio"] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_rollouts_of_another_distribution_than_was_told_are_refused(folder: Path, tmp_path: Path) -> None:
    config = config_of("reinforce", folder, temperature=0.7)
    module = importlib.import_module("firsthand.train.recipes.reinforce")
    at_one = config_of("reinforce", folder)
    with (
        opened(tmp_path / "run", "reinforce", config) as run,
        pytest.raises(TrainingError, match="sampler and trainer"),
    ):
        train_policy(
            run, config, lambda graded, policy: module.streams(graded, policy, config), module.objective(at_one)
        )


@pytest.mark.slow
def test_the_model_itself_is_trained_by_importance_weights_that_are_capped(folder: Path, tmp_path: Path) -> None:
    rows = train("grpo", folder, tmp_path / "run", top_k=5, correct_to_model=True)
    assert all(row["sampler_gap"] < 1e-4 and 0 < row["importance_ratio"] < 1 for row in rows)
    hot = train("grpo", folder, tmp_path / "hot", temperature=3.0, correct_to_model=True, importance_cap=1.1)
    assert all(row["sampler_gap"] < 1e-4 and row["importance_capped"] > 0 for row in hot)


@pytest.mark.slow
def test_in_bfloat16_the_reference_rounds_as_the_policy_and_the_sampler_s_difference_is_shown(
    folder: Path, tmp_path: Path
) -> None:
    settings = {"kl": 0.1, "dtype": "bfloat16", "correct_to_trainer": "on", "steps": 1}
    (row,) = train("grpo", folder, tmp_path / "run", **settings)
    assert abs(row["ref_kl"]) < 1e-9 and row["sampler_gap"] > 1e-4
    assert row["ratio"] == pytest.approx(1, abs=1e-4) and row["importance_ratio"] != 1


def test_the_sampler_is_on_the_trainer_s_device_and_leaves_it_room(folder: Path) -> None:
    class Gpu:
        """16 GiB free."""

        def mem_get_info(self, device: torch.device) -> tuple[int, int]:
            return 16 << 30, 80 << 30

    settings = RolloutSettings(model=str(folder))
    local, _ = open_agent(folder, settings, device=torch.device("cuda:1"), gpu=Gpu())
    assert (local.config.device, local.config.kv_memory_bytes) == ("cuda:1", 4 << 30)
    here, _ = open_agent(folder, settings, device=torch.device("cpu"), gpu=Gpu())
    assert (here.config.device, here.config.kv_memory_bytes) == ("cpu", None)


@pytest.mark.slow
def test_a_constant_reward_changes_nothing_and_is_counted(folder: Path, tmp_path: Path) -> None:
    rows = train("grpo", folder, tmp_path / "run", reward="constant", kl=0.0)
    assert all(row["groups_of_equal_rewards"] == row["groups"] == 2 and row["loss"] == 0 for row in rows)
    with pytest.raises(TrainingError, match="10 rounds of 2 tasks had no group whose rewards differ"):
        train("dapo", folder, tmp_path / "dapo", reward="constant")


@pytest.mark.slow
def test_a_reward_that_raises_or_is_nan_is_one_sentence_or_a_count(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none of 8 rollouts has a reward: the reward broken of"):
        train("grpo", folder, tmp_path / "run", reward="broken")
    rows = train("grpo", folder, tmp_path / "half", reward="half")
    assert all(row["rewards_failed"] == 4 and row["rollouts_failed"] == 0 and row["groups"] == 2 for row in rows)


@pytest.mark.slow
def test_a_resumed_run_is_bitwise_the_undisturbed_one_between_updates_of_one_batch_too(
    folder: Path, tmp_path: Path
) -> None:
    settings = {"updates": 2, "minibatches": 2, "checkpoint_every": 1, "kl": 0.1}
    whole = train("ppo", folder, tmp_path / "whole", steps=7, **settings)
    train("ppo", folder, tmp_path / "cut", steps=3, **settings)
    resumed = train("ppo", folder, tmp_path / "cut", steps=7, resume=True, **settings)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    timed = ("tokens_per_s", "rollout_s")
    for a, b in zip(whole, resumed, strict=True):
        # metrics of rollouts are those of the process that made them
        assert {k: v for k, v in a.items() if k in ("loss", "grad_norm", "lr")} == {
            k: v for k, v in b.items() if k in ("loss", "grad_norm", "lr") and k not in timed
        }


@pytest.mark.slow
def test_the_ids_that_are_trained_on_are_the_ids_that_were_sampled_with_observations_masked(folder: Path) -> None:
    sampled = RolloutSettings(model=str(folder), pattern=f"{folder.parent / 'turns.py'}:turns", max_tokens=6)
    local, agent = open_agent(folder, sampled)
    benchmark = catalog.benchmark(str(folder.parent / "own.py"))

    async def made() -> list[Any]:
        places = [Place(agent, benchmark, benchmark.tasks(0)[0], epoch) for epoch in range(2)]
        return [trace async for trace in rollouts(places)]

    traces = asyncio.run(made())
    local.close()
    graded = grade(traces)
    assert len(graded.episodes) == 4  # two branches of each rollout
    numbers = stream_logprobs(weights.load(folder), [each.ids for each in graded.episodes])
    for trace in traces:
        branches = [each for each in graded.episodes if each.source == trace.id]
        first = next(node.message.sampled for node in trace.nodes if node.message.sampled)
        once = sum(len(node.message.sampled.token_ids) for node in trace.nodes if node.message.sampled)
        assert sum(each.mask.sum() for each in branches) == pytest.approx(once)  # what branches share counts once
        for each in branches:
            shared = each.sampled[: len(first.token_ids)]
            assert tuple(each.ids[shared]) == first.token_ids and (each.mask[shared] == 0.5).all()
            tokens = [token for node in trace.nodes if node.message.sampled for token in node.message.sampled.token_ids]
            assert set(each.ids[each.sampled]) <= set(tokens)
            assert each.mask.sum() < len(each.ids) - 10  # prompt, tool result and template
    for each, number in zip(graded.episodes, numbers, strict=True):
        at = each.sampled
        assert np.abs(number.logprobs[at] - each.own[at]).max() < 1e-4
    (stream, *_) = policy_streams(graded.episodes, [1.0, 2.0, 3.0, 4.0], sampled)
    assert (stream.pg > 0).tolist() == (graded.episodes[0].mask > 0).tolist()
    assert (stream.advantage[stream.pg > 0] == 1).all() and (stream.advantage[stream.pg == 0] == 0).all()


@pytest.mark.slow
def test_settings_that_cannot_learn_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="temperature is 0"):
        config_of("grpo", folder, temperature=0.0)
    with pytest.raises(ConfigError, match="held_out is 6, and own has 6 tasks"):
        train("grpo", folder, tmp_path / "run", held_out=6)
    with pytest.raises(ConfigError, match="group_size is 0"):
        config_of("grpo", folder, group_size=0)
    with pytest.raises(ConfigError, match="name the benchmark"):
        train("grpo", folder, tmp_path / "none", benchmark="")


@pytest.mark.slow
def test_held_out_tasks_are_scored_before_the_first_update_and_never_trained_on(folder: Path, tmp_path: Path) -> None:
    rows = train("grpo", folder, tmp_path / "run", held_out=2, eval_every=2, steps=3)
    assert ["held_out_reward" in row for row in rows] == [True, False, True]


def test_dr_grpo_divides_by_the_answers_of_a_step_times_a_constant_length(folder: Path) -> None:
    config = config_of("dr_grpo", folder, minibatches=2, kl=0.1)
    objective = importlib.import_module("firsthand.train.recipes.dr_grpo").objective(config)

    def stream(*pg: float, source: str = "") -> Stream:
        zeros = np.zeros(len(pg))
        return Stream([1] * len(pg), pg=pg, advantage=zeros, behaviour=zeros, ref_kl=pg, reference=zeros, source=source)

    streams = [stream(0, 1, 1, source="a"), stream(0, 0, 1, source="a"), stream(0, 1, source="b"), stream(0, 1)]
    divisors = objective.divisors_of([*streams, stream(0, 0, source="c"), Stream([1, 2], ce=[0, 1], source="d")])
    assert (divisors["pg"], divisors["ref_kl"], divisors["watch"], divisors["ce"]) == (3 * 5, 3 * 5, 5, 1)
    assert num_answers([stream(0, 1), stream(0, 1)]) == 2 and num_answers([]) == 0
    plain = policy_objective(lambda *each: each[0]).divisors_of(streams)
    assert (plain["pg"], plain["ref_kl"]) == (5, 5)
    with pytest.raises(ConfigError, match="answer_length is 0: expected a number above 0"):
        policy_objective(lambda *each: each[0], answer_length=0)


def test_the_kl_of_dr_grpo_is_weighed_as_its_policy_gradient_and_told_per_token(folder: Path) -> None:
    model, rng, total, told, num_tokens = weights.load(folder).eval(), np.random.default_rng(0), 0.0, 0.0, 0
    config = config_of("dr_grpo", folder, max_tokens=64, kl=0.5)
    objective = importlib.import_module("firsthand.train.recipes.dr_grpo").objective(config)
    streams = []
    for count, advantage in ((4, 0.5), (6, -0.75)):
        ids = rng.integers(3, 20, 3 + count)
        mask = np.array([0.0] * 3 + [1.0] * count)
        (own,) = stream_logprobs(model, [ids])
        reference = own.logprobs + rng.normal(0, 1, len(ids))
        gap = (reference - own.logprobs)[3:]
        k3 = np.exp(gap) - 1 - gap
        total, told, num_tokens = total + (-advantage * count + 0.5 * k3.sum()), told + k3.sum(), num_tokens + count
        streams.append(
            Stream(ids, pg=mask, advantage=advantage * mask, behaviour=own.logprobs, ref_kl=mask, reference=reference)
        )
    loss, metrics = step_loss(model, packed(streams), objective, objective.divisors_of(streams))
    assert loss.item() == pytest.approx(total / (2 * 64), rel=1e-4), "TRL's loss_type=dr_grpo"
    assert metrics["ref_kl"] == pytest.approx(told / num_tokens, rel=1e-4), "nats per token, as the doctor reads them"
