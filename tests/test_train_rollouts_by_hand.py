"""Batches of rollouts from a script: which tasks come in which round, what is asked again, kept, evaluated and told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, DataError, TrainingError
from firsthand.message import Message, Sampled, Text
from firsthand.model import Completion
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.system import interruption
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.train.episodes import Graded
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.rollout_batches import MAX_ROUNDS, RolloutBatches, tasks_digest
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.samplers import weights_digest
from firsthand.train.streams import Stream
from train_tiny import model


class Rewarded(Scripted):
    """Answers each task with its next reward, as that many tokens more than its number of answers so far."""

    def __init__(self, rewards: Mapping[str, Sequence[float]]):
        super().__init__(self._next, name="scripted")
        self.rewards, self.given = rewards, dict.fromkeys(rewards, 0)

    def _next(self, messages: Sequence[Message], sampling: Any, index: int) -> Message:
        task = messages[-1].text
        place, self.given[task] = self.given[task], self.given[task] + 1
        rewards = self.rewards[task]
        ids = tuple(range(5, 6 + place % 3))
        sampled = Sampled(ids, (-0.5,) * len(ids), (-0.25,) * len(ids))
        return Message("assistant", (Text(str(rewards[place % len(rewards)])),), sampled)

    async def complete(self, *given: Any, **more: Any) -> list[Completion]:
        return [replace(each, prompt_ids=(1, 2)) for each in await super().complete(*given, **more)]


class Sent:
    """A sampler of the scripted model that keeps the versions it was sent."""

    def __init__(self, given: Scripted):
        self.model, self.versions = given, []

    async def send(self, version: int) -> None:
        self.versions.append(version)


def reward(task: Task, trace: Trace) -> float:
    return float(trace.answer or "nan")


def streams_of(graded: Graded) -> tuple[list[Stream], dict[str, float]]:
    made = [Stream(each.ids, ce=each.mask, source=f"{each.group}:{each.reward}") for each in graded.episodes]
    return made, {"streams": float(len(made)), "reward": 99.0}


def batches(rewards: Mapping[str, Sequence[float]], tasks: Sequence[str] = "abc", **given: Any) -> RolloutBatches:
    own = Benchmark("own", lambda seed: [], (reward,))
    scripted = Rewarded(rewards)
    agent = Agent("direct", scripted, *catalog.pattern("direct"))
    plan = RolloutSettings(concurrency=1, **given.pop("plan", {}))
    made = given.pop("made", None) or [Task(each, each) for each in tasks]
    return RolloutBatches(model(), agent, own, made, plan, streams_of, sampler=Sent(scripted), **given)


def batch_of(made: RolloutBatches) -> list[Stream]:
    """The next batch alone; what makes it is closed, so that a test that fails does not wait for it."""
    with closing(iter(made)) as found:
        return next(found)


def sources(streams: Sequence[Stream]) -> list[str]:
    return [each.source for each in streams]


def test_a_round_asks_the_next_tasks_with_epochs_of_its_own() -> None:
    made = batches({"a": [1, 0], "b": [2], "c": [3, 5, 7, 9]}, plan={"prompts": 2, "group_size": 2}, seed=4)
    order = [made._task(place).id for place in range(4)]
    epochs: list[tuple[str, int]] = []
    taken = made._made

    async def noted(places: Sequence[Place], label: str) -> list[Trace]:
        epochs.extend((place.task.id, place.epoch) for place in places)
        assert label == "round"
        return await taken(places, label)

    made._made = noted  # type: ignore[method-assign]
    with interruption.Runner() as runner:
        first, second = made._round(runner), made._round(runner)
    assert epochs == [(order[0], 0), (order[0], 1), (order[1], 0), (order[1], 1),
                      (order[2], 2), (order[2], 3), (order[3], 2), (order[3], 3)]  # fmt: skip
    assert made.rounds == 2 and [len(each.episodes) for each in (first, second)] == [4, 4]
    assert {each.group for each in first.episodes} == set(order[:2]), "no number of the round in their names"


def test_a_task_that_comes_twice_in_a_round_is_asked_once_and_a_reward_model_may_take_over() -> None:
    made = batches({"a": [1, 2, 3, 4]}, "a", plan={"prompts": 3, "group_size": 2}, dynamic=True)
    made.rescore = lambda graded: replace(graded, metrics={**graded.metrics, "rescored": float(len(graded.episodes))})
    with interruption.Runner() as runner:
        first, second = made._round(runner), made._round(runner)
    assert [(each.group, each.reward) for each in (*first.episodes, *second.episodes)] == [
        ("a#1", 1.0), ("a#1", 2.0), ("a#2", 3.0), ("a#2", 4.0)
    ]  # fmt: skip
    assert first.metrics["rescored"] == 2.0 and second.metrics["reward"] == 3.5


def test_a_batch_sends_the_weights_first_and_tells_its_metrics_and_those_of_held_out_tasks() -> None:
    made = batches(
        {"a": [1, 0], "x": [4, 7], "y": [6]}, "a", plan={"prompts": 1, "group_size": 2, "eval_every": 2},
        held_out=[Task("x", "x"), Task("y", "y")],
    )  # fmt: skip
    made.rounds = 1  # as after a batch that took more rounds than one
    with closing(iter(made)) as found:
        assert (
            sources(next(found)) == ["a:1.0", "a:0.0"] and made.on_policy and (made.batches_made, made.rounds) == (1, 2)
        )
        told = dict(made.metrics)
        assert told.pop("rollout_s") > 0
        assert told == {
            "reward": 99.0, "reward_std": 0.5, "answer_tokens": 1.5, "rollouts": 2.0, "groups": 1.0,
            "groups_of_equal_rewards": 0.0, "rollouts_failed": 0.0, "rewards_failed": 0.0, "rollouts_cut": 0.0,
            "streams": 2.0, "held_out_reward": 5.0, "held_out_answer_tokens": 1.0,
        }  # fmt: skip
        next(found)
        assert "held_out_reward" not in made.metrics, "the second batch is not due"
        next(found)
        assert (made.metrics["held_out_reward"], made.metrics["held_out_answer_tokens"]) == (6.5, 2.0)
        assert made.sampler.versions == [2, 3, 4] and made.batches_made == 3


def test_streams_are_used_in_passes_and_minibatches_and_only_the_first_is_on_policy() -> None:
    plan = {"prompts": 1, "group_size": 3, "updates": 2, "minibatches": 2}
    made = batches({"a": [1, 2, 3, 4]}, "a", plan=plan, seed=2)
    found = []
    for streams in islice(made, 5):
        found.append((len(streams), made.on_policy, made.rounds))
    assert found == [(2, True, 1), (1, False, 1), (2, False, 1), (1, False, 1), (2, True, 2)]
    other = batches({"a": [1, 2, 3, 4]}, "a", plan={**plan, "minibatches": 1}, seed=2)
    taken = [sources(each) for each in islice(other, 2)]
    assert taken == [["a:1.0", "a:2.0", "a:3.0"]] * 2, "a whole pass keeps its order"


def test_a_state_has_the_rounds_and_what_is_not_used_up() -> None:
    plan = {"prompts": 1, "group_size": 2, "updates": 2}
    made = batches({"a": [1, 2]}, "a", plan=plan)
    data = {name: made.state()[name] for name in ("tasks", "mixed")}
    assert made.state() == {"rounds": 0, "batches": 0, **data, "pending": [], "metrics": {}} and made._covered == 0
    batch_of(made)
    state = made.state()
    rows = [{"ids": [1, 2, 5], "ce": [0.0, 0.0, 1.0], "group": "", "source": "a:1.0", "adapter": ""},
            {"ids": [1, 2, 5, 6], "ce": [0.0, 0.0, 1.0, 1.0], "group": "", "source": "a:2.0", "adapter": ""}]  # fmt: skip
    assert made.metrics["streams"] == 2.0, "each step has those of its rollouts"
    assert (
        state == {"rounds": 1, "batches": 1, **data, "pending": [rows], "metrics": made.metrics} and made._covered == 1
    )
    other = batches({"a": [5]}, "a", plan=plan)
    other.load(json.loads(json.dumps(state)))
    taken = batch_of(other)
    assert other.metrics == made.metrics
    assert sources(taken) == ["a:1.0", "a:2.0"] and not other.on_policy and (other.rounds, other.batches_made) == (1, 1)


def test_a_state_is_of_its_tasks_and_of_what_is_mixed_in() -> None:
    def state(**given: Any) -> dict[str, Any]:
        return batches({}, **given).state()

    mixed, task = [Stream([1, 2], ce=[0, 1])], Task("a", "p", secret={"target": "x"})
    before = state(mixed=mixed)
    batches({}, mixed=[Stream([1, 2], ce=[0, 1])]).load(before)
    batches({}, mixed=mixed).load({"rounds": 1, "batches": 1, "pending": []})  # of 0.26
    for tasks, held_out in (("abd", ()), ("ab", ()), ("acb", ()), ("abc", [Task("d", "d")])):
        with pytest.raises(DataError) as refused:
            batches({}, tasks, held_out=held_out, mixed=mixed).load(before)
        assert str(refused.value) == (
            "the tasks of own are not what the run began with: give the same, or begin the run anew in another folder"
        )
    for other in ([], [Stream([1, 3], ce=[0, 1])], [Stream([1, 2], ce=[0, 0.5])]):
        with pytest.raises(DataError, match=r"^the texts that are mixed in are not what the run began with"):
            batches({}, mixed=other).load(before)
    for changed in ({"prompt": "q"}, {"secret": {"target": "y"}}, {"choices": ("1",)}, {"id": "b"}, {"context": "c"},
                    {"conversation": (Message("user", "hi"),)}):  # fmt: skip
        assert tasks_digest([replace(task, **changed)]) != tasks_digest([task])
    assert tasks_digest([replace(task, metadata={"cluster": "1"})]) == tasks_digest([task])
    assert tasks_digest([Task("a", "p", secret={"x": object()})]) == tasks_digest(
        [Task("a", "p", secret={"x": object()})]
    )


def test_tasks_are_known_again_whatever_their_targets_are() -> None:
    def found(target: Any) -> str:
        return tasks_digest([Task("a", "p", secret={"target": target})])

    targets: list[Any] = [{(1, 2): 3}, {(1, 2): 4}, {(1, 3): 3}, {1: 2, "1": 3}, {"1": 2}, {1: 2}, {"x", "y"}, {"x", "z"},
                          b"x", b"y", [1], (2,), None, True, "1", 1, 1.5, object(), complex(1)]  # fmt: skip
    assert len({found(each) for each in targets}) == len(targets)
    assert found({1: 2, "b": 3}) == found({"b": 3, 1: 2}) and found(["x"]) == found(("x",))
    assert found(set([0, 8])) == found(set([8, 0])) != found([0, 8])


def test_rollouts_that_were_kept_are_of_the_same_tasks(tmp_path: Path) -> None:
    plan = {"prompts": 1, "group_size": 1}
    for prompt, source in (("a", "t:1.0"), ("a", "t:1.0"), ("b", "t:2.0"), ("a", "t:5.0")):
        given = {"a": [5] if source == "t:5.0" else [1], "b": [2]}
        made = batches(given, plan=plan, kept=KeptRollouts(tmp_path), made=[Task("t", prompt)])
        assert sources(batch_of(made)) == [source]
    made = batches({"a": [7]}, plan=plan, kept=KeptRollouts(tmp_path), made=[Task("t", "a")])
    assert sources(batch_of(made)) == ["t:5.0"], "those of the same tasks are read"


def test_dynamic_sampling_goes_on_until_enough_groups_differ_and_takes_the_first() -> None:
    rewards = {"a": [1, 1, 0, 1], "b": [0, 0, 0, 2], "c": [3, 3, 4, 5]}
    made = batches(rewards, plan={"prompts": 2, "group_size": 2}, dynamic=True, seed=1)
    streams = batch_of(made)
    rounds, count, kept = [], dict.fromkeys("abc", 0), []
    for number in range(made.rounds):
        assert len(kept) < 2, "no further round once there are two groups"
        asked = dict.fromkeys(made._task(place).id for place in (2 * number, 2 * number + 1))
        rounds.append([])
        for task in asked:
            pair = [float(rewards[task][(count[task] + each) % 4]) for each in range(2)]
            count[task] += 2
            rounds[-1].append((f"{task}#{number + 1}", pair))
        kept += [(name, pair) for name, pair in sorted(rounds[-1]) if pair[0] != pair[1]]
    assert sources(streams) == [f"{name}:{each}" for name, pair in kept[:2] for each in pair]
    assert made.rounds > 1 and made.metrics["sampled_rounds"] == made.rounds and made.batches_made == 1
    first = [each for _, pair in rounds[0] for each in pair]
    assert made.metrics["reward_std"] == pytest.approx(math.sqrt(sum((x - sum(first) / 4) ** 2 for x in first) / 4))


def test_groups_beyond_the_number_of_a_batch_are_left_out() -> None:
    made = batches({}, "abcd", plan={"prompts": 2, "group_size": 2}, dynamic=True, seed=1)
    one, two, three, four = (made._task(place).id for place in range(4))
    scripted = made.agent.model
    scripted.rewards = {one: [1, 0], two: [5, 5], three: [0, 2], four: [0, 3]}  # type: ignore[attr-defined]
    scripted.given = dict.fromkeys("abcd", 0)  # type: ignore[attr-defined]
    second = min(three, four)
    assert sources(batch_of(made)) == [f"{one}#1:1.0", f"{one}#1:0.0", f"{second}#2:0.0",
                                         f"{second}#2:{2.0 if second == three else 3.0}"]  # fmt: skip


def test_a_constant_reward_stops_after_ten_rounds_in_a_sentence() -> None:
    made = batches({each: [0.25] for each in "abc"}, plan={"prompts": 2, "group_size": 2}, dynamic=True)
    with pytest.raises(TrainingError) as stopped:
        batch_of(made)
    assert str(stopped.value) == (
        "10 rounds of 2 tasks had no group whose rewards differ (mean reward 0.25): the tasks are too hard or too easy for "
        "this model, or the reward is constant"
    )
    assert made.rounds == MAX_ROUNDS == 10 and made.sampler.versions == [1]
    few = batches({"a": [1, 2], "b": [3], "c": [3]}, plan={"prompts": 3, "group_size": 2}, dynamic=True)
    assert sources(batch_of(few))[:2] == ["a#1:1.0", "a#1:2.0"] and few.metrics["sampled_rounds"] == 3.0


def test_kept_rollouts_of_the_same_weights_are_not_made_again(tmp_path: Path) -> None:
    plan = {"prompts": 1, "group_size": 2}
    made = batches({"a": [0, 1, 2]}, "a", plan=plan, kept=KeptRollouts(tmp_path), held_out=[Task("a", "a")])
    batch_of(made)
    (tmp_path / "held-out-000000-0.jsonl").unlink()
    (file,) = tmp_path.iterdir()
    header, *rows = file.read_text().splitlines()
    assert file.name == "round-000001-0.jsonl" and len(rows) == 2
    assert header == f'{{"weights": "{weights_digest(made.policy)} {made.state()["tasks"]}"}}'
    file.write_text(f"{header}\n{rows[1]}\n")
    again = batches({"a": [8, 9]}, "a", plan=plan, kept=KeptRollouts(tmp_path), held_out=[Task("a", "a")])
    assert sorted(sources(batch_of(again))) == ["a:2.0", "a:9.0"], "one is read, one is made; 8 was the held-out one"
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"round-000001-0.jsonl", "held-out-000000-0.jsonl"}
    again.state()
    batch_of(again)
    batch_of(again)
    assert {each.name for each in tmp_path.iterdir()} == {
        "round-000001-0.jsonl", "round-000002-0.jsonl", "round-000003-0.jsonl", "held-out-000000-0.jsonl"
    }  # fmt: skip
    again.state()
    batch_of(again)
    assert "round-000002-0.jsonl" not in {each.name for each in tmp_path.iterdir()}


def test_files_of_rounds_that_are_covered_are_dropped_by_their_label(tmp_path: Path) -> None:
    kept = KeptRollouts(tmp_path)
    for label, number in (("held-out", 3), ("held-out", 4), ("round", 3), ("round", 12)):
        assert kept.begin(label, number, "w") == {}

    def left() -> list[str]:
        return sorted(each.name for each in tmp_path.iterdir())

    kept.drop_before("held-out", 4)
    names = ["held-out-000004-0.jsonl", "round-000003-0.jsonl", "round-000012-0.jsonl"]
    assert left() == names
    kept.drop_before("round", 3)
    assert left() == names
    kept.drop_before("round", 12)
    assert left() == [names[0], names[2]]


def test_batches_need_tasks_and_a_model_that_takes_weights() -> None:
    scripted = Rewarded({})
    own = Benchmark("own", lambda seed: [], (reward,))
    agent = Agent("direct", scripted, *catalog.pattern("direct"))
    for given, text in (
        ({}, "the policy is scripted: rollouts to train on need a local model or a sampler"),
        ({"sampler": Sent(scripted)}, "the benchmark own has no tasks to train on"),
    ):
        with pytest.raises(ConfigError) as refused:
            RolloutBatches(model(), agent, own, [], RolloutSettings(), streams_of, **given)
        assert str(refused.value) == text
