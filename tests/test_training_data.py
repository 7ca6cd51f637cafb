"""Stored attempts and votes become training data: the messages, the labels, the lineage, and what was left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.message import Message, Text, ToolCall, ToolResult, user
from firsthand.model import ToolSpec
from firsthand.preference import Preference
from firsthand.runs import store
from firsthand.runs.store import Run
from firsthand.runs.training_data import DataFilter, training_rows
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace

EXAMPLE = (user("1 + 1?"), Message("assistant", (Text("2"),)))


def generated(at: int, *nodes: int) -> Call:
    return Call(f"0:{at}", "generate", at, 0.0, 0.0, "", nodes=nodes)


def trace(id: str, answer: str, score: float | None, *, task: str = "t", **changes: Any) -> Trace:
    """A prompt with a worked example, a question, and a sampled answer."""
    messages = [*EXAMPLE, user(f"{task}?"), Message("assistant", (Text(answer),))]
    nodes = tuple(Node(index - 1 if index else None, message) for index, message in enumerate(messages))
    body = {
        "id": id, "benchmark": "sums", "task_id": task, "agent": {"name": "direct"}, "epoch": 0, "seed": 0,
        "started_at": "2026-01-01T00:00:00+00:00", "duration_s": 0.0, "nodes": nodes, "calls": (generated(2, 3),),
        "answer": answer, "scores": () if score is None else (Score("exact", score),), "place": id,
    }  # fmt: skip
    return Trace(**{**body, **changes})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with store.create(tmp_path / "home", {}, "sums", command=["test"]) as made:
        yield made


def rows(run: Run, kind: str, *traces: Trace, **chosen: Any) -> tuple[list[dict[str, Any]], Counter[str]]:
    for each in traces:
        run.append(each)
    found = training_rows([run], kind, DataFilter(**chosen))  # type: ignore[arg-type]
    return found.rows, +found.left_out


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [each["content"] for each in messages]


def test_good_attempts_become_conversations_with_their_lineage(run: Run) -> None:
    found, left_out = rows(run, "sft", trace("a", "4", 1.0), trace("b", "5", 0.0), min_score=1.0)
    (row,) = found
    assert texts(row["messages"]) == ["1 + 1?", "2", "t?", "4"]
    assert [each.get("weight", 1) for each in row["messages"]] == [1, 0, 1, 1], "the worked example is not trained on"
    (lineage,) = row["lineage"]
    assert lineage == {
        "run": run.id, "trace": "a", "leaf": 3, "benchmark": "sums", "task": "t", "agent": "direct", "epoch": 0, "score": 1.0
    }  # fmt: skip
    assert left_out == {"below the least score": 1}


def test_the_least_score_is_enough(run: Run) -> None:
    found, _ = rows(run, "sft", trace("a", "4", 0.5), min_score=0.5)
    assert len(found) == 1


def test_what_is_left_out_is_counted_by_reason(run: Run) -> None:
    found, left_out = rows(
        run, "sft",
        trace("a", "4", 1.0),
        trace("b", "4", None),
        trace("c", "4", 1.0, error=Failure("ModelError", "gone")),
        trace("d", "4", 1.0, events=(Event("protected", 0.0, {"why": "its licence"}),)),
        trace("e", "4", 1.0, calls=()),
        trace("f", "4", 1.0, nodes=(*trace("f", "4", 1).nodes, Node(2, Message("assistant", (Text("5"),)))),
              calls=(generated(2, 3, 4),)),
    )  # fmt: skip
    assert [row["lineage"][0]["trace"] for row in found] == ["a"]
    assert left_out == {
        "no score": 1, "error": 1, "protected benchmark": 1, "no sampled message": 1, "several branches": 1
    }  # fmt: skip
    every = training_rows([run], "sft", DataFilter(all_branches=True)).rows
    assert [row["messages"][-1]["content"] for row in every if row["lineage"][0]["trace"] == "f"] == ["4", "5"]


def test_answers_are_taken_without_the_messages_between(run: Run) -> None:
    run.add_tasks("sums", [Task("t", "2 + 2?", conversation=EXAMPLE)])
    forked = trace("f", "4", 1.0)
    forked = replace(forked, nodes=(*forked.nodes, Node(2, Message("assistant", (Text("5"),)))), answer="five")
    found, left_out = rows(run, "sft", forked, trace("g", "", 1.0), trace("h", "4", 1.0, task="u"), answers=True)
    (row,) = found
    assert texts(row["messages"]) == ["1 + 1?", "2", "2 + 2?", "five"]
    assert [each.get("weight", 1) for each in row["messages"]] == [1, 0, 1, 1]
    assert (row["lineage"][0]["trace"], row["lineage"][0]["leaf"]) == ("f", 4)
    assert left_out == {"no answer": 2}
    with pytest.raises(ConfigError, match="answers have no branches"):
        DataFilter(answers=True, all_branches=True)


def test_the_best_of_each_task_are_taken(run: Run) -> None:
    made = [trace(f"{task}{n}", str(n), n / 4, task=task) for task in ("t", "u") for n in range(4)]
    found, left_out = rows(run, "sft", *made, best_of=1)
    assert [row["lineage"][0]["trace"] for row in found] == ["t3", "u3"]
    assert left_out == {"not among the best of their task": 6}


def test_pairs_are_the_best_and_the_worst_at_one_prompt(run: Run) -> None:
    made = [
        trace("a", "4", 1.0),
        trace("b", "5", 0.0),
        trace("c", "6", 0.5),
        trace("d", "7", 1.0),
        trace("e", "8", 0.0, task="u"),
    ]
    found, left_out = rows(run, "pairs", *made)
    (row,) = found
    assert texts(row["prompt"]) == ["1 + 1?", "2", "t?"]
    assert (texts(row["chosen"]), texts(row["rejected"])) == (["4"], ["5"])
    assert [each["score"] for each in row["lineage"]] == [1.0, 0.0]
    assert left_out == {"neither best nor worst": 1, "equal score": 1, "nothing to compare with": 1}
    assert not training_rows([run], "pairs", DataFilter(min_score=1.1)).rows


def test_other_prompts_at_the_same_task_are_not_compared(run: Run) -> None:
    other = trace("b", "5", 0.0)
    other = trace("b", "5", 0.0, nodes=(Node(None, user("another prompt")), *other.nodes[1:]))
    found, left_out = rows(run, "pairs", trace("a", "4", 1.0), other)
    assert found == [] and left_out == {"nothing to compare with": 2}


def test_votes_become_pairs_with_their_voter(run: Run) -> None:
    for each in (trace("a", "4", None), trace("b", "5", None)):
        run.append(each)
    for winner, by in (("b", "human:ada"), ("tie", "human:bob"), ("a", "judge:x")):
        run.add_preference(Preference("t", "a", "b", winner, by))  # type: ignore[arg-type]
    run.add_preference(Preference("t", "a", "gone", "a", "judge:x"))
    found, left_out = rows(run, "pairs")
    assert [(texts(row["chosen"]), row["by"]) for row in found] == [(["5"], "human:ada"), (["4"], "judge:x")]
    assert left_out["vote without a winner"] == 1
    assert left_out["vote on attempts that are not here, or not at one prompt"] == 1


def test_answers_are_labelled_and_ranked(run: Run) -> None:
    made = [trace("a", "4", 1.0), trace("b", "5", 0.25), trace("c", "6", 0.5)]
    found, _ = rows(run, "kto", *made)
    assert [(texts(row["completion"]), row["label"]) for row in found] == [(["4"], True), (["6"], True), (["5"], False)]
    above = training_rows([run], "kto", DataFilter(min_score=0.75)).rows
    assert [row["label"] for row in above] == [True, False, False], "the least score divides good from bad"
    (ranked,) = training_rows([run], "reward", DataFilter()).rows
    assert [texts(answer) for answer in ranked["answers"]] == [["4"], ["6"], ["5"]]
    assert [each["trace"] for each in ranked["lineage"]] == ["a", "c", "b"]


def test_tool_calls_are_in_the_format_that_training_reads(run: Run) -> None:
    from firsthand.train.conversations import conversation_of

    messages = [
        user("1 + 1?"),
        Message("assistant", (ToolCall("c1", "add", {"a": 1}),)),
        Message("tool", (ToolResult("c1", "add", "2"),)),
        Message("assistant", (Text("2"),)),
        user("thanks"),
    ]
    nodes = tuple(Node(index - 1 if index else None, message) for index, message in enumerate(messages))
    calls = (generated(0, 1), Call("0:1", "tool", 1, 0.0, 0.0, ""), generated(2, 3))
    tools = (ToolSpec("add", "Adds.", {"type": "object"}),)
    (row,), _ = rows(run, "sft", trace("a", "2", 1.0, nodes=nodes, calls=calls, tools=tools))
    read = conversation_of(json.loads(json.dumps(row)))
    assert read.messages == tuple(messages[:4]), "what follows the last answer is left out"
    assert read.trained == (False, True, False, True)
    assert [tool.name for tool in read.tools] == ["add"]


@pytest.mark.slow
def test_the_command_writes_lines_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any) -> None:
    for each in (trace("a", "4", 1.0), trace("b", "5", 0.0)):
        run.append(each)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    out = tmp_path / "d.jsonl"
    code, told, counted = cli("data", run.id, "--as", "sft", "--min-score", "1", "--out", str(out))
    assert code == 0 and told == "" and "1 line of sft data; left out: 1 below the least score" in counted
    assert [json.loads(line)["lineage"][0]["trace"] for line in out.read_text().splitlines()] == ["a"]
    assert "is there already" in cli("data", run.id, "--out", str(out))[2]
    code, told, _ = cli("data", run.id, "--as", "kto")
    assert code == 0 and [json.loads(line)["label"] for line in told.splitlines()] == [True, False]
    code, _, wrong = cli("data", run.id, "--min-score", "2")
    assert code != 0 and "nothing is left to train on" in wrong
    assert "data needs a run" in cli("data")[2]
    with pytest.raises(ConfigError, match="best_of is -1"):
        DataFilter(best_of=-1)
    with pytest.raises(ConfigError, match="the kind of data is 'x'"):
        training_rows([run], "x", DataFilter())  # type: ignore[arg-type]


def test_scored_texts_of_probes_become_pairs_and_good_examples_by_the_right_one(run: Run) -> None:
    probes = [
        {"name": "neutral", "turns": [["user", "June or April?"]], "continuations": ["June", " April"]},
        {"name": "pushed", "turns": [["user", "So?"], ["assistant", "April"], ["user", "No."]],
         "continuations": ["June", " April"]},
    ]  # fmt: skip
    told = Node(None, Message("system", (Text("Be brief."),)))
    made = {"nodes": (told, Node(0, user("June or April?"))), "calls": (), "events": (Event("probe", 0.1, {}),)}
    run.add_tasks("sums", [Task("t", "?", metadata={"probes": probes}, secret={"right": 1}), Task("none", "?")])
    pairs, left_out = rows(run, "pairs", trace("a", "April", 1.0, **made), trace("b", "x", 1.0, task="none", **made))
    assert left_out == {"probes without a right text": 1}
    assert [(texts(each["prompt"]), texts(each["chosen"]), texts(each["rejected"])) for each in pairs] == [
        (["Be brief.", "June or April?"], ["April"], ["June"]),
        (["Be brief.", "So?", "April", "No."], ["April"], ["June"]),
    ]
    assert [each["lineage"][0]["probe"] for each in pairs] == ["neutral", "pushed"]
    assert [message.get("weight") for message in pairs[1]["prompt"]] == [None, None, 0, None]
    good = training_rows([run], "sft", DataFilter(min_score=1.0)).rows
    assert [texts(each["messages"])[-1] for each in good] == ["April", "April"]
