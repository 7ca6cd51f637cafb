"""People's ratings (`note.NAME`) are means of what was rated: an attempt that nobody rated is no 0, in any table."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.runs.pairing import compare
from firsthand.runs.pairing import scores_of as paired_scores
from firsthand.runs.store import Run
from firsthand.show.board import leaderboard
from firsthand.stats.agent_scores import agent_scores, task_values
from firsthand.stats.breakdown import cells
from firsthand.stats.run_summary import summary
from firsthand.stats.task_scores import task_scores
from firsthand.trace import Score
from scored_runs import scored_run

UNSCORED = {"t0": [{}], "t1": [{}], "t2": [{}], "u3": [None]}


def rate(run: Run, rated: dict[tuple[str, str], float], name: str = "note.good") -> None:
    for trace, number in list(run.tried()):
        if (key := (trace.agent_name, trace.task_id)) in rated:
            run.add_score(trace, number, name, "a person", Score(name, rated[key]))


def test_a_rating_of_some_attempts_is_a_mean_of_those_beside_the_runs_own_score(tmp_path: Path) -> None:
    own = {"t0": [{"own": 1.0}], "t1": [{"own": 0.0}], "t2": [{"own": 0.0}], "u3": [None]}
    run = scored_run(tmp_path, "r", {"a": {"b": own}, "c": {"b": own}})
    rate(run, {("a", "t1"): 1.0})
    (board,) = leaderboard(run.summaries())
    found = {row.agent: row.secondary for row in board.rows}
    assert (found["a"]["note.good"].value, found["a"]["note.good"].n) == (1.0, 1)
    assert "note.good" not in found["c"], "nobody rated it"
    assert {row.score.value for row in board.rows} == {0.25}, "failed attempts are 0 of the run's own score"
    assert next((each.score.value, each.score.n, each.errors) for each in summary(run, score="note.good")) == (
        1.0,
        1,
        1,
    )
    assert [each.score.n for each in summary(run, score="note.good")] == [1, 0]
    assert paired_scores([run], score="note.good", error_value=0.0) == {"b": {"a": {"t1": (1.0,)}}}
    found_pairs = compare(run, run, agent_a="a", agent_b="c", score="note.good", error_value=0.0)
    assert found_pairs.pairs == () and found_pairs.only_a == (("b", "t1"),)


def test_where_ratings_are_the_only_score_each_table_has_the_mean_of_the_rated(tmp_path: Path) -> None:
    run = scored_run(tmp_path, "r", {"a": {"b": UNSCORED}, "c": {"b": UNSCORED}})
    rate(run, {("a", "t0"): 1.0, ("a", "t1"): 0.5})
    assert [(each.agent, each.mean, each.tasks) for each in run.info.scores] == [("a", 0.75, 2)]
    assert [(each.agent, each.mean) for each in agent_scores(run)] == [("a", 0.75)]
    assert task_values(run)["b", "a"] == {"t0": 1.0, "t1": 0.5} and task_values(run)["b", "c"] == {}
    assert task_scores(run, {"b"}) == {("b", "a"): {"t0": (1.0,), "t1": (0.5,)}}
    rows = {each.agent: each for each in summary(run)}
    assert (rows["a"].score.value, rows["a"].score.n, rows["a"].attempts, rows["a"].errors) == (0.75, 2, 4, 1)
    assert (rows["c"].score.n, rows["c"].errors) == (0, 1)
    (board,) = leaderboard(run.summaries())
    assert [(row.agent, row.score.n) for row in board.rows] == [("a", 2), ("c", 0)] and board.rows[
        0
    ].score.value == 0.75
    letters = {each.values: (each.score.n, each.errors) for each in cells(run, ["letter"]) if each.agent == "a"}
    assert letters == {("t",): (2, 0), ("u",): (0, 1)}
    other = scored_run(tmp_path, "s", {"a": {"b": UNSCORED}})
    rate(other, {("a", "t0"): 0.0})
    found = compare(run, other, agent_a="a", error_value=0.0)
    assert [(each.task_id, each.a.value, each.b.value) for each in found.pairs] == [("t0", 1.0, 0.0)]


def test_an_agent_that_failed_everywhere_has_0_beside_own_scores_whatever_people_rated(tmp_path: Path) -> None:
    run = scored_run(tmp_path, "r", {"a": {"b": {"t0": [{"own": 1.0}]}}, "dead": {"b": {"t0": [None]}}})
    rate(run, {("a", "t0"): 1.0})
    assert {each.agent: each.mean for each in agent_scores(run)} == {"a": 1.0, "dead": 0.0}
    assert task_scores(run, {"b"}) == {("b", "a"): {"t0": (1.0,)}, ("b", "dead"): {"t0": (0.0,)}}


def test_a_failed_task_is_0_where_others_of_its_benchmark_have_own_scores_or_ratings(tmp_path: Path) -> None:
    tasks = {"t0": [{"own": 1.0}], "t1": [{}], "t2": [None]}
    runs = [scored_run(tmp_path, name, {"a": {"b": tasks}}) for name in ("r", "s")]
    for run in runs:
        rate(run, {("a", "t1"): 0.5})
    found = compare(*runs, agent_a="a", error_value=0.0)
    assert {each.task_id: each.a.value for each in found.pairs} == {"t0": 1.0, "t1": 0.5, "t2": 0.0}


def test_a_trace_that_nobody_rated_is_unjudged_under_names_of_ratings_alone(tmp_path: Path) -> None:
    run = scored_run(tmp_path, "r", {"a": {"b": {"t0": [{"own": 1.0}]}}})
    ((trace, _),) = list(run.tried())
    assert [trace.is_unjudged(name) for name in ("note.good", "notes", "own", None)] == [True, False, False, False]


@pytest.mark.parametrize("name", ["later", "notes"])
def test_scores_of_other_names_count_an_attempt_without_one_as_0(name: str, tmp_path: Path) -> None:
    run = scored_run(tmp_path, "r", {"a": {"b": UNSCORED}})
    rate(run, {("a", "t0"): 1.0}, name)
    (row,) = summary(run)
    assert (row.score.value, row.score.n, row.errors) == (0.25, 4, 3)
