"""Runs carried out, compared and made into training data: each decision with both of its sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, LimitExceeded, UnknownName
from firsthand.message import Message, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import ToolSpec
from firsthand.preference import Preference
from firsthand.runs import store
from firsthand.runs.epoch_reducer import check_epochs, epoch_reducer, reduced
from firsthand.runs.execute import UNREACHABLE_IN_A_ROW, _FailuresInARow, _stopped
from firsthand.runs.flaky import Flaky, flaky
from firsthand.runs.forking import kept_calls
from firsthand.runs.pairing import Attempted, Comparison, Pair, compare, scores_of
from firsthand.runs.training_data import DataFilter, TrainingRows, attempt_rows, training_rows
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace
from made_traces import trace


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {"seed": 1}, "parts", command=["firsthand", "run"]) as made:
        yield made


# -- carried out --


def test_failures_in_a_row_are_counted_and_held_until_one_ends_otherwise() -> None:
    def kept(most: int | None, *kinds: str | None) -> list[Any]:
        row, found = _FailuresInARow(most), []
        for number, kind in enumerate(kinds):
            made = trace(str(number), error=Failure(kind, f"said {number}") if kind else None)
            found.append(("".join(each.id for each in row.to_keep(made)), row.count, row.is_full))
        return [*found, "".join(each.id for each in row.held), row.last]

    gone = "Unreachable"
    assert kept(2, "E", None, "E", gone) == [
        ("0", 1, False),
        ("1", 0, False),
        ("2", 1, False),
        ("", 2, True),
        "3",
        "said 3",
    ]
    assert kept(None, "E", gone, gone, None, gone) == [
        ("0", 0, False), ("", 1, False), ("", 2, False), ("123", 0, False), ("", 1, False), "4", "said 4",
    ]  # fmt: skip
    assert kept(None, *[gone] * UNREACHABLE_IN_A_ROW)[-3] == ("", UNREACHABLE_IN_A_ROW, True)
    assert kept(None, *[gone] * UNREACHABLE_IN_A_ROW)[-4] == ("", UNREACHABLE_IN_A_ROW - 1, False)
    assert kept(0, gone, gone, "E") == [("", 0, False), ("", 0, False), ("012", 0, False), "", "said 2"]
    assert kept(1, None) == [("0", 0, False), "", ""]


def test_a_run_that_stops_says_why_and_how_to_go_on(run: store.Run) -> None:
    missing: Any = {"x": 1, "y": 2}
    error = _stopped("cost_usd", run, missing)
    assert (
        isinstance(error, LimitExceeded)
        and error.limit == "cost_usd"
        and str(error)
        == (
            "cost budget of the whole run exhausted with 2 attempts to go; what is done is kept: "
            f"resume run {run.id} with a larger limit to finish them"
        )
    )
    row = _FailuresInARow(3)
    row.count, row.last = 3, "no route"
    assert str(row.ends(run, {"x": missing})) == (
        "3 attempts in a row failed, the last with: no route; what is done is kept, and 1 attempt to go: mend it, then "
        f"`firsthand run --resume {run.id}` finishes them (--fail-fast 0 never stops)"
    )


# -- compared --


def test_the_scores_of_epochs_are_reduced_by_their_definition() -> None:
    values = [1.0, 0.0, 0.5, 1.0]
    # of 4 attempts 2 are right: of the 6 pairs one has none right, and one both
    expected = {
        "median": 0.75, "max": 1.0, "mode": 1.0, "majority": 1.0, "pass_at_1": 0.5, "pass_at_2": 5 / 6, "pass_at_3": 1.0,
        "pass_hat_1": 0.5, "pass_hat_2": 1 / 6, "pass_hat_3": 0.0, "at_least_2": 1.0, "at_least_3": 0.0,
    }  # fmt: skip
    for name, value in expected.items():
        reduce = epoch_reducer(name)
        assert reduce is not None and reduce(values) == pytest.approx(value), name
    assert epoch_reducer("mean") is None is epoch_reducer("")
    mode = epoch_reducer("mode")
    assert mode is not None and mode([0.0, 1.0]) == 0.0, "the earliest of several"
    assert reduced({"p": [1, 0], "q": []}, "max") == {"p": [1.0], "q": []}
    assert reduced({"p": [1, 0]}, "mean") == {"p": [1, 0]}
    five = epoch_reducer("pass_at_5")
    assert five is not None
    with pytest.raises(
        ConfigError, match="reduce is pass_at_5, and a task has 4 scored attempts: give a k of at most that"
    ):
        five(values)
    check_epochs("pass_at_5", 5)
    with pytest.raises(ConfigError, match="reduce is pass_at_5, and there are 4 epochs: give --epochs 5 or more"):
        check_epochs("pass_at_5", 4)
    for name, said in (
        ("pass_at_0", "reduce is 'pass_at_0'"),
        ("meen", "did you mean 'mean'[?] there are mean, median"),
        ("pass_at", "give a number for k"),
    ):
        with pytest.raises(ConfigError, match=said):
            epoch_reducer(name)


@pytest.mark.slow
def test_two_runs_are_compared_task_by_task(tmp_path: Path) -> None:
    def made(name: str, attempts: list[Trace], tasks: dict[str, str], agents: Any = None, **config: Any) -> store.Run:
        run = store.create(tmp_path, {"seed": 1, **config}, name)
        run.add_tasks("b", [Task(task, prompt) for task, prompt in tasks.items()])
        for agent in agents or dict.fromkeys(each.agent_name for each in attempts):
            run.add_agent(agent, {"name": agent})
        for each in attempts:
            run.append(each)
        return run

    tasks = dict.fromkeys("pqrst", "?")
    one = made("one", [
        trace("1", "p", 0.0), trace("2", "p", 1.0, epoch=1), trace("3", "q", 1.0), trace("4", "r", 0.5),
        trace("5", "s", 1.0),
        trace("6", "t", None), trace("7", "p", 0.25, agent="z"), trace("0", "p", 1.0, benchmark="c"),
    ], tasks)  # fmt: skip
    two = made("two", [
        trace("1", "p", 1.0), trace("2", "p", 1.0, epoch=1), trace("3", "q", 0.25), trace("4", "r", 0.5),
        trace("5", "s", 1.0),
    ], tasks | {"s": "changed"})  # fmt: skip
    found = compare(one, two, agent_a="a", benchmark="b")
    assert (found.a, found.b) == (f"{one.id}/a", f"{two.id}/a")
    assert [(pair.task_id, pair.a.value, pair.b.value, pair.change) for pair in found.pairs] == [
        ("p", 0.5, 1.0, "better"), ("q", 1.0, 0.25, "worse"), ("r", 0.5, 0.5, "same"),
    ]  # fmt: skip
    assert found.values == ([0.5, 1.0, 0.5], [1.0, 0.25, 0.5])
    assert (found.only_a, found.only_b, found.changed, found.missing) == ((), (), (("b", "s"),), (("b", "t"),))
    assert found.unscored == ({"b": 1}, {"b": 0}) and found.repeated and found.num_unscored == (0, 0)
    assert [(each.task_id, each.where, each.values, each.disagreement) for each in flaky(found)] == [
        ("p", "a", (0.0, 1.0), 1.0), ("q", "between", (1.0, 0.25), 1.0), ("p", "between", (0.0, 1.0, 1.0, 1.0), 0.5),
    ]  # fmt: skip
    assert [pair.a.value for pair in compare(one, two, agent_a="a", benchmark="b", reduce="max").pairs] == [
        1.0,
        1.0,
        0.5,
    ]
    assert compare(one, two, agent_a="a").only_a == (("c", "p"),)
    other = compare(one, one, agent_a="a", agent_b="z", benchmark="b", error_value=0.5)
    assert [pair.task_id for pair in other.pairs] == ["p"] and other.only_a[-1] == ("b", "t") and not other.repeated
    assert [pair.task_id for pair in found.tasks("better")] == ["p"]
    three = made("three", [trace("1", "p", 1.0)], tasks, seed=2)
    assert not compare(one, three, agent_a="a", benchmark="b").repeated
    names = [f"{each.id}/{agent}" for each, agent in ((one, "a"), (one, "z"), (two, "a"))]
    assert scores_of([one, two]) == {
        "b": {names[0]: {"p": (0.0, 1.0), "q": (1.0,), "r": (0.5,), "s": (1.0,)}, names[1]: {"p": (0.25,)},
              names[2]: {"p": (1.0, 1.0), "q": (0.25,), "r": (0.5,)}},
        "c": {names[0]: {"p": (1.0,)}},
    }  # fmt: skip
    assert scores_of([two], reduce="max", error_value=0.0)["b"]["a"]["p"] == (1.0,)
    for given, error, said in (
        ({}, ConfigError, r"run .*one.* has 2 agents \(a, z\): say which to compare"),
        ({"agent_a": "x"}, UnknownName, "no agent 'x'"),
        ({"agent_a": "a", "agent_b": "z"}, UnknownName, "no agent 'z'"),
    ):
        with pytest.raises(error, match=said):  # type: ignore[arg-type]
            compare(one, two, **given)  # type: ignore[arg-type]
    for each in (one, two, three):
        each.close()
    assert Flaky("b", "p", "a", (1.0, 0.0, 0.0)).disagreement == pytest.approx(2 / 3)


def test_the_helpers_of_a_comparison_are_values() -> None:
    one = Attempted((1.0, 0.0), ("1", "2"), 1, (0, 1))
    two = Attempted((0.5,), ("3",), 2, (0,), reduced=0.75)
    assert (one.value, two.value, one.drawn, two.drawn) == (0.5, 0.75, (1.0, 0.0), (0.75,))
    pair = Pair("b", "t", one, two)
    made = Comparison("a", "b", (pair,), (), (), ())
    assert (pair.change, made.num_unscored, made.tasks("better"), made.tasks("worse")) == ("better", (1, 2), [pair], [])
    assert kept_calls(trace("1"), 0) == {}


# -- training data --


def talk(id: str, answer: str, scores: tuple[Score, ...], task: str = "t", **more: Any) -> Trace:
    nodes = (
        Node(None, Message("system", (Text("be"),))), Node(0, assistant("example")), Node(1, user("q")),
        Node(2, Message("assistant", (Text("look"), ToolCall("c", "f", {"x": 1})))),
        Node(3, Message("tool", (ToolResult("c", "f", "2"), ToolResult("d", "g", "3")))), Node(4, assistant(answer)),
        Node(5, user("bye")),
    )  # fmt: skip
    calls = (Call(":0", "generate", 2, 0, 0, "", nodes=(3,)), Call(":1", "generate", 4, 0, 0, "", nodes=(5,)))
    tools = (ToolSpec("f", "F.", {"type": "object"}),)
    return trace(id, task, scores=scores, **{"nodes": nodes, "calls": calls, "tools": tools, "answer": answer, **more})


def test_a_conversation_is_labelled_by_the_score_that_was_named(run: store.Run) -> None:
    for each in (
        talk("1", "four", (Score("s", 1.0), Score("n", 0.25))),
        talk("2", "five", (Score("s", 0.0), Score("n", 0.75)), epoch=1),
        talk("3", "six", (Score("s", 0.5),), epoch=2), talk("4", "five", (Score("s", 0.25), Score("n", 0.75)), epoch=3),
    ):  # fmt: skip
        run.append(each)
    prompt = [
        {"role": "system", "content": "be"}, {"role": "assistant", "content": "example", "weight": 0},
        {"role": "user", "content": "q"},
    ]  # fmt: skip

    def said(text: str) -> Any:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
        return [
            {"role": "assistant", "content": "look", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "name": "f", "content": "2"},
            {"role": "tool", "tool_call_id": "d", "name": "g", "content": "3"}, {"role": "assistant", "content": text},
        ]  # fmt: skip

    def lineage(id: str, epoch: int, score: float) -> Any:
        return {
            "run": run.id,
            "trace": id,
            "leaf": 5,
            "benchmark": "b",
            "task": "t",
            "agent": "a",
            "epoch": epoch,
            "score": score,
        }

    tools = [{"type": "function", "function": {"name": "f", "description": "F.", "parameters": {"type": "object"}}}]

    def made(kind: Any, **chosen: Any) -> TrainingRows:
        found = training_rows([run], kind, DataFilter(**chosen))
        found.left_out = +found.left_out
        return found

    named = made("sft", score="n", min_score=0.5)
    assert named.rows == [
        {"messages": prompt + said("five"), "lineage": [lineage(id, epoch, 0.75)], "tools": tools}
        for id, epoch in (("2", 1), ("4", 3))
    ]
    assert named.left_out == {"no score": 1, "below the least score": 1}
    assert [row["lineage"][0]["trace"] for row in made("sft", best_of=2).rows] == ["1", "3"]
    assert made("sft", best_of=2).left_out == {"not among the best of their task": 2}
    assert [(row["completion"], row["label"]) for row in made("kto").rows] == [
        (said("four"), True), (said("six"), True), (said("five"), False), (said("five"), False),
    ]  # fmt: skip
    assert [row["label"] for row in made("kto", min_score=0.6).rows] == [True, False, False, False]
    pair = {"prompt": prompt, "chosen": said("four"), "rejected": said("five"), "tools": tools}
    assert made("pairs").rows == [pair | {"lineage": [lineage("1", 0, 1.0), lineage("4", 3, 0.25)]}]
    assert made("pairs").left_out == {"equal answer": 1, "neither best nor worst": 1}
    assert made("pairs", min_score=1.1).left_out == {"equal answer": 1, "below the least score": 3}
    assert made("reward").rows == [{
        "prompt": prompt, "answers": [said("four"), said("six"), said("five")], "tools": tools,
        "lineage": [lineage("1", 0, 1.0), lineage("3", 2, 0.5), lineage("4", 3, 0.25)],
    }]  # fmt: skip
    by_name = made("pairs", score="n")
    assert [row["lineage"][0]["trace"] for row in by_name.rows] == ["2"]
    assert by_name.left_out == {"no score": 1, "equal score": 1}
    for a, b, winner in (("1", "3", "b"), ("1", "2", "a"), ("2", "4", "a"), ("1", "9", "a"), ("1", "2", "tie")):
        run.add_preference(Preference("t", a, b, winner, "ann"))  # type: ignore[arg-type]
    voted = made("pairs", score="s")
    assert [(row["chosen"][-1]["content"], row["rejected"][-1]["content"], row.get("by")) for row in voted.rows] == [
        ("six", "four", "ann"), ("four", "five", "ann"), ("four", "five", None),
    ]  # fmt: skip
    assert voted.left_out["vote without a winner"] == 1
    assert voted.left_out["vote on attempts that are not here, or not at one prompt"] == 2
    (whole,) = attempt_rows("r", talk("1", "four", ()))
    assert whole["messages"] == prompt + said("four") and whole["lineage"][0]["score"] is None
    assert attempt_rows("r", talk("1", "four", (), error=Failure("E", "x"))) == []


def test_what_is_no_example_is_counted_by_its_reason(run: store.Run) -> None:
    task = Task("t", "q?", conversation=(user("before"), assistant("example")))
    probes = [{"name": "n1", "turns": [["user", "u"], ["assistant", "v"]], "continuations": [" yes ", "no"]},
              {"name": "n2", "turns": [["system", "own"], ["user", "u"]], "continuations": ["x"]}]  # fmt: skip
    run.add_tasks("b", [task, Task("p", "?", metadata={"probes": probes}, secret={"right": 1}), Task("w", "?")])
    two = (Node(None, user("q")), Node(0, assistant("one")), Node(0, assistant("two")))
    both = (Call(":0", "generate", 0, 0, 0, "", nodes=(1, 2)),)
    probe = (Event("probe", 0.0, {}),)
    for each in (
        talk("1", "four", (Score("s", 1.0),)), trace("2", "u", value=None),
        trace("3", "v", events=(Event("protected", 0.0, {"why": "w"}),)),
        trace("4", "x", nodes=two, calls=both, answer="one"), trace("5", "y", nodes=two[:1]),
        trace("6", "p", nodes=(Node(None, Message("system", (Text("lead"),))),), events=probe),
        trace("7", "w", events=probe),
    ):  # fmt: skip
        run.append(each)

    def made(kind: Any, **chosen: Any) -> Any:
        found = training_rows([run], kind, DataFilter(**chosen))
        return found.rows, dict(+found.left_out)

    rows, left_out = made("sft")
    assert left_out == {
        "error": 1, "protected benchmark": 1, "several branches": 1, "no sampled message": 1,
        "probes without a right text": 1,
    }  # fmt: skip
    lead = {"role": "system", "content": "lead"}
    spoken = [lead, {"role": "user", "content": "u"}, {"role": "assistant", "content": "v", "weight": 0}]
    assert [(row["messages"], row["lineage"][0].get("probe"), row["lineage"][0]["score"]) for row in rows[1:]] == [
        ([*spoken, {"role": "assistant", "content": "no"}], "n1", 1.0),
        ([*spoken, {"role": "assistant", "content": "yes"}], "n1", 0.0),
        ([{"role": "system", "content": "own"}, spoken[1], {"role": "assistant", "content": "x"}], "n2", 0.0),
    ]  # fmt: skip
    assert len(made("sft", all_branches=True)[0]) == len(rows) + 2
    assert made("pairs")[1]["nothing to compare with"] == 2, "the talk, and the probe of one text"
    answered, left_out = made("sft", answers=True)
    assert answered[0]["lineage"][0]["leaf"] == 6
    assert left_out == {"error": 1, "protected benchmark": 1, "no answer": 4}
    assert answered[0]["messages"] == [
        {"role": "user", "content": "before"}, {"role": "assistant", "content": "example", "weight": 0},
        {"role": "user", "content": "q?"}, {"role": "assistant", "content": "four"},
    ]  # fmt: skip
    for kind, chosen, said in (
        ("dpo", {}, "the kind of data is 'dpo': expected one of sft, pairs, kto, reward"),
        ("sft", {"benchmark": "x"}, "no run has the benchmark 'x': expected one of b"),
        ("sft", {"agent": "x"}, "no run has the agent 'x': expected one of a"),
        ("sft", {"score": "x"}, "no run has the score 'x': expected one of s"),
        ("sft", {"best_of": -1}, "best_of is -1: expected 0"),
        ("sft", {"answers": True, "all_branches": True}, "answers have no branches"),
    ):
        with pytest.raises((ConfigError, UnknownName), match=said):
            made(kind, **chosen)
