"""Training data in small: which branch, prompt, answer and label each row has, and each reason to leave one out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, canonical, system, user
from firsthand.model import ToolSpec
from firsthand.preference import Preference
from firsthand.runs import store
from firsthand.runs.training_data import (
    TRAINING_KINDS,
    DataFilter,
    TrainingRows,
    _examples,
    _expect_there,
    _kto,
    _of_answer,
    _of_probes,
    _of_trace,
    _open_ai,
    _pair,
    _pairs,
    _preferred,
    _ranked,
    _reward,
    _sft,
    _to_last,
    attempt_rows,
    training_rows,
)
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace
from made_traces import trace


def generated(*nodes: int, at: int | None = 0) -> Call:
    return Call(f":{nodes[0]}", "generate", at, 0.0, 1.0, "r", nodes=nodes)


def says(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def lineage(id: str, leaf: int, score: float | None, **more: Any) -> dict[str, Any]:
    body = {
        "run": "r",
        "trace": id,
        "leaf": leaf,
        "benchmark": "b",
        "task": "t",
        "agent": "a",
        "epoch": 0,
        "score": score,
    }
    return body | more


def attempt(id: str, answer: str, value: float | None = 1.0, **more: Any) -> Trace:
    """A question and its sampled answer."""
    nodes = (Node(None, user(more.pop("asked", "q"))), Node(0, assistant(answer)))
    scores = () if value is None else (Score("s", value), Score("other", 1 - value))
    given = {"nodes": nodes, "calls": (generated(1),), "scores": scores, "answer": answer, "place": id}
    return trace(id, more.pop("task", "t"), **{**given, **more})


def examples(*made: Trace, **chosen: Any) -> list[Any]:
    found = [each for one in made for each in _of_trace("r", one, DataFilter(**chosen), Counter())]
    assert len(found) >= len(made)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {}, "made", command=["run"]) as made:
        yield made


def test_a_message_is_as_openai_writes_it() -> None:
    call = ToolCall("c1", "f", {"b": 1, "a": "é"})
    reasoned = Message("assistant", (Reasoning("hidden", {}), Text("one "), call, Text("two")))
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": "\\u00e9"}'}}]
    assert list(_open_ai(reasoned, counts=True)) == [says("assistant", "one two", tool_calls=calls)]
    assert list(_open_ai(reasoned, counts=False)) == [says("assistant", "one two", tool_calls=calls, weight=0)]
    assert list(_open_ai(user("q"), counts=False)) == [says("user", "q")]
    assert list(_open_ai(assistant("a"), counts=True)) == [says("assistant", "a")]
    results = Message("tool", (ToolResult("c1", "f", "1"), Text("no result"), ToolResult("c2", "g", "2", True)))
    assert list(_open_ai(results, counts=False)) == [
        says("tool", "1", tool_call_id="c1", name="f"), says("tool", "2", tool_call_id="c2", name="g"),
    ]  # fmt: skip


def test_each_branch_is_cut_at_its_first_and_after_its_last_sampled_message() -> None:
    call = ToolCall("c", "f", {})
    nodes = (
        Node(None, system("s")), Node(0, assistant("example")), Node(1, user("q")), Node(2, Message("assistant", (call,))),
        Node(3, Message("tool", (ToolResult("c", "f", "1"),))), Node(4, assistant("end")), Node(5, user("said after")),
        Node(2, assistant("other")), Node(2, user("never answered")),
    )  # fmt: skip
    spec = ToolSpec("f", "what f does", {"type": "object"})
    made = trace("x", nodes=nodes, calls=(generated(3, at=2), Call(":9", "tool", 3, 0.0, 1.0, "r", nodes=(4,)), generated(5),
        generated(7)), tools=(spec,), scores=(Score("s", 0.25),))  # fmt: skip
    one, two = _of_trace("r", made, DataFilter(all_branches=True), Counter())
    prompt = [says("system", "s"), says("assistant", "example", weight=0), says("user", "q")]
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert (one.prompt, two.prompt, one.score) == (prompt, prompt, 0.25)
    assert one.answer == [
        says("assistant", "", tool_calls=calls), says("tool", "1", tool_call_id="c", name="f"), says("assistant", "end"),
    ]  # fmt: skip
    assert two.answer == [says("assistant", "other")]
    tools = [
        {"type": "function", "function": {"name": "f", "description": "what f does", "parameters": {"type": "object"}}}
    ]
    assert (one.tools, one.lineage, two.lineage) == (tools, lineage("x", 5, 0.25), lineage("x", 7, 0.25))
    assert (one.row({"x": 1}), one.key) == ({"x": 1, "tools": tools}, canonical(["b", "t", prompt, tools]))
    assert [_to_last(made, leaf, {3, 5, 7}) for leaf in (6, 7, 8)] == [(0, 1, 2, 3, 4, 5), (0, 1, 2, 7), ()]
    left: Counter[str] = Counter()
    assert list(_of_trace("r", made, DataFilter(), left)) == []
    assert list(_of_trace("r", trace("y", nodes=nodes[:3]), DataFilter(), left)) == []
    assert left == {"several branches": 1, "no sampled message": 1}
    assert attempt_rows("r", made) == [
        {"messages": one.prompt + one.answer, "lineage": [one.lineage], "tools": tools},
        {"messages": two.prompt + two.answer, "lineage": [two.lineage], "tools": tools},
    ]
    for kept_back in ({"error": Failure("E", "x")}, {"events": (Event("protected", 0.0, {"why": "x"}),)}):
        assert attempt_rows("r", attempt("z", "a", **kept_back)) == []
    (plain,) = examples(attempt("w", "a", None))
    assert (plain.row({"x": 1}), plain.score, plain.lineage) == ({"x": 1}, None, lineage("w", 1, None))
    (named,) = examples(attempt("w", "a", 0.25), score="other")
    assert (named.score, named.lineage["score"]) == (0.75, 0.75)


def test_conversations_and_labels_go_by_the_least_score() -> None:
    group = examples(attempt("1", "best", 0.75), attempt("2", "half", 0.5), attempt("3", "bad", 0.25))
    left: Counter[str] = Counter()
    assert list(_sft(group, DataFilter(), left)) == [
        {"messages": [says("user", "q"), says("assistant", answer)], "lineage": [lineage(id, 1, value)]}
        for id, answer, value in (("1", "best", 0.75), ("2", "half", 0.5), ("3", "bad", 0.25))
    ]
    assert [row["lineage"][0]["trace"] for row in _sft(group, DataFilter(min_score=0.5), left)] == ["1", "2"]
    assert left == {"below the least score": 1}
    assert list(_kto(group, DataFilter(), left)) == [
        {"prompt": [says("user", "q")], "completion": [says("assistant", answer)], "label": label,
         "lineage": [lineage(id, 1, value)]}
        for id, answer, value, label in (("1", "best", 0.75, True), ("2", "half", 0.5, True), ("3", "bad", 0.25, False))
    ]  # fmt: skip
    assert [row["label"] for row in _kto(group, DataFilter(min_score=0.0), left)] == [True] * 3
    assert [row["label"] for row in _kto(group, DataFilter(min_score=0.6), left)] == [True, False, False]


def test_answers_are_ranked_without_equal_scores_and_equal_words() -> None:
    group = examples(
        attempt("1", "a", 0.9),
        attempt("2", "b", 0.9),
        attempt("3", "a", 0.7),
        attempt("4", "c", 0.5),
        attempt("5", "d", 0.0),
    )

    def ranked(*given: Any, **chosen: Any) -> tuple[list[str], dict[str, int]]:
        left: Counter[str] = Counter()
        found = [each.lineage["trace"] for answers in _ranked(given, DataFilter(**chosen), left) for each in answers]
        return found, dict(left)

    one, two, three, four, five = group
    assert ranked(*group) == (["1", "4", "5"], {"equal score": 1, "equal answer": 1})
    assert ranked(one, two) == ([], {"equal score": 1, "nothing to compare with": 1})
    assert ranked(one, three) == ([], {"equal answer": 1, "nothing to compare with": 1})
    assert ranked() == ([], {"nothing to compare with": 0})
    assert ranked(one, four, examples(attempt("8", "f", 0.5))[0], five) == (["1", "4", "5"], {"equal score": 1})
    again, best = examples(attempt("6", "a", 0.4), attempt("7", "e", 0.3))
    assert ranked(one, four, again, best) == (["1", "4", "7"], {"equal answer": 1})
    assert ranked(one, four, again) == (["1", "4"], {"equal answer": 1})
    assert ranked(one, three, examples(attempt("8", "f", 0.7))[0]) == (["1", "8"], {"equal answer": 1})
    assert ranked(one, five, min_score=0.9) == (["1", "5"], {})
    assert ranked(four, five, min_score=0.6) == ([], {"below the least score": 2})
    left: Counter[str] = Counter()
    (pair,) = _pairs(group, DataFilter(), left)
    assert pair == {
        "prompt": [says("user", "q")], "chosen": [says("assistant", "a")], "rejected": [says("assistant", "d")],
        "lineage": [lineage("1", 1, 0.9), lineage("5", 1, 0.0)],
    }  # fmt: skip
    assert pair == _pair(one, five)
    assert left["neither best nor worst"] == 1
    (reward,) = _reward(group, DataFilter(), Counter())
    assert reward == {
        "prompt": [says("user", "q")], "answers": [[says("assistant", text)] for text in "acd"],
        "lineage": [lineage("1", 1, 0.9), lineage("4", 1, 0.5), lineage("5", 1, 0.0)],
    }  # fmt: skip


@pytest.mark.slow
def test_attempts_are_taken_by_kind_and_others_are_counted_by_reason(run: store.Run) -> None:
    task = Task("t", "asked?", conversation=(system("s"), assistant("shown")))
    run.add_tasks("b", [task])
    run.add_agent("a", {})
    for made in (
        attempt("1", "good", 0.75), attempt("2", "bad", 0.25), attempt("3", "none", None),
        attempt("4", "no", error=Failure("E", "x")), attempt("5", "no", events=(Event("protected", 0.0, {"why": "x"}),)),
        attempt("6", "other", 0.5, asked="another"), attempt("7", "theirs", 0.5, agent="z"),
        attempt("8", "else", 0.5, benchmark="c", task="u"),
    ):  # fmt: skip
        run.append(made)

    def made_rows(kind: Any, **chosen: Any) -> tuple[list[Any], dict[str, int]]:
        found = training_rows([run], kind, DataFilter(**chosen))
        return [[each["trace"] for each in row["lineage"]] for row in found.rows], dict(+found.left_out)

    out = {"error": 1, "protected benchmark": 1, "no score": 1}
    assert TRAINING_KINDS == ("sft", "pairs", "kto", "reward")
    assert made_rows("sft", benchmark="b", agent="a") == ([["1"], ["2"], ["6"]], out)
    assert made_rows("sft", benchmark="b") == ([["1"], ["7"], ["2"], ["6"]], out)
    assert made_rows("kto", best_of=1, agent="a", benchmark="b") == (
        [["1"]], out | {"not among the best of their task": 2},
    )  # fmt: skip
    assert made_rows("reward", best_of=1, agent="a", benchmark="b") == (
        [["1", "2"]], out | {"nothing to compare with": 1},
    )  # fmt: skip
    assert made_rows("pairs", best_of=1, agent="a", benchmark="b")[0] == [["1", "2"]]
    assert made_rows("sft", score="other", min_score=0.5, best_of=3, agent="a", benchmark="b") == ([["2"], ["6"]],
        out | {"below the least score": 1})  # fmt: skip
    assert made_rows("sft", benchmark="c") == ([["8"]], {})
    run.add_preference(Preference("t", "2", "1", "a", "human:ada"))
    run.add_preference(Preference("t", "2", "1", "tie", "human:ada"))
    found, left = made_rows("pairs", benchmark="b", agent="a")
    assert (found, left) == ([["2", "1"], ["1", "2"]], out | {"vote without a winner": 1, "nothing to compare with": 1})
    answers = training_rows([run], "sft", DataFilter(answers=True, benchmark="b", agent="a"))
    prompt = [says("system", "s"), says("assistant", "shown", weight=0), says("user", "asked?")]
    assert answers.rows[0] == {
        "messages": [*prompt, says("assistant", "good")], "lineage": [lineage("1", 1, 0.75, run=run.id)],
    }  # fmt: skip
    assert len(answers.rows) == 3
    with pytest.raises(ConfigError) as kind:
        training_rows([run], "dpo", DataFilter())  # type: ignore[arg-type]
    assert str(kind.value) == "the kind of data is 'dpo': expected one of sft, pairs, kto, reward"
    assert TrainingRows() == TrainingRows([], Counter())
    assert len(list(_examples([run, run], DataFilter(benchmark="c"), Counter()))) == 2


def test_a_benchmark_an_agent_and_a_score_that_no_run_has_are_refused(run: store.Run) -> None:
    run.add_agent("idle", {})
    run.append(attempt("1", "a", agent="z"))
    for good in (DataFilter(), DataFilter(benchmark="b", agent="idle", score="other"), DataFilter(agent="z")):
        _expect_there([run], good)
    for chosen, what, known in (
        (DataFilter(benchmark="x"), "benchmark 'x'", "b"), (DataFilter(agent="x"), "agent 'x'", "idle, z"),
        (DataFilter(score="x"), "score 'x'", "other, s"),
    ):  # fmt: skip
        with pytest.raises(UnknownName) as unknown:
            _expect_there([run], chosen)
        assert str(unknown.value) == f"no run has the {what}: expected one of {known}"
    with pytest.raises(UnknownName, match="expected one of none"):
        _expect_there([], DataFilter(score="x"))
    with pytest.raises(ConfigError) as few:
        DataFilter(best_of=-1)
    assert str(few.value) == "best_of is -1: expected 0 (all) or more"
    with pytest.raises(ConfigError) as both:
        DataFilter(answers=True, all_branches=True)
    assert str(both.value) == "answers have no branches: leave out all_branches, or answers"


def test_votes_become_pairs_of_the_attempts_that_are_here_and_answer_one_prompt(run: store.Run) -> None:
    here = examples(attempt("1", "a"), attempt("2", "b"), attempt("3", "c", asked="other"), attempt("4", "a"))
    twice = [*here, *examples(attempt("5", "x"), attempt("5", "y"))]
    for a, b, winner in (
        ("1", "2", "a"), ("1", "2", "b"), ("1", "2", "tie"), ("1", "2", "both_bad"), ("1", "3", "a"), ("1", "9", "a"),
        ("9", "1", "b"), ("1", "4", "a"), ("1", "5", "a"), ("5", "1", "a"),
    ):  # fmt: skip
        run.add_preference(Preference("t", a, b, winner, f"by {a}{b}"))  # type: ignore[arg-type]
    left: Counter[str] = Counter()
    assert list(_preferred([run], twice, left)) == [
        {**_pair(here[0], here[1]), "by": "by 12"}, {**_pair(here[1], here[0]), "by": "by 12"},
    ]  # fmt: skip
    assert left == {"vote without a winner": 2, "vote on attempts that are not here, or not at one prompt": 6}


def test_texts_of_probes_are_answers_of_which_one_is_right(run: store.Run) -> None:
    turns = [["user", "2?"], ["assistant", "so"], ["user", "sure?"]]
    probes = [
        {"name": "plain", "turns": turns, "continuations": [" yes ", "no"]},
        {"name": "own", "turns": [["system", "mine"], ["user", "3?"]], "continuations": ["no"]},
    ]
    run.add_tasks(
        "b", [Task("t", "?", metadata={"probes": probes}, secret={"right": 1}), Task("u", "?", secret={"right": "1"})]
    )
    made = attempt("1", "x", nodes=(Node(None, system("be kind")), Node(0, assistant("x"))))
    left: Counter[str] = Counter()
    found = list(_of_probes(run, made, left))
    first = [says("system", "be kind"), says("user", "2?"), says("assistant", "so", weight=0), says("user", "sure?")]
    assert [(each.prompt, each.answer, each.score) for each in found] == [
        (first, [says("assistant", "yes")], 0.0),
        (first, [says("assistant", "no")], 1.0),
        ([says("system", "mine"), says("user", "3?")], [says("assistant", "no")], 0.0),
    ]
    assert [each.lineage for each in found] == [
        lineage("1", 1, 0.0, run=run.id, probe="plain"), lineage("1", 1, 1.0, run=run.id, probe="plain"),
        lineage("1", 1, 0.0, run=run.id, probe="own"),
    ]  # fmt: skip
    plain = list(_of_probes(run, attempt("2", "x"), left))
    assert plain[0].prompt == first[1:]
    assert [
        *_of_probes(run, attempt("3", "x", task="u"), left),
        *_of_probes(run, attempt("4", "x", task="v"), left),
    ] == []
    assert left == {"probes without a right text": 2}
    run.append(attempt("5", "x", 0.5, events=(Event("probe", 0.0, {}),)))
    assert len(list(_examples([run], DataFilter(), left))) == 3
    assert [each.answer for each in _of_answer(run, attempt("6", "said"), DataFilter(), left)] == [
        [says("assistant", "said")]
    ]
    missing = [attempt("7", ""), replace(attempt("8", "x"), answer=None), attempt("9", "x", task="v")]
    assert [each for one in missing for each in _of_answer(run, one, DataFilter(), left)] == []
    assert left["no answer"] == 3
