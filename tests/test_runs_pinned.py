"""Runs at their edges: what a fork keeps, what a comparison pairs, and what is kept of each score beside its trace."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands.runs import _attempts, _is_old, _score
from firsthand.errors import StoreError
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
from firsthand.runs.index import RunInfo
from firsthand.runs.pairing import compare, scores_of
from firsthand.runs.score_totals import ScoreMean
from firsthand.runs.store import Run, create
from firsthand.runs.unreported_usage import Unreported
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


@pytest.mark.slow
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
    less = compare(run_of(tmp_path, "less", [trace("x", 0.5)]), b)
    assert less.missing == less.only_a == (("b", "x"),) and not less.pairs
    assert scores_of([a])["b"]["a"] == {"p": (0.0, 1.0), "q": (0.5,), "x": (1.0,)}
    a.close()
    b.close()


def test_attempts_are_paired_in_the_order_of_their_epochs(tmp_path: Path) -> None:
    epochs = (3, 0, 5, 1, 4, 2)
    run = run_of(tmp_path, "epochs", [trace("p", float(epoch), epoch, id=f"i{9 - epoch}") for epoch in epochs])
    (pair,) = compare(run, run).pairs
    assert pair.a.values == tuple(map(float, range(6))) and pair.a.epochs == tuple(range(6))
    assert pair.a.trace_ids == tuple(f"i{9 - epoch}" for epoch in range(6)) and pair.a.value == 2.5
    assert pair.a.places == tuple(each.place for each in sorted(run.traces(), key=lambda each: each.epoch))
    run.close()


def test_later_scores_stand_in_only_where_no_attempt_has_its_own(tmp_path: Path) -> None:
    made = [trace("p", 0.0), trace("q", 1.0), *(trace(task, scores=(), agent="bare") for task in ("p", "q"))]
    run = run_of(tmp_path, "later", made, ("p", "q"))
    for each in made:
        run.add_score(each, 1, "first", "one", Score("first", 0.25))
        run.add_score(each, 1, "second", "two", Score("second", 0.75))
    assert {each.agent: each.sum_means for each in run.totals()} == {"a": 1.0, "bare": 0.5}
    assert {each.agent: each.sum_means for each in run.totals("second")} == {"a": 1.5, "bare": 1.5}
    assert set(run.scored("first").values()) == {True}
    run.add_score(made[0], 1, "first", "one", Score("first", 0.0, failure="E: gone"))
    assert run.scored("first") == {(each.place, 1): each is not made[0] for each in made}
    assert {each.agent: (each.scored, each.sum_means) for each in run.totals("first")} == {
        "a": (1, 0.25), "bare": (2, 0.5),
    }  # fmt: skip
    run.add_score(made[0], 1, "first", "one", Score("first", 1.0))  # of several the last one counts
    assert {each.agent: (each.scored, each.sum_means) for each in run.totals("first")}["a"] == (2, 1.25)
    found = {each.place: [score.value for score in each.scores] for each in run.traces()}
    assert found == {each.place: [*(score.value for score in each.scores), 0.25, 0.75] for each in made[1:]} | {
        made[0].place: [0.0, 1.0, 0.75]
    }
    run.close()


def test_a_list_of_runs_shows_the_lowest_and_the_highest_mean() -> None:
    def shown(*means: float) -> str:
        scores = tuple(ScoreMean("b", str(place), mean, 2) for place, mean in enumerate(means))
        return _score(RunInfo("id", Path(), scores=scores))

    assert (shown(), shown(0.5), shown(0.5, 0.501)) == ("", "0.50", "0.50")
    assert shown(0.5, 0.25, 1.0, 0.75) == "0.25 to 1.00"
    numbers = [(0, None), (3, 3), (2, 7), (4, 3)]
    assert [_attempts(RunInfo("id", Path(), num_traces=n, num_planned=k)) for n, k in numbers] == ["0", "3", "2/7", "4"]


def test_runs_that_are_removed_unnamed_are_old_or_empty_and_can_be_read() -> None:
    def info(**changes: Any) -> RunInfo:
        made = (datetime.now(UTC) - timedelta(days=10)).isoformat()
        return replace(RunInfo("id", Path(), created_at=made, status="stopped"), **changes)

    assert _is_old(info(), None) and not _is_old(info(num_traces=1), None)
    assert _is_old(info(num_traces=1), 9.9) and not _is_old(info(), 10.1)
    for kept in (info(problem="gone"), info(status="running")):
        assert not _is_old(kept, None) and not _is_old(kept, 0.0)


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
    assert unpack_numbers(pack_numbers(summary)) == ((12, 2, 4), 2.0, summary.scores, Unreported())
    hidden = AttemptSummary.of(trace(value=None, events=(Event("protected", 0.0, {"why": "w"}),)))
    assert hidden.error == "E" and AttemptSummary.of(trace(value=None)).error == "E: gone"
    for given in ({}, {"why": ""}):  # protected for no reason that is told
        unreasoned = trace(value=None, scores=(score,), events=(Event("protected", 0.0, given),))
        summary = AttemptSummary.of(unreasoned)
        assert (summary.error, summary.scores[0].failure) == ("E", "E")


def test_a_row_and_its_trace_name_one_attempt(tmp_path: Path) -> None:
    with create(tmp_path, {}, "r") as run:
        run.append(trace("t", id="a\ud800"))  # no column holds half a surrogate pair: it is written out there
        run.append(trace("u", id="b"))
        assert [each.id for each in run.traces()] == ["a\ud800", "b"]
        with run.database.write() as connection:
            connection.execute("UPDATE traces SET id = 'c' WHERE id = 'b'")
        with pytest.raises(StoreError, match="a trace is not the one its row says"):
            list(run.traces())
