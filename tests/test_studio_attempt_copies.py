"""Facts of an attempt, its copies as a test and as lines, and the difference of two."""

from __future__ import annotations

import json

import pytest

from firsthand.errors import ConfigError
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.studio.attempt_facts import AttemptFacts, BranchNote, _budget, attempt_facts
from firsthand.studio.trace_copies import as_examples, as_test
from firsthand.studio.trace_difference import AlignedStep, Step, _step, trace_difference
from firsthand.trace import Event, Node, Score, Trace
from studio_attempts import call, trace


def test_the_facts_of_an_attempt_are_its_votes_fates_and_budget() -> None:
    limits = {"tokens": 2000, "calls": 9, "seconds": 60, "cost_usd": 2.0}
    calls = [call(f":{n}", kind, usage=usage) for n, (kind, usage) in enumerate(
        (("generate", Usage(1000, 0, 400, 0.25)), ("tool", Usage()), ("score", Usage()), ("memory", Usage()),
         ("guard", Usage())))]  # fmt: skip
    events = (
        Event("branch", 0.0, {"name": "0.1", "status": "pruned", "at": 0}),
        Event("branch", 0.0, {"name": "0.2", "status": "kept"}),
        Event("branch", 0.0, {"name": "0.3", "status": "kept", "score": 0.5}), Event("branch", 0.0, {"name": "0.4"}),
        Event("vote", 1.0, {"counts": {"a": 1, "b" * 201: 3, "c": 2}}), Event("note", 1.0, {"counts": {"z": 9}}),
    )  # fmt: skip
    made = trace(
        agent={"name": "ann", "limits": limits}, calls=tuple(calls), events=events, nodes=(Node(None, user("x")),)
    )
    assert attempt_facts(made) == AttemptFacts(
        (((("b" * 200), 3.0), ("c", 2.0), ("a", 1.0)),), (("kept", 2), ("pruned", 1)),
        (BranchNote("✗ 0.1 pruned", 0), BranchNote("● 0.2 kept", None), BranchNote("● 0.3 kept 0.5", None),
         BranchNote("· 0.4", None)),
        ("1.4k of 2.0k tokens", "3 of 9 calls", "4.0 s of 60.0 s", "$0.25 of $2.00"),
    )  # fmt: skip
    assert _budget(trace()) == _budget(trace(agent={"limits": 5})) == []
    odd = {"tokens": True, "calls": 0, "seconds": "9", "cost_usd": 1e15, "other": 3}
    assert _budget(trace(agent={"limits": odd})) == [] and _budget(trace(agent={"limits": {"calls": 1}})) == [
        "0 of 1 calls"
    ]
    many = trace(events=tuple(Event("vote", 0.0, {"counts": {f"a{n}": 1 for n in range(41)}}) for _ in range(41)))
    assert (len(attempt_facts(many).votes), len(attempt_facts(many).votes[0])) == (40, 40)


def test_an_attempt_is_copied_as_a_test_and_as_lines() -> None:
    made = trace(scores=(Score("exact", 0.25), Score("x", 1.0)))
    text = as_test('run-1"\n', made)
    assert text == (
        '"""Made from attempt x1 of run run-1: the same task must be solved as well again."""\n\nimport json\n'
        "import subprocess\nimport sys\n\nRUN, ATTEMPT = 'run-1\"\\n', 'quiz/a task/ann/2'\nBAR = 0.25\n\n\n"
        "def test_a_task_is_solved_as_well_as_before():\n"
        '    command = [sys.executable, "-m", "firsthand", "fork", RUN, ATTEMPT, "--at", "0", "--json"]\n'
        "    made = subprocess.run(command, capture_output=True, text=True)\n    assert made.returncode == 0, made.stderr\n"
        '    scores = json.loads(made.stdout)["scores"]\n    assert scores and scores[0]["value"] >= BAR, scores\n'
    )
    odd = Trace('é"\n' + "x" * 130, "b", "é-" + "a" * 70 + "!", {"name": "n"}, 0, 0, "", 1.0)
    text = as_test("r", odd)
    assert (
        f"def test_{'a' * 58}_is_solved" in text and f"attempt {'x' * 120} of run r:" in text and "BAR = 0.0\n" in text
    )
    assert "def test_task_is_solved" in as_test("r", Trace("x", "b", "é", {"name": "n"}, 0, 0, "", 1.0))
    signs = as_test("host:8/r.1", Trace("a_b-c:d", "b", "q", {"name": "n"}, 0, 0, "", 1.0))
    assert "attempt a_b-c:d of run host:8/r.1:" in signs
    with pytest.raises(ConfigError, match=r"gives no training example: .*, its answer was cut, or no model"):
        as_examples("r", trace(nodes=(Node(None, user("x")),)))
    nodes = (Node(None, user("é?")), Node(0, assistant("one")), Node(0, assistant("two")))
    lines = as_examples("r", trace(nodes=nodes, calls=(call(":0", at=0, nodes=(1, 2)),), answer="two"))
    rows = [json.loads(line) for line in lines.splitlines()]
    assert (
        [row["messages"][-1]["content"] for row in rows] == ["one", "two"]
        and "\\u00e9?" in lines
        and lines.endswith("}\n")
    )


def test_steps_of_two_attempts_are_aligned_and_part_at_the_first_difference() -> None:
    nodes = (Node(None, user("q")), Node(0, assistant("yes")), Node(0, assistant("no")))
    calls = (call(":0", nodes=(1, 2, 9)), call(":1", "tool", detail={"name": "look", "arguments": {"b": 1, "a": "é"}}),
             call(":2", "memory", detail={"z": 1, "a": 2}), call(":3", "score", error="broke", nodes=(1,)))  # fmt: skip
    made = trace(nodes=nodes, calls=calls)
    steps = [_step(made, each, number) for number, each in enumerate(calls, 4)]
    assert steps == [
        Step("generate", "", "yes | no", "call:4"), Step("tool", "look", '{"a": "é", "b": 1}', "call:5"),
        Step("memory", "", '{"a": 2, "z": 1}', "call:6"), Step("score", "", "broke", "call:7"),
    ]  # fmt: skip
    steps = [_step(made, each, number) for number, each in enumerate(calls)]
    other = trace(nodes=nodes, calls=(calls[0], call(":1", "tool", detail={"name": "look", "arguments": {}}),
                                      call(":9", "tool", detail={"name": "new"}), calls[3]))  # fmt: skip
    theirs = [_step(other, each, number) for number, each in enumerate(other.calls)]
    found = trace_difference(made, other)
    assert found.steps == (
        AlignedStep("same", steps[0], theirs[0]), AlignedStep("changed", steps[1], theirs[1]),
        AlignedStep("removed", steps[2], None), AlignedStep("added", None, theirs[2]),
        AlignedStep("same", steps[3], theirs[3]),
    )  # fmt: skip
    assert (found.first, found.num_same) == (1, 2)
    same = trace_difference(made, made)
    assert (same.first, same.num_same, trace_difference(trace(), trace()).steps) == (None, 4, ())
