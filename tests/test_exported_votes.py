"""The answers of a vote are words of the model: they leave no attempt by being names."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

from firsthand import Agent, Task, run_sync
from firsthand.loop.protection import shareable
from firsthand.patterns.self_consistency import self_consistency
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.telemetry.trace_spans import spans_of
from firsthand.trace import Event, Trace

KEYS_OF_THE_MODEL = {"patterns/parts/voting.py"}
"""Files that note names which a model wrote: votes alone."""
KEYS_OF_OUR_OWN = {
    "patterns/probed_cot.py", "patterns/judge_rag.py", "patterns/judge.py", "patterns/tot.py", "rollout.py", "context.py",
    "bridges/inspect/solver_chain.py", "retrieval/answers/variant_parts.py", "retrieval/rag/self_rag.py",
    "loop/borders.py", "loop/tool_call.py",
}  # fmt: skip


def voted(answer: str, protected: str | None = None) -> Trace:
    task = Task("t", "Who?", metadata={} if protected is None else {"protected": protected})
    model = Scripted([f"The answer is {answer}"] * 3)
    return run_sync(rollout(Agent("sc", model, self_consistency, {"samples": 3}), task))


def exported(trace: Trace, kind: str = "vote", *, content: bool = False) -> list[dict[str, object]]:
    return [dict(e.attributes) for span in spans_of(trace, "r", content=content) for e in span.events if e.name == kind]


def test_spans_hold_no_answer_that_was_voted_for() -> None:
    for answer in ("Jane Doe, HIV positive", "Constantinople", "yes"):
        trace = voted(answer)
        assert [e.data for e in trace.events if e.kind == "vote"] == [{answer.lower(): 3}]
        assert exported(trace) == exported(trace, content=True) == [{}]
    votes = replace(trace, events=(Event("votes", 0.0, {"yes": 2}),))
    assert exported(votes, "votes") == [{}]


def test_numbers_of_other_events_are_exported_by_short_names_alone() -> None:
    data = {"round": 2, "after_s": 0.5, "Jane Doe is ill": 1, "a" * 41: 1, "a" * 40: 1}
    trace = replace(voted("yes"), events=(Event("debate", 0.0, data),))
    assert exported(trace, "debate") == [{"firsthand.round": 2, "firsthand.after_s": 0.5, "firsthand." + "a" * 40: 1}]


def test_a_vote_of_a_protected_task_names_short_answers_alone() -> None:
    def shown(event: Event) -> object:
        *_, found = shareable(replace(trace, events=(*trace.events, event))).events
        return found.data

    trace = voted("Constantinople", "gpqa")
    assert [e.data for e in shareable(trace).events if e.kind == "vote"] == [{"[withheld: key 0]": 3}]
    assert shown(Event("vote", 0.0, {"72": 2, "abcdefgh": 1, "abcdefghi": 1})) == {
        "72": 2, "abcdefgh": 1, "[withheld: key 2]": 1,
    }  # fmt: skip
    assert shown(Event("votes", 0.0, {"counts": {"byzantium": 2, "b": 1}})) == {
        "counts": {"[withheld: key 0]": 2, "b": 1}
    }
    assert shown(Event("debate", 0.0, {"round_number": 2})) == {"round_number": 2}


def test_votes_alone_are_noted_by_names_that_a_model_wrote() -> None:
    root = Path(__file__).parent.parent / "src" / "firsthand"
    found = set()
    for file in root.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "note(" in text else ():
            is_note = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "note"
            if is_note and any(word.arg is None for word in node.keywords):  # type: ignore[attr-defined]
                found.add(file.relative_to(root).as_posix())
    assert found == KEYS_OF_THE_MODEL | KEYS_OF_OUR_OWN, "see that no name of an event is a text of a model"
