"""Training data of unusual attempts: least scores of 0 and below, equal answers apart, votes, probes and branches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.message import Json, Message, Text, ToolCall, ToolResult, assistant, user
from firsthand.preference import Preference
from firsthand.runs import store
from firsthand.runs.training_data import DataFilter, DataKind, attempt_rows, training_rows
from firsthand.task import Task
from firsthand.trace import Call, Event, Node, Score, Trace
from made_traces import trace


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def run(home: Path) -> Iterator[store.Run]:
    with store.create(home, {}, "one", command=["run"]) as made:
        yield made


def said(
    id: str, answer: str, value: float | None = 1.0, *, question: str = "q", ended: str | None = None, **more: Any
) -> Trace:
    """An attempt that answers a question at once."""
    nodes = (Node(None, user(question)), Node(0, assistant(answer)))
    scores = () if value is None else (Score("s", value),)
    detail = {} if ended is None else {"finish_reasons": [ended]}
    calls = (Call(":0", "generate", 0, 0, 0, "", nodes=(1,), detail=detail),)
    return trace(id, nodes=nodes, calls=calls, answer=answer, scores=scores, **more)


def rows(runs: Sequence[store.Run], kind: DataKind, **chosen: Any) -> tuple[list[Json], dict[str, int]]:
    found = training_rows(runs, kind, DataFilter(**chosen))
    return found.rows, dict(+found.left_out)


def names(row: Json) -> str:
    return "".join(each["trace"] for each in row["lineage"])


@pytest.mark.slow
def test_a_least_score_of_0_is_a_least_score(run: store.Run) -> None:
    for number, value in enumerate((0.25, 0.0, -0.5)):
        run.append(said(str(number), f"a{number}", value, epoch=number))
    assert [(names(row), row["label"]) for row in rows([run], "kto", min_score=0.0)[0]] == [
        ("0", True), ("1", True), ("2", False),
    ]  # fmt: skip
    assert [row["label"] for row in rows([run], "kto")[0]] == [False, False, False]
    found, left_out = rows([run], "sft", min_score=0.0)
    assert ([names(row) for row in found], left_out) == (["0", "1"], {"below the least score": 1})
    assert rows([run], "pairs", min_score=0.25)[1] == {"neither best nor worst": 1}
    run.append(said("9", "b", -1.0, task="u"))
    run.append(said("8", "c", -0.5, task="u", epoch=1))
    assert rows([run], "reward", min_score=0.0)[1] == {"below the least score": 2}
    assert [names(row) for row in rows([run], "reward", min_score=-0.5)[0]] == ["012", "89"]
    assert [names(row) for row in rows([run], "kto", best_of=1)[0]] == ["0", "8"]
    assert rows([run], "kto", best_of=1)[1] == {"not among the best of their task": 3}
    assert [names(row) for row in rows([run], "pairs", best_of=1)[0]] == ["02", "89"], "pairs need the worst too"


@pytest.mark.slow
def test_an_attempt_without_a_score_is_left_out_whatever_the_least_score_is(run: store.Run) -> None:
    for number, value in enumerate((0.5, None, 0.49, 0.0, 0.51)):
        run.append(said(str(number), f"a{number}", value, epoch=number))

    def kept(least: float | None) -> tuple[str, int]:
        found, left_out = rows([run], "sft", min_score=least)
        assert left_out.pop("no score") == 1 and set(left_out) <= {"below the least score"}
        return "".join(map(names, found)), sum(left_out.values())

    assert [kept(least) for least in (None, -0.5, 0.0, 0.01, 0.5, 0.505, 1.0)] == [
        ("4023", 0), ("4023", 0), ("4023", 0), ("402", 1), ("40", 2), ("4", 3), ("", 4),
    ]  # fmt: skip

    def right(**chosen: Any) -> str:
        found, left_out = rows([run], "kto", **chosen)
        assert (len(found), left_out) == (4, {"no score": 1})
        return "".join(names(row) for row in found if row["label"])

    assert [right(), right(min_score=0.0), right(min_score=0.505), right(min_score=-1.0)] == [
        "40", "4023", "4", "4023",
    ]  # fmt: skip
    assert [names(row) for row in rows([run], "reward")[0]] == ["4023"]
    assert rows([run], "reward", min_score=0.52) == ([], {"no score": 1, "below the least score": 4})


def test_an_equal_answer_counts_once_wherever_it_stands_and_other_prompts_are_other_groups(run: store.Run) -> None:
    for number, (answer, value) in enumerate((("a", 0.75), ("b", 0.5), ("a", 0.25), ("c", 0.25), ("d", 0.25))):
        run.append(said(str(number), answer, value, epoch=number))
    run.append(said("7", "z", 0.0, question="other", epoch=7))
    found, left_out = rows([run], "reward")
    assert [(names(row), [each[0]["content"] for each in row["answers"]]) for row in found] == [
        ("013", ["a", "b", "c"])
    ]
    assert left_out == {"equal answer": 1, "equal score": 1, "nothing to compare with": 1}
    (pair,) = rows([run], "pairs")[0]
    assert (pair["chosen"], pair["rejected"], "tools" in pair) == (
        [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "c"}], False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_vote_needs_two_different_answers_to_one_prompt_in_runs_that_are_here(run: store.Run, home: Path) -> None:
    two = (Node(None, user("q")), Node(0, assistant("x")), Node(0, assistant("y")))
    both = (Call(":0", "generate", 0, 0, 0, "", nodes=(1, 2)),)
    with store.create(home, {}, "two", command=["run"]) as other:
        for each in (said("1", "a"), said("2", "b", None, epoch=1), said("3", "a", epoch=2)):
            run.append(each)
        other.append(said("4", "c", agent="z"))
        other.append(said("5", "d", question="else", epoch=1))
        other.append(trace("6", nodes=two, calls=both, epoch=3))
        for place, (a, b, winner) in enumerate((
            ("1", "3", "a"), ("1", "6", "b"), ("6", "1", "a"), ("1", "5", "a"), ("1", "2", "b"), ("4", "1", "a"),
            ("none", "1", "b"), ("2", "4", "both_bad"),
        )):  # fmt: skip
            (run if place % 2 else other).add_preference(Preference("t", a, b, winner, f"p{place}"))  # type: ignore[arg-type]
        found, left_out = rows([run, other], "pairs", all_branches=True)
        votes = [(names(row), row["chosen"][0]["content"], row["rejected"][0]["content"], row["by"])
                 for row in found if "by" in row]  # fmt: skip
        assert votes == [("41", "c", "a", "p5"), ("21", "b", "a", "p4")], "a vote needs no score"
        assert left_out["vote on attempts that are not here, or not at one prompt"] == 5
        assert left_out["vote without a winner"] == 1 and left_out["no score"] == 1
        assert [row["by"] for row in rows([other], "pairs")[0] if "by" in row] == [], "its own votes are of another run"
        trained = [(names(row), row["lineage"][0]["run"]) for row in rows([other, run], "sft")[0]]
        assert trained == [("4", other.id), ("1", run.id), ("3", run.id), ("5", other.id)], "prompt by prompt"


def test_turns_that_no_model_sampled_have_no_weight_and_a_tool_message_is_a_line_for_each_result(
    run: store.Run,
) -> None:
    calls = Message("assistant", (Text("so "), ToolCall("c", "f", {"é": 1}), Text("look"), ToolCall("d", "g", {})))
    results = Message("tool", (ToolResult("c", "f", "1"), Text("skipped"), ToolResult("d", "g", "no", is_error=True)))
    nodes = (
        Node(None, user("q")), Node(0, calls), Node(1, results), Node(2, assistant("planted")), Node(3, user("go on")),
        Node(4, assistant("end")), Node(5, user("never answered")),
    )  # fmt: skip
    made = trace("1", nodes=nodes, calls=(
        Call(":0", "generate", 0, 0, 0, "", nodes=(1,)), Call(":1", "tool", 2, 0, 0, "", nodes=(3,)),
        Call(":2", "generate", 4, 0, 0, "", nodes=(5,)),
    ))  # fmt: skip
    (row,) = attempt_rows("r9", made)
    assert row["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "so look", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"\\u00e9": 1}'}},
            {"id": "d", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "c", "name": "f", "content": "1"},
        {"role": "tool", "tool_call_id": "d", "name": "g", "content": "no"},
        {"role": "assistant", "content": "planted", "weight": 0}, {"role": "user", "content": "go on"},
        {"role": "assistant", "content": "end"},
    ]  # fmt: skip
    assert row["lineage"] == [
        {"run": "r9", "trace": "1", "leaf": 5, "benchmark": "b", "task": "t", "agent": "a", "epoch": 0, "score": 1.0}
    ]
    fork = Node(1, assistant("instead"))
    whole = trace("2", nodes=(*nodes[:2], fork, Node(2, user("dead end"))), calls=made.calls[:1])
    assert [len(each["messages"]) for each in attempt_rows("r", whole)] == [2], "what was not sampled is no branch"


@pytest.mark.slow
def test_the_texts_of_probes_are_answers_and_a_task_may_say_that_the_first_is_right(run: store.Run) -> None:
    probe = {"name": "p", "turns": [["user", "u"]], "continuations": [" no\n", "yes"]}
    metadata = {"probes": [probe, probe | {"name": "r", "turns": [["assistant", "v"], ["user", "w"]]}]}
    run.add_tasks("b", [Task("t", "?", metadata=metadata, secret={"right": 0}), Task("s", "?", metadata=metadata)])
    run.add_tasks("b", [Task("x", "?", metadata=metadata, secret={"right": "0"})])
    events = (Event("other", 0.0, {}), Event("probe", 0.5, {}))
    for id, task, nodes in (
        ("1", "t", ()),
        ("2", "s", ()),
        ("3", "x", ()),
        ("4", "none", ()),
        ("5", "t", (user("m"),)),
    ):
        made = trace(id, task, 0.125, events=events, epoch=int(id), nodes=tuple(Node(None, each) for each in nodes))
        run.append(made)
    found, left_out = rows([run], "kto")
    assert left_out == {"probes without a right text": 3}
    assert [(row["prompt"], row["completion"], row["label"]) for row in found] == [
        (prompt, [{"role": "assistant", "content": text}], label)
        for prompt in (
            [{"role": "user", "content": "u"}],
            [{"role": "assistant", "content": "v", "weight": 0}, {"role": "user", "content": "w"}],
        )
        for text, label in (("no", True), ("no", True), ("yes", False), ("yes", False))
    ]
    lineages = [row["lineage"][0] for row in found]
    assert [(each["trace"], each["leaf"], each["probe"], each["score"]) for each in lineages] == [
        ("1", -1, "p", 1.0), ("5", 0, "p", 1.0), ("1", -1, "p", 0.0), ("5", 0, "p", 0.0),
        ("1", -1, "r", 1.0), ("5", 0, "r", 1.0), ("1", -1, "r", 0.0), ("5", 0, "r", 0.0),
    ]  # fmt: skip


def test_several_messages_after_the_last_sampled_one_are_no_branches(run: store.Run) -> None:
    """Nor are they a part of the row: it ends with what a model said."""
    nodes = (Node(None, user("q")), Node(0, assistant("a")), Node(1, user("x")), Node(1, user("y")), Node(3, user("z")))
    run.append(trace("1", nodes=nodes, calls=(Call(":0", "generate", 0, 0, 0, "", nodes=(1,)),)))
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    for every in (False, True):
        found, left_out = rows([run], "sft", all_branches=every)
        assert ([each["messages"] for each in found], left_out) == ([said], {}), every
        assert [each["leaf"] for each in found[0]["lineage"]] == [1]
    (attempt,) = run.traces()
    assert len(attempt_rows("r", attempt)) == 1
    two = (*nodes[:2], Node(0, assistant("b")), Node(1, user("x")), Node(2, user("y")))
    run.append(trace("2", nodes=two, calls=(Call(":0", "generate", 0, 0, 0, "", nodes=(1, 2)),), epoch=1))
    assert rows([run], "sft")[1] == {"several branches": 1}
    assert [each["lineage"][0]["leaf"] for each in rows([run], "sft", all_branches=True)[0]] == [1, 1, 2]


def test_the_best_of_a_task_are_chosen_among_all_agents_and_prompts(run: store.Run) -> None:
    for id, value, more in (
        ("1", 0.5, {}), ("2", 0.75, {"question": "step by step", "agent": "cot"}), ("3", 0.75, {"epoch": 1}),
        ("4", 0.25, {"task": "u"}), ("5", 0.0, {"task": "u", "agent": "cot"}), ("6", 0.0, {"benchmark": "c"}),
    ):  # fmt: skip
        run.append(said(id, f"a{id}", value, **more))
    for kind in ("sft", "kto"):
        best, left_out = rows([run], kind, best_of=1)
        assert sorted(map(names, best)) == ["2", "4", "6"] and left_out == {"not among the best of their task": 3}
        assert sorted(map(names, rows([run], kind, best_of=2)[0])) == ["2", "3", "4", "5", "6"]
        assert [names(row) for row in rows([run], kind)[0]] == ["3", "1", "2", "4", "5", "6"], "in the order of the run"
    assert [names(row) for row in rows([run], "reward", best_of=1)[0]] == ["31", "45"], "comparisons need one prompt"


def test_each_probe_of_a_task_has_its_own_best(run: store.Run) -> None:
    probes = [{"name": name, "turns": [["user", name]], "continuations": ["no", "yes"]} for name in ("x", "y")]
    run.add_tasks("b", [Task("t", "", metadata={"probes": probes}, secret={"right": 1})])
    run.append(trace("1", events=(Event("probe", 0.0, {}),)))
    best, left_out = rows([run], "sft", best_of=1)
    assert [row["messages"] for row in best] == [
        [{"role": "user", "content": name}, {"role": "assistant", "content": "yes"}] for name in ("x", "y")
    ]
    assert left_out == {"not among the best of their task": 2}


@pytest.mark.parametrize("ended", ["length", "content_filter"])
def test_an_answer_that_was_cut_is_no_example_to_follow(run: store.Run, ended: str) -> None:
    cut = said("1", "The answer is 63 because", 1.0, ended=ended)
    for each in (cut, said("2", "63", 0.75, epoch=1, ended="stop"), said("3", "64", 0.0, epoch=2, ended=ended),
                 said("4", "none", 0.0, task="u", ended=ended)):  # fmt: skip
        run.append(each)
    assert ([names(row) for row in rows([run], "sft")[0]], rows([run], "sft")[1]) == (["2"], {"cut before its end": 3})
    best, left_out = rows([run], "sft", best_of=1)
    assert ([names(row) for row in best], left_out) == (["2"], {"cut before its end": 3}), "the best that ended"
    judged, left_out = rows([run], "kto")
    assert [(names(row), row["label"]) for row in judged] == [("2", True), ("3", False), ("4", False)]
    assert left_out == {"cut before its end": 1}
    assert [names(row) for row in rows([run], "kto", min_score=-1.0)[0]] == ["2"]
    for kind in ("pairs", "reward"):
        compared, left_out = rows([run], kind)
        assert [names(row) for row in compared] == ["23"], "what was cut may be the worse answer"
        assert left_out["cut before its end"] == 2
        assert "weight" not in json.dumps(compared), "the worse answer counts too"
    assert attempt_rows("r", cut) == [] and len(attempt_rows("r", said("2", "63", ended="stop"))) == 1


def test_a_vote_for_an_answer_that_was_cut_is_no_pair(run: store.Run) -> None:
    for each in (said("1", "half", None, ended="length"), said("2", "whole", None, epoch=1)):
        run.append(each)
    run.add_preference(Preference("t", "1", "2", "a", "me"))
    assert rows([run], "pairs") == ([], {"vote for an answer that was cut": 1, "no score": 2})
    run.add_preference(Preference("t", "1", "2", "b", "you"))
    assert [(names(row), row["by"]) for row in rows([run], "pairs")[0]] == [("21", "you")]


def test_a_turn_that_was_cut_before_the_answer_has_no_weight() -> None:
    nodes = (Node(None, user("q")), Node(0, assistant("half")), Node(1, user("go on")), Node(2, assistant("whole")),
             Node(2, assistant("cut again")))  # fmt: skip
    made = trace("1", nodes=nodes, calls=(
        Call(":0", "generate", 0, 0, 0, "", nodes=(1,), detail={"finish_reasons": ["length"]}),
        Call(":1", "generate", 2, 0, 0, "", nodes=(3, 4), detail={"finish_reasons": ["stop", "length"]}),
        Call(":2", "score", 2, 0, 0, "", nodes=(3,), detail={"finish_reasons": ["length"]}),
    ))  # fmt: skip
    (row,) = attempt_rows("r", made)
    assert [(each["content"], each.get("weight", 1)) for each in row["messages"]] == [
        ("q", 1), ("half", 0), ("go on", 1), ("whole", 1),
    ]  # fmt: skip


def test_an_answer_taken_alone_was_cut_if_it_ends_a_message_that_was(run: store.Run) -> None:
    run.add_tasks("b", [Task("t", "asked?")])
    run.append(said("1", "It is 63 because", ended="length"))
    run.append(replace(said("2", "It is 63 because \n", epoch=1, ended="length"), answer="63 because"))
    run.append(replace(said("3", "It is 63 because", epoch=2, ended="length"), answer="It is 63"))
    run.append(said("4", "It is 63", epoch=3, ended="stop"))
    run.append(replace(said("6", "It is 63 because", epoch=5, ended="length"), answer="63 because\n"))
    two = Call(":1", "generate", 0, 0, 0, "", nodes=(2,), detail={"finish_reasons": ["stop"]})
    voted = said("5", "so 63", epoch=4, ended="length")
    run.append(replace(voted, nodes=(*voted.nodes, Node(0, assistant("63."))), calls=(*voted.calls, two), answer="63"))
    kept, left_out = rows([run], "sft", answers=True)
    assert ([names(row) for row in kept], left_out) == (["3", "4", "5"], {"cut before its end": 3})
