"""Rollouts made by hand: their episodes, rewards, counts and reasons, where they are kept, and how batches are split."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, ModelError, TrainingError
from firsthand.message import Message, Sampled, Text, user
from firsthand.trace import Call, Failure, Node, PromptIds, Score, Trace
from firsthand.train.episodes import Episode, Graded, grade
from firsthand.train.importance import importance_weights
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.policy_streams import corrected, importance_metrics, policy_streams
from firsthand.train.reinforcement import _drawn
from firsthand.train.rollout_batches import GapCheck, RolloutBatches, _to_json
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.streams import Stream

STOPPED = {"finish_reasons": ["stop"]}


def answer(parent: int, ids: Sequence[int], adapter: str = "", *, behaviour: bool = True) -> Node:
    own = tuple(-0.1 * id for id in ids)
    sampled = Sampled(tuple(ids), own, tuple(-0.2 * id for id in ids) if behaviour else None, adapter=adapter)
    return Node(parent, Message("assistant", (Text("x"),), sampled))


def trace(
    task: str,
    *scores: Score | float,
    epoch: int = 0,
    nodes: Sequence[Node] = (),
    calls: Sequence[Call] = (),
    **more: Any,
) -> Trace:
    """One question and one answer of the tokens 5, 6 and 7 after the prompt 1, 2, unless nodes and calls are given."""
    given = tuple(Score("vowels", each) if isinstance(each, float) else each for each in scores)
    made = nodes or (Node(None, user("q")), answer(0, (5, 6, 7)))
    asked = calls or (
        Call(":0", "generate", 0, 0.0, 0.0, "r", nodes=(1,), prompt=PromptIds((1, 2)), detail=dict(STOPPED)),
    )
    body = {
        "id": f"{task}{epoch}", "benchmark": "b", "task_id": task, "agent": {"name": "a", "model": "m"}, "epoch": epoch,
        "seed": 0,
        "started_at": "", "duration_s": 0.0, "nodes": tuple(made), "calls": tuple(asked), "scores": given,
    }  # fmt: skip
    return Trace(**{**body, **more})


def refused(act: Callable[[], Any], kind: type[Exception] = TrainingError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


def test_an_episode_has_the_recorded_tokens_and_their_reward() -> None:
    [episode] = grade([trace("t", 0.5)], label="#3").episodes
    assert (episode.ids.tolist(), episode.mask.tolist()) == ([1, 2, 5, 6, 7], [0, 0, 1, 1, 1])
    assert episode.own.tolist() == pytest.approx([0, 0, -0.5, -0.6, -0.7])
    assert episode.behaviour.tolist() == pytest.approx([0, 0, -1.0, -1.2, -1.4])
    assert (episode.reward, episode.group, episode.source, episode.sampled.tolist()) == (0.5, "t#3", "t0", [2, 3, 4])
    assert episode.with_reward(2.0).reward == 2.0 and episode.reward == 0.5
    assert refused(
        lambda: grade([trace("t", 0.5, nodes=(Node(None, user("q")), answer(0, (5,), behaviour=False)))]), ModelError
    ) == (
        "trace t0 has no log-probs of the distribution that was sampled: m does not report them, so train on rollouts of a "
        "local model"
    )


def test_a_token_that_two_branches_share_counts_half_in_each() -> None:
    nodes = (
        Node(None, user("q")),
        answer(0, (5, 6)),
        Node(1, user("a")),
        answer(2, (7,)),
        Node(1, user("b")),
        answer(4, (8, 9)),
    )
    calls = (
        Call(":0", "generate", 0, 0.0, 0.0, "r", nodes=(1,), prompt=PromptIds((1, 2))),
        Call(":1", "generate", 2, 0.0, 0.0, "r", nodes=(3,), prompt=PromptIds((3,), 0, 0, 4)),
        Call(":2", "generate", 4, 0.0, 0.0, "r", nodes=(5,), prompt=PromptIds((4,), 0, 0, 4)),
    )
    graded = grade([trace("t", 1.0, nodes=nodes, calls=calls)])
    assert [each.ids.tolist() for each in graded.episodes] == [[1, 2, 5, 6, 3, 7], [1, 2, 5, 6, 4, 8, 9]]
    assert [each.mask.tolist() for each in graded.episodes] == [[0, 0, 0.5, 0.5, 0, 1], [0, 0, 0.5, 0.5, 0, 1, 1]]
    assert graded.metrics["answer_tokens"] == 5.0 and graded.metrics["rollouts"] == 1.0


def test_rollouts_are_counted_by_what_became_of_them_and_come_in_order_of_tasks() -> None:
    failed = Failure("ToolError", "it broke")
    traces = [
        trace("b", 1.0, epoch=1), trace("b", 1.0), trace("a", 0.0, Score("style", 0.5)),
        trace("a", 1.0, Score("style", 1.0), epoch=1),
        trace("c", 1.0, error=failed), trace("c", math.nan, epoch=1),
        trace("c", Score("vowels", 1.0, failure="ZeroDivisionError: x"), epoch=2),
        trace("d", epoch=0), trace("e", 0.0, stop_reason="tokens"),
        trace("f", 1.0, calls=(Call(":0", "generate", 0, 0.0, 0.0, "r", nodes=(1,), prompt=PromptIds((1,)),
        detail={"finish_reasons": ["length"]}),)),
    ]  # fmt: skip
    graded = grade(traces)
    assert [(each.source, each.reward) for each in graded.episodes] == [
        ("a0", 0), ("a1", 1), ("b0", 1), ("b1", 1), ("e0", 0), ("f0", 1)
    ]  # fmt: skip
    rewards = [0, 1, 1, 1, 0, 1]
    assert graded.metrics == pytest.approx({
        "reward": np.mean(rewards), "reward_std": np.std(rewards), "answer_tokens": 3.0, "rollouts": 6, "groups": 4,
        "groups_of_equal_rewards": 3, "rollouts_failed": 1, "rewards_failed": 3, "rollouts_cut": 2,
        "score.vowels": np.mean(rewards), "score.style": 0.75,
    })  # fmt: skip
    assert [each.reward for each in grade(traces[2:4], score="style").episodes] == [0.5, 1.0]
    assert "score.vowels" not in grade(traces[:2]).metrics, "one score is the reward"


def test_without_any_reward_the_first_reason_is_told() -> None:
    assert refused(lambda: grade([])) == "none of 0 rollouts has a reward: there are none"
    for given, score, told in (
        (trace("t", 1.0, error=Failure("ToolError", "it broke")), None, "rollout t failed with ToolError: it broke"),
        (trace("t", 1.0), "style", "rollout t has no score 'style': its scores are vowels"),
        (trace("t"), None, "rollout t has no score '': its scores are none"),
        (trace("t", Score("vowels", 1.0, failure="X: y")), None, "the reward vowels of t failed with X: y"),
        (trace("t", math.inf), None, "the reward vowels of t is inf: a finite number was expected"),
    ):
        assert (
            refused(lambda g=given, s=score: grade([trace("u", math.nan), g], score=s))
            == f"none of 2 rollouts has a reward: {told}"
        )  # type: ignore[misc]


def test_agents_have_episodes_groups_and_rewards_of_their_own() -> None:
    nodes = (Node(None, user("q")), answer(0, (5, 6), "lead"), Node(1, user("w")), answer(2, (7,), "worker"))
    calls = (
        Call(":0", "generate", 0, 0.0, 0.0, "r", nodes=(1,), prompt=PromptIds((1,))),
        Call(":1", "generate", 2, 0.0, 0.0, "r", nodes=(3,), prompt=PromptIds((3,), 0, 0, 3)),
    )
    at_node = (Score("style", 0.25, node=3), Score("style", 0.75, node=1), Score("style", 9.0))
    graded = grade(
        [trace("t", 1.0, *at_node, nodes=nodes, calls=calls)], label="#1", agents={"lead": None, "worker": "style"}
    )
    assert [(each.adapter, each.group, each.reward, each.mask.tolist()) for each in graded.episodes] == [
        ("lead", "t#1/lead", 1.0, [0, 1, 1, 0, 0]), ("worker", "t#1/worker", 0.5, [0, 0, 0, 0, 1])
    ]  # fmt: skip
    assert {name: value for name, value in graded.metrics.items() if name.startswith("agent.")} == {
        "agent.lead.reward": 1.0, "agent.lead.tokens": 2.0, "agent.worker.reward": 0.5, "agent.worker.tokens": 1.0
    }  # fmt: skip
    whole = grade([trace("t", 1.0, Score("style", 9.0), nodes=nodes, calls=calls)], agents={"worker": "style"})
    assert [each.reward for each in whole.episodes] == [9.0], "else the attempt's score"
    missing = grade([trace("t", 1.0, nodes=nodes, calls=calls),
        trace("u", 0.5, Score("style", 3.0), nodes=nodes, calls=calls)],
                    agents={"worker": "style"})  # fmt: skip
    assert (missing.metrics["rewards_failed"], missing.metrics["rollouts"], missing.metrics["reward"]) == (1, 1, 0.5)
    assert refused(lambda: grade([trace("t", 1.0, nodes=nodes, calls=calls)], agents={"critic": None})).startswith(
        "no branch of the rollouts belongs to the agent 'critic': name agents as the pattern names its branches"
    )


# -- importance --


def episode(own: Sequence[float], behaviour: Sequence[float], mask: Sequence[float], **more: Any) -> Episode:
    return Episode(
        np.arange(len(own), dtype=np.int32),
        np.array(mask, float),
        np.array(own),
        np.array(behaviour),
        1.0,
        "g",
        "s",
        **more,
    )


def test_importance_weights_are_cut_or_dropped_by_token_or_by_answer() -> None:
    own, behaviour = np.log([0.5, 0.8, 0.9]), np.log([0.25, 0.1, 0.9])
    ratios = {mode: importance_weights(own, behaviour, cap=4.0, mode=mode).tolist() for mode in
              ("token", "token_mask", "sequence", "sequence_mask")}  # fmt: skip
    assert ratios["token"] == pytest.approx([2, 4, 1]) and ratios["token_mask"] == pytest.approx([2, 0, 1])
    assert ratios["sequence"] == pytest.approx([4] * 3) and ratios["sequence_mask"] == [0] * 3
    assert importance_weights(own, behaviour, cap=16.5, mode="sequence_mask").tolist() == pytest.approx([16] * 3)
    assert importance_weights(np.array([0.0]), np.array([-1e9]), cap=7.0).tolist() == [7.0]
    metrics = importance_metrics([episode(own, behaviour, (1, 1, 0)), episode([0.0, 1], [0.0, 1], (0, 1))], 4.0)
    assert metrics == pytest.approx({"importance_ratio": (2 + 8 + 1) / 3, "importance_capped": 1 / 3})


def test_streams_have_the_advantages_of_sampled_tokens_with_their_corrections() -> None:
    first = episode(
        np.log([0.9, 0.5, 0.8]),
        np.log([0.9, 0.25, 0.1]),
        (0, 1, 0.5),
        importance=np.array([9.0, 0.5, 2.0]),
        adapter="lead",
    )
    plain = RolloutSettings()
    [made] = policy_streams([replace(first, importance=None)], [3.0], plain)
    assert made.pg is not None and made.advantage is not None and made.behaviour is not None
    assert (made.pg.tolist(), made.advantage.tolist(), made.adapter, made.group, made.source) == (
        [0, 1, 0.5],
        [0, 3, 3],
        "lead",
        "g",
        "s",
    )
    assert made.behaviour.tolist() == pytest.approx(np.log([0.9, 0.25, 0.1]), rel=1e-6) and made.reference is None
    [made] = policy_streams([first], [np.array([1.0, 2, 4])], plain, mean_per_answer=True, references=[np.full(3, -1.0)],
                            more=[{"value": first.mask, "returns": first.mask}])  # fmt: skip
    assert made.pg is not None and made.advantage is not None and made.ref_kl is not None and made.returns is not None
    assert made.pg.tolist() == pytest.approx([0, 2 / 3, 1 / 3]) == made.ref_kl.tolist()
    assert made.advantage.tolist() == [0, 1, 8] and made.returns.tolist() == [0, 1, 0.5]
    [made] = policy_streams(
        [replace(first, importance=None)], [3.0], RolloutSettings(correct_to_model=True, importance_cap=4.0)
    )
    assert made.advantage is not None and made.behaviour is not None
    assert made.advantage.tolist() == pytest.approx([0, 6, 12]) and made.behaviour[1] == pytest.approx(np.log(0.5))


def test_episodes_of_another_arithmetic_are_corrected_to_the_trainers() -> None:
    graded = Graded(
        (episode([0.0, -1, -2], [0.0, -1.5, -2], (0, 1, 1)), episode([0.0, -1], [0.0, -3], (0, 1))), {"reward": 1.0}
    )
    trainer = [np.array([7.0, -1.0, -2.5]), np.array([0.0, -1.0])]
    found = corrected(graded, trainer, RolloutSettings(importance_cap=3.0))
    assert [each.behaviour.tolist() for each in found.episodes] == [[0, -1, -2.5], [0, -1]]
    assert [each.own.tolist() for each in found.episodes] == [[0, -1, -2.5], [0, -1]]
    weights = [each.importance.tolist() for each in found.episodes if each.importance is not None]
    assert weights[0] == pytest.approx([1, math.exp(0.5), math.exp(-0.5)]) and weights[1] == [1, 3]
    ratios = [math.exp(0.5), math.exp(-0.5), math.exp(2)]
    assert found.metrics == pytest.approx(
        {"reward": 1.0, "sampler_gap": 2.0, "importance_ratio": sum(ratios) / 3, "importance_capped": 1 / 3}
    )
    assert graded.episodes[0].behaviour.tolist() == [0, -1.5, -2], "those that were given stay as they were"


# -- where they are kept --


def test_finished_rollouts_of_a_round_are_found_again_under_the_same_weights(tmp_path: Path) -> None:
    kept = KeptRollouts(tmp_path / "run" / "kept")
    assert kept.begin("round", 3, "w1") == {}
    traces = [trace("t", 1.0, place="p1"), trace("t", 1.0, epoch=1, place="p2", answer="é\ud800")]
    for each in traces:
        kept.add(each)
    file = tmp_path / "run" / "kept" / "round-000003-0.jsonl"
    assert json.loads(file.read_bytes().split(b"\n")[0]) == {"weights": "w1"}
    again = KeptRollouts(tmp_path / "run" / "kept").begin("round", 3, "w1")
    assert {place: found.id for place, found in again.items()} == {"p1": "t0", "p2": "t1"} and again[
        "p2"
    ].answer == "é\ud800"
    with file.open("ab") as cut:
        cut.write(b'{"id": "cut sho')
    (tmp_path / "run" / "kept" / "round-000003-1.jsonl").write_text(
        '{"weights": "w1"}\n' + json.dumps(trace("o", 1.0, place="p3").to_json()) + "\n"
    )
    mended = KeptRollouts(tmp_path / "run" / "kept")
    assert sorted(mended.begin("round", 3, "w1")) == ["p1", "p2", "p3"], "of other processes too"
    mended.add(trace("t", 0.0, epoch=2, place="p4"))
    assert sorted(KeptRollouts(tmp_path / "run" / "kept").begin("round", 3, "w1")) == ["p1", "p2", "p3", "p4"]
    assert kept.begin("round", 4, "w1") == {} and kept.begin("held-out", 3, "w1") == {}
    kept.drop_before("round", 4)
    assert sorted(each.name for each in (tmp_path / "run" / "kept").iterdir()) == [
        "held-out-000003-0.jsonl", "round-000003-1.jsonl", "round-000004-0.jsonl"
    ]  # fmt: skip
    kept.begin("round", 4, "w1")
    kept.add(traces[0])
    assert KeptRollouts(tmp_path / "run" / "kept").begin("round", 4, "w2") == {}
    assert KeptRollouts(tmp_path / "run" / "kept").begin("round", 4, "w2") == {}, "the file is begun anew"
    (tmp_path / "run" / "kept" / "round-000004-0.jsonl").write_text("no header")
    assert KeptRollouts(tmp_path / "run" / "kept").begin("round", 4, "w2") == {}


# -- batches --


def batches(**plan: Any) -> RolloutBatches:
    made = RolloutBatches.__new__(RolloutBatches)
    made.tasks = tuple("abcde")  # type: ignore[assignment]
    made.seed, made._order, made.plan, made.rounds = 3, None, RolloutSettings(**plan), 2
    made.batches_made, made._pending, made._covered = 1, [], 0
    made.metrics = {"reward": 0.5}
    made._data = {"tasks": "t", "mixed": "m"}
    made.benchmark = Benchmark("own", lambda seed: [], ())
    return made


def test_tasks_come_in_a_new_permutation_each_pass() -> None:
    made = batches()
    order = [made._task(index) for index in range(15)]
    passes = [order[:5], order[5:10], order[10:]]
    assert all(sorted(each) == [*"abcde"] for each in passes) and len({tuple(each) for each in passes}) > 1
    assert [batches()._task(index) for index in (12, 3, 7)] == [order[12], order[3], order[7]], "by the place alone"


def test_streams_are_split_into_minibatches_of_every_pass() -> None:
    streams = [Stream([n, n]) for n in range(5)]

    def ids(found: list[list[Stream]]) -> list[list[int]]:
        return [[int(each.ids[0]) for each in part] for part in found]

    assert ids(batches()._split(streams)) == [[0, 1, 2, 3, 4]] and batches()._split([]) == [[]]
    assert ids(batches(updates=2)._split(streams)) == [[0, 1, 2, 3, 4]] * 2
    found = ids(batches(updates=2, minibatches=2)._split(streams))
    assert [len(each) for each in found] == [3, 2, 3, 2] and found[:2] != found[2:]
    assert sorted(found[0] + found[1]) == sorted(found[2] + found[3]) == [0, 1, 2, 3, 4]
    assert [len(each) for each in batches(minibatches=4)._split(streams)] == [2, 2, 1]


def test_a_state_has_the_pending_streams_and_is_loaded_back() -> None:
    made = batches()
    made._pending = [
        [Stream([1, 2], pg=[0, 1], advantage=[0, 2], behaviour=[0, -1], group="g", pair=3, label=-1.0)],
        [],
    ]
    state = json.loads(json.dumps(made.state()))
    assert (state["rounds"], state["batches"], made._covered) == (2, 1, 2)
    other = batches()
    other.rounds = other.batches_made = 0
    other.load(state)
    assert (other.rounds, other.batches_made, len(other._pending), other.metrics) == (2, 1, 2, {"reward": 0.5})
    assert _to_json(other._pending[0][0]) == _to_json(made._pending[0][0])


def test_the_gap_of_sampler_and_trainer_is_checked_on_fresh_batches_alone() -> None:
    def check(metrics: dict[str, float], *, exact: bool = True, cuts: bool = False, on_policy: bool = True) -> None:
        batch = SimpleNamespace(on_policy=on_policy)
        GapCheck(batch, is_exact=exact, has_cuts=cuts).log(metrics, step=7)  # type: ignore[arg-type]

    check({"sampler_gap": 1e-4}), check({"loss": 1.0}), check({"sampler_gap": 1.0}, exact=False)
    check({"sampler_gap": 1.0}, on_policy=False), check({"sampler_gap": 1.0, "gap_share": 1e-3}, cuts=True)
    said = refused(lambda: check({"sampler_gap": 2e-4}))
    assert said.startswith("step 7: log-probs of sampler and trainer differ by 0.0002, and float32 explains 0.0001:")
    (
        refused(lambda: check({"sampler_gap": 1e-5, "gap_share": 2e-3}, cuts=True)),
        refused(lambda: check({"sampler_gap": 0.0}, cuts=True)),
    )


def test_streams_that_are_mixed_in_go_through_all_in_turn() -> None:
    streams = [Stream([n, n]) for n in range(3)]
    drawn = [int(each.ids[0]) for batch in (1, 2, 3) for each in _drawn(streams, 2, 5, batch)]
    assert sorted(drawn[:3]) == [0, 1, 2] == sorted(drawn[3:]) and _drawn([], 2, 5, 1) == [] == _drawn(streams, 0, 5, 1)


# -- settings --


def test_settings_of_rollouts_are_refused_beyond_their_limits() -> None:
    for name in ("prompts", "group_size", "updates", "minibatches", "eval_every", "concurrency"):
        RolloutSettings(**{name: 1})
        assert refused(lambda n=name: RolloutSettings(**{n: 0}), ConfigError) == f"{name} is 0: expected 1 or more"  # type: ignore[misc]
    RolloutSettings(importance_cap=0.1), RolloutSettings(sampler="ray:999"), RolloutSettings(sampler="ray:1@host:3")
    endpoint = "openai:m@http://h/v1"
    for wrong, said in (
        ({"held_out": -1}, "held_out is -1 and importance_cap 3.0: expected 0 or more"),
        ({"importance_cap": 0}, "importance_cap 0"),
        ({"temperature": 0}, "temperature is 0: all rollouts of a task would be equal"),
        ({"agents": ("a", "a=x")}, "give each name once"),
        ({"agents": ("a/b",)}, "in letters, digits, spaces and - _"), ({"agents": ("",)}, "give each name once"),
        ({"sampler": endpoint, "temperature": 0.5}, "leave temperature at 1"),
        ({"sampler": endpoint, "top_k": 1}, "leave temperature"),
        ({"sampler": endpoint, "top_p": 0.9}, "leave temperature"),
        ({"sampler": endpoint, "correct_to_model": True}, "leave temperature"),
        ({"sampler": "ray:0"}, "sampler is 'ray:0': give local, ray:N"), ({"sampler": "ray:1000"}, "give local"),
        ({"sampler": "x"}, "give local"),
        ({"correct_to_trainer": "on", "correct_to_model": True}, "are both given: give one of them"),
    ):  # fmt: skip
        assert said in refused(lambda w=wrong: RolloutSettings(**w), ConfigError), wrong  # type: ignore[misc]
    made = RolloutSettings(sampler=endpoint, agents=("lead", " worker =style"), max_tokens=9)
    assert made.is_endpoint and made.agent_scores == {"lead": None, "worker": "style"} and not made.has_cuts
    assert (
        RolloutSettings(top_k=1).has_cuts and RolloutSettings(top_p=0.99).has_cuts and not RolloutSettings().is_endpoint
    )
    sampling = RolloutSettings(max_tokens=9, temperature=0.5, top_k=3, top_p=0.7).sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_k, sampling.top_p) == (9, 0.5, 3, 0.7)
