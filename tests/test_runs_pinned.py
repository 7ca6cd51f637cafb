"""Runs at their edges: what a fork keeps, what a comparison pairs, and what is kept of each score beside its trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand.loop.reply_body import from_body
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs.attempt_summary import (
    KEPT_DETAIL,
    AttemptSummary,
    pack_numbers,
    pack_score,
    unpack_numbers,
    unpack_score,
    without_words,
)
from firsthand.runs.flaky import Flaky
from firsthand.runs.forking import _reply, kept_calls
from firsthand.runs.pairing import compare, scores_of
from firsthand.runs.store import Run, create
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


def trace(task: str = "t", value: float | None = 1.0, epoch: int = 0, agent: str = "a", **more: Any) -> Trace:
    scores = more.pop("scores", () if value is None else (Score("s", value),))
    error = Failure("E", "gone") if value is None else None
    id = more.pop("id", f"{agent}-{task}-{epoch}")
    return Trace(id, "b", task, {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=error, **more)


# -- forks --


def call(
    id: str, kind: Any = "generate", at: int | None = 0, start: float = 0.0, nodes: tuple[int, ...] = (), **more: Any
) -> Call:
    return Call(id, kind, at, start, 1.0, "r", nodes=nodes, **more)


def test_a_fork_keeps_the_calls_that_had_ended_when_its_node_was_there() -> None:
    """A question (0), three answers at once (1, 2, 3), a tool from the second, a score from it, and a last answer (4)."""
    calls = (
        call(":0", start=0.0, nodes=(1, 2, 3)),
        call(":1", "tool", 2, start=1.0, detail={"name": "f", "result": "x", "is_error": False}),
        call(":2", "score", 2, start=2.0, detail={"likelihoods": []}),
        call(":3", "score", 2, start=2.5, error="lost"),
        call(":4", "memory", 2, start=3.0, detail={"reply": "id"}),
        call(":5", "memory", 2, start=3.5, error="lost"),
        call(":6", "guard", 2, start=3.6, detail={"answer": "ok"}),
        call(":7", start=4.0, at=2, nodes=(4,)),
        call(":8", "tool", 4, start=5.0, detail={"name": "f", "result": "y", "is_error": False}),
    )
    nodes = (Node(None, user("q")), *(Node(0, assistant(str(n))) for n in range(3)), Node(2, assistant("end")))
    made = trace(nodes=nodes, calls=calls)
    first = {":0"}
    after = first | {":1", ":2", ":4", ":6"}
    assert [set(kept_calls(made, at)) for at in range(5)] == [set(), first, first, after, after | {":7"}]


def test_a_kept_generation_costs_once_what_it_cost() -> None:
    usage = Usage(10, 4, 6, 0.5)
    made = trace(
        nodes=(Node(None, user("q")), Node(0, assistant("x")), Node(0, assistant("y"))),
        calls=(call(":0", nodes=(1, 2), usage=usage, detail={"finish_reasons": ["stop", "length"]}),),
    )
    found = from_body(_reply(made, made.calls[0], 0), lambda request, sample: None)
    assert [(each.message.text, each.finish_reason) for each in found] == [("x", "stop"), ("y", "length")]
    assert sum((each.usage for each in found), Usage()) == usage


# -- comparisons --


def run_of(home: Path, name: str, attempts: list[Trace], tasks: tuple[str, ...] = ("p", "q", "r", "x")) -> Run:
    run = create(home, {"seed": 1}, name)
    run.add_tasks("b", [Task(task, "?") for task in tasks])
    for agent in dict.fromkeys(each.agent_name for each in attempts):
        run.add_agent(agent, {"name": agent})
    for each in attempts:
        run.append(each)
    return run


def test_a_comparison_pairs_what_both_scored_and_tells_of_the_rest(tmp_path: Path) -> None:
    one = [trace("p", 1.0, 1), trace("p", 0.0, 0), trace("q", 0.5), trace("r", None), trace("x", 1.0), trace("y", None)]
    two = [trace("p", 1.0, 0), trace("p", 1.0, 1), trace("q", None), trace("r", 1.0), trace("z", 0.25)]
    a, b = run_of(tmp_path, "one", one), run_of(tmp_path, "two", two)
    found = compare(a, b)
    assert [(pair.task_id, pair.a.values, pair.b.values, pair.a.epochs) for pair in found.pairs] == [
        ("p", (0.0, 1.0), (1.0, 1.0), (0, 1))
    ]
    assert found.only_a == (("b", "q"), ("b", "x")) and found.only_b == (("b", "r"), ("b", "z"))
    assert found.missing == (("b", "x"), ("b", "y")) and found.unscored == ({"b": 2}, {"b": 1}) and found.repeated
    assert found.pairs[0].change == "better" and found.num_unscored == (0, 0)
    zero = compare(a, b, error_value=0.0)
    assert {pair.task_id: (pair.a.values, pair.b.values) for pair in zero.pairs} == {
        "p": ((0.0, 1.0), (1.0, 1.0)), "q": ((0.5,), (0.0,)), "r": ((0.0,), (1.0,)),
    }  # fmt: skip
    assert zero.only_a == (("b", "x"), ("b", "y")) and zero.unscored == found.unscored
    assert [pair.task_id for pair in zero.tasks("better")] == ["r", "p"] and not zero.tasks("same")
    assert scores_of([a])["b"]["a"] == {"p": (0.0, 1.0), "q": (0.5,), "x": (1.0,)}
    a.close()
    b.close()


def test_how_much_attempts_disagree_is_the_chance_of_two_that_differ() -> None:
    for values in ((1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 0.5, 0.0), (0.0, 0.0, 0.0, 1.0)):
        pairs = [(i, j) for i in range(len(values)) for j in range(i)]
        differ = sum(values[i] != values[j] for i, j in pairs) / len(pairs)
        assert Flaky("b", "t", "a", values).disagreement == pytest.approx(differ)


# -- summaries --


def test_tables_read_what_is_kept_of_a_score_and_nothing_else() -> None:
    detail = {key: [place] for place, key in enumerate(KEPT_DETAIL)}
    for kept in (
        "corpus",
        "confidence",
        "judge",
        "protocol",
        "by",
        "calls",
        "tokens",
        "cost_usd",
        "orders",
        "first",
        "forged",
    ):
        assert kept in KEPT_DETAIL
    score = Score(
        "s", 0.25, {**detail, "answer": "long words", "trace": {}}, None, failure="E: the question", unjudged=True
    )
    assert without_words(score) == Score("s", 0.25, detail, failure="E: the question", unjudged=True)
    assert without_words(score, protected=True) == Score("s", 0.25, detail, failure="E", unjudged=True)
    assert unpack_score(pack_score(score)) == score and unpack_score(pack_score(Score("n", 0.0))) == Score("n", 0.0)
    made = trace(
        scores=(score, Score("n", 1.0, node=0)), nodes=(Node(None, user("q")),),
        calls=(call(":0", usage=Usage(5, 2, 3, 0.125)), call(":1", usage=Usage(7, 0, 1))),
    )  # fmt: skip
    summary = AttemptSummary.of(made)
    assert (summary.num_calls, summary.usage, summary.critical_s) == (2, Usage(12, 2, 4, 0.125), 2.0)
    assert summary.scores == (without_words(score),)  # of the whole attempt
    assert unpack_numbers(pack_numbers(summary)) == ((12, 2, 4), 2.0, summary.scores)
    hidden = AttemptSummary.of(trace(value=None, events=(Event("protected", 0.0, {"why": "w"}),)))
    assert hidden.error == "E" and AttemptSummary.of(trace(value=None)).error == "E: gone"
