"""Sums of scores over tries, epochs, clusters and names: which score of which try counts, each in a run of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.model import Usage
from firsthand.runs import store
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.score_totals import ScoreMean, TaskMean, Totals, score_means
from firsthand.task import Task
from firsthand.trace import Call, Score
from made_traces import trace


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {"reduce": ""}, "sums", command=["run"], reducers={"b": "max"}) as made:
        made.add_tasks("b", [Task(each, "?", metadata={"cluster": "c"}) for each in "pq"] + [Task("r", "?")])
        for agent in "yx":
            made.add_agent(agent, {"name": agent})
        yield made


def later(run: store.Run, place: str, number: int, name: str, value: float, **more: Any) -> None:
    run.add_score(run.tries(place)[number - 1], number, name, f"by {name}", Score(name, value, **more))


def test_the_last_score_of_the_latest_try_counts_and_another_name_stands_in_where_there_is_no_own(
    run: store.Run,
) -> None:
    call = Call(":0", "generate", None, 0.0, 1.0, "r", Usage(5, 1, 2, 0.25))
    for each in (
        trace("1", "p", 0.25, agent="x", calls=(call,)), trace("2", "p", agent="x", scores=()),
        trace("3", "q", None, agent="x"), trace("4", "r", agent="x", scores=(), calls=(call, call)),
        trace("5", "p", 0.5, agent="y"), trace("6", "p", 1.0, agent="y", epoch=1),
    ):  # fmt: skip
        run.append(each)
    later(run, "brx0", 1, "early", 1.0)
    later(run, "bpx0", 1, "judged", 1.0)
    later(run, "bpx0", 2, "judged", 0.75)
    later(run, "bpx0", 2, "judged", 0.5)
    later(run, "bqx0", 1, "judged", 1.0, failure="E: gone")
    later(run, "brx0", 1, "judged", 0.25)
    later(run, "bpy1", 1, "judged", 0.0)
    own = Totals("b", "y", 1, 2, 2, 0.75, 0.0, 0.75, 0.75, 1, 0.125, 0.5, 1, 0, 0.0, 2.0, ())
    early = Totals(
        "b", "x", 3, 3, 1, 1.0, pytest.approx(2 / 3), 0.0, 1.0, 0, 0.0, 3.0, 0, 14, 0.5, 3.0, ((1.0, 1), (0.0, 2))
    )  # fmt: skip
    assert run.totals() == [own, early], "the first name that was given"
    assert run.totals("judged") == [
        replace(own, scored=1, sum_means=0.0, squares_between=0.0, lowest=0.0, highest=0.0, fractions=0, squares_within=0.0,
                others=0),
        replace(early, scored=2, sum_means=0.75, squares_between=0.125, highest=0.5, fractions=2, others=2,
                clusters=((0.25, 1), (0.5, 2))),
    ]  # fmt: skip
    assert [(each.agent, each.scored, each.sum_means) for each in run.totals("early")] == [("y", 0, 0.0), ("x", 1, 1.0)]
    assert [(each.scored, each.sum_means) for each in run.totals("none")] == [(0, 0.0), (0, 0.0)]
    assert score_means(run.totals()) == (ScoreMean("b", "y", 0.75, 1), ScoreMean("b", "x", 1 / 3, 3))
    assert run.scored("judged") == {
        ("bpx0", 1): True, ("bpx0", 2): True, ("bqx0", 1): False, ("brx0", 1): True, ("bpy1", 1): True,
    }  # fmt: skip
    assert [[score.value for score in each.scores] for each in run.tries("bpx0")] == [[0.25, 1.0], [0.5]]
    assert [each.id for each in run.samples("b")] == ["5", "4", "2"], "an own score, and one of each later name"
    assert run.spent() == (Usage(21, cost_usd=0.75), 3), "an earlier try was paid for too"
    run.journal("bpx0").record("scorer s|:0", "r", {"usage": Usage(2, 1, 3, 0.5).to_json()})
    run.journal("bpx0").record("scorer s|:0", "r", {"usage": Usage(2, 1, 3, 0.5).to_json()})
    run.journal("under way").record("scorer s|:0", "r", {"usage": Usage(9, 0, 9, 9.0).to_json()})
    assert run.spent() == (Usage(26, cost_usd=1.25), 4), "a judge of a finished attempt, once"
    assert [(row.id, row.num_calls, row.tokens) for row in run.rows(agent="x")] == [
        ("2", 0, 0),
        ("3", 0, 0),
        ("4", 2, 14),
    ]


def test_half_a_character_in_a_name_is_written_out_wherever_the_name_is_asked_for(run: store.Run) -> None:
    odd = "é\ud800"
    run.append(trace("1", odd, 0.5, agent=odd, benchmark=odd, place=odd))
    later(run, odd, 1, odd, 0.25)
    written = "é\\ud800"
    assert run.score_names() == {written: f"by {written}"} and run.scored(odd) == {(written, 1): True}
    assert [(each.agent, each.sum_means) for each in run.totals(odd)] == [(written, 0.25)] == [
        (each.agent, each.sum_means) for each in run.totals(written)
    ]  # fmt: skip
    assert run.task_means() == [TaskMean(written, written, written, 0.5, 1, 1, False)]
    assert [row.id for row in run.rows(benchmark=odd, agent=odd)] == ["1"] == [each.id for each in run.samples(odd)]
    assert run.trace(odd).task_id == odd and run.trace(f"{odd}/").id == "1" and run.done() == {written}
    assert [each.task_id for each in run.tries(odd)] == [odd]
    run.journal(odd).record(odd, odd, {odd: 1})
    assert run.journal(odd).find(odd, odd) == {odd: 1} == run.reply(odd)


@pytest.mark.slow
def test_epochs_are_reduced_as_asked_then_as_the_run_was_made_then_as_the_benchmark_says(tmp_path: Path) -> None:
    with store.create(tmp_path, {"reduce": "mode"}, "a", reducers={"b": "max"}) as one:
        assert [one.reducer("b"), one.reducer("b", "median"), one.reducer("c"), one.reducer("c", "")] == [
            "mode", "median", "mode", "mode",
        ]  # fmt: skip
    with store.create(tmp_path, {"reduce": None}, "b", reducers={"b": "max"}) as two:
        assert [two.reducer("b"), two.reducer("b", "median"), two.reducer("c")] == ["max", "median", "mean"]
    with store.create(tmp_path, {}, "c") as three:
        assert (three.reducer("b"), three.protocols, three.about["reducers"]) == ("mean", {}, {})


def test_a_score_that_is_no_finite_number_is_no_value() -> None:
    for value in (math.inf, -math.inf, math.nan):
        summary = AttemptSummary.of(trace("1", "t", value))
        assert (summary.value(), summary.value("s"), summary.value("x")) == (None, None, None)
    for value in (0.0, -0.5, 1e300):
        assert AttemptSummary.of(trace("1", "t", value)).value() == value
    both = trace("1", scores=(Score("s", math.nan), Score("t", 0.0)))
    assert (AttemptSummary.of(both).value(), AttemptSummary.of(both).value("t")) == (None, 0.0), "the first is meant"


def test_agents_without_a_score_or_a_description_stand_in_the_list_too(run: store.Run) -> None:
    for each in (
        trace("1", "p", 0.5, agent="x"), trace("2", "p", agent="aa", scores=()), trace("3", "p", 0.25, agent="y"),
        trace("4", "q", agent="y", scores=()), trace("5", "p", agent="x", scores=(), benchmark="a"),
    ):  # fmt: skip
        run.append(each)
    assert run.pairs() == [("a", "x"), ("b", "y"), ("b", "x"), ("b", "aa")], "those that are not described come last"
    assert score_means(run.totals()) == (
        ScoreMean("b", "y", 0.125, 2),
        ScoreMean("b", "x", 0.5, 1),
        ScoreMean("b", "aa", 0.0, 1),
    )
    assert run.task_means() == [
        TaskMean("a", "x", "p", None, 1, 0, True, 1, 1), TaskMean("b", "y", "p", 0.25, 1, 1, False),
        TaskMean("b", "y", "q", 0.0, 1, 0, True), TaskMean("b", "x", "p", 0.5, 1, 1, False),
        TaskMean("b", "aa", "p", 0.0, 1, 0, True),
    ]  # fmt: skip


def test_the_clusters_have_the_sums_of_the_score_that_stands_in(run: store.Run) -> None:
    for task in "pqr":
        run.append(trace(f"{task}x", task, agent="x", scores=()))
        run.append(trace(f"{task}y", task, 0.0, agent="y"))
    for task, value in (("p", 0.75), ("q", 0.5), ("r", 0.25)):
        for agent in "xy":
            later(run, f"b{task}{agent}0", 1, "judged", value)
    later(run, "bpx0", 1, "other", 1.0)
    own, stands_in = run.totals()
    assert (own.agent, own.sum_means, own.clusters) == ("y", 0.0, ((0.0, 1), (0.0, 2))), "scores of 0 are scores"
    assert (stands_in.agent, stands_in.scored, stands_in.sum_means) == ("x", 3, 1.5)
    assert stands_in.clusters == ((0.25, 1), (1.25, 2))
    assert [each.clusters for each in run.totals("other")] == [((0.0, 1), (0.0, 2)), ((0.0, 1), (1.0, 2))]
