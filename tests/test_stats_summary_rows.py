"""Rows of a run's summary, its figures and its cells: each worked out from small sums."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Figure
from firsthand.errors import ConfigError, UnknownName
from firsthand.runs.score_totals import TaskMean, Totals
from firsthand.runs.store import Run, create
from firsthand.stats.breakdown import Cell, Grid, _cell, _rank, _scores, _value, cells, grids, own_grids
from firsthand.stats.effective_length import Effective
from firsthand.stats.figure_stats import figure_interval
from firsthand.stats.figures import figure_detail
from firsthand.stats.intervals import Interval, Moments, interval_of, mean_interval, z_value
from firsthand.stats.power_analysis import Spread
from firsthand.stats.run_summary import SummaryRow, _line, _repeats, _spread, _with_figures, summary
from firsthand.stats.stored_figures import _specs, first_score, own_figures, stored_figures
from firsthand.task import Task
from firsthand.trace import Score, Trace
from made_traces import trace
from same_values import same

# 3 tasks of 2 attempts each: means 1, 0.5 and 0, one attempt without a score
TOTALS = Totals(
    "sums", "bo", 3, 6, 5, 1.5, 0.5, 0.0, 1.0, 1, 0.5, 1.5, 0, 90, 0.75, 12.0, clusters=((1.5, 2), (0.0, 1))
)


def test_a_row_is_made_of_the_sums_of_its_attempts() -> None:
    found = _line(TOTALS, 0.9)
    moments = Moments(3, 0.5, 0.25, 0.0, 1.0, False, ((1.5, 2), (0.0, 1)), repeats=2)
    within = 0.5 / 3
    assert found == SummaryRow(
        "sums", "bo", interval_of(moments, 0.9), Spread(0.25 - within * 1.5 / 3, within, 3, 6), 6, 1, 15.0, 2.0, 0.75
    )
    assert found.score.method == "clustered Wilson"
    whole = _line(replace(TOTALS, fractions=0, clusters=(), inverse_epochs=2.0, squares_between=-1e-9), 0.9)
    # 1.5 of 3 tasks, rounded to even; the variance is never below 0, and the epochs are not equally many
    assert whole.score == interval_of(Moments(3, 0.5, 0.0, 0.0, 1.0, True), 0.9) and whole.score.method == "Wilson"
    assert whole.spread == Spread(0.0, within, 3, 6)
    lone = _line(replace(TOTALS, tasks=1, attempts=1, scored=0, sum_means=None, clusters=()), 0.9)
    assert math.isnan(lone.score.value) and (lone.errors, lone.tokens, lone.seconds) == (1, 90.0, 12.0)
    assert math.isnan(lone.spread.within) and (lone.spread.tasks, lone.spread.attempts) == (1, 1)
    body = replace(found, figures={"bleu": Interval(0.5, 0.25, 0.75, 3, "BCa bootstrap", 0.125)}).to_json()
    assert body == {
        "benchmark": "sums", "agent": "bo", "score": found.score.to_json(),
        "spread": {"between": pytest.approx(1 / 6), "within": pytest.approx(1 / 6), "tasks": 3, "attempts": 6},
        "attempts": 6, "errors": 1, "tokens": 15.0, "seconds": 2.0, "cost_usd": 0.75, "usd": 0.125,
        "reduce": "mean", "retried": {"attempts": 0, "most": 0},
        "detectable": pytest.approx((z_value(0.95) + z_value(0.6)) * math.sqrt(2) * found.score.error),
        "figures": {"bleu": {
            "value": 0.5, "low": 0.25, "high": 0.75, "n": 3, "method": "BCa bootstrap", "error": 0.125,
        }},
    }  # fmt: skip
    known = replace(found, score=Interval(0.5, 0.0, 1.0, 4, error=0.0))
    assert math.isnan(known.detectable) and known.to_json()["detectable"] is None


def test_attempts_repeat_a_task_only_where_they_are_equally_many_and_each_is_0_or_1() -> None:
    assert _repeats(TOTALS) == 2 and _repeats(replace(TOTALS, others=1)) == 1
    assert _repeats(replace(TOTALS, attempts=7)) == 1, "seven attempts at three tasks"
    assert _repeats(replace(TOTALS, inverse_epochs=1 + 1 / 2 + 1 / 3)) == 1, "one, two and three attempts"
    assert _repeats(replace(TOTALS, inverse_epochs=1.5 + 1e-10)) == 2
    spread = _spread(replace(TOTALS, tasks=2, attempts=3, squares_within=-1e-9, inverse_epochs=1.5), 0.25)
    assert spread == Spread(0.25, 0.0, 2, 3), "a rounding error below 0 is none"
    assert math.isnan(_spread(replace(TOTALS, attempts=3), 0.25).between), "one attempt each tells no part"
    assert math.isnan(_spread(replace(TOTALS, tasks=1), 0.25).between)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Three agents' attempts: `micro` is a figure of the corpus; `plain` has strata and is given a score later."""
    made = create(tmp_path, {}, "r")
    for agent in ("ada", "bo"):
        made.add_agent(agent, {"name": agent})
    made.add_tasks(
        "corpus", [Task(name, "?", metadata={"cluster": "c"[: name != "t3"]}) for name in ("t1", "t2", "t3")]
    )
    made.add_tasks("plain", [Task(f"p{n}", "?", metadata={"stratum": "xy"[n // 2]}) for n in range(4)])
    for agent, parts in (("ada", ((1, 0, 0), (1, 2, 0), (0, 0, 3))), ("bo", ((2, 0, 1), (0, 1, 1), (3, 0, 0)))):
        for task, sums in zip(("t1", "t2", "t3"), parts, strict=True):
            score = Score("micro", sums[0] / 4, figure_detail("micro_f1", sums))
            other = Score("kept", sums[0] / 2, figure_detail("share", (sums[0], 4)))
            made.append(trace(f"{agent}{task}", task, agent=agent, benchmark="corpus", scores=(score, other)))
    for number, value in enumerate((1.0, 0.25, 0.5, 0.0)):
        made.append(trace(f"p{number}", f"p{number}", value, agent="bo", benchmark="plain"))
        made.append(trace(f"q{number}", f"p{number}", 0.75, agent="bo", benchmark="plain", epoch=1))
    return made


def test_a_summary_shows_figures_strata_reducers_and_scores_given_later(run: Run) -> None:
    rows = {(row.benchmark, row.agent): row for row in summary(run, 0.8)}
    assert list(rows) == [("corpus", "ada"), ("corpus", "bo"), ("plain", "bo")]
    clusters = run.clusters()
    figures = stored_figures({"ada": (run, "ada"), "bo": (run, "bo")}, "corpus", {})
    for agent, micro, share in (("ada", 4 / (4 + 2 + 3), 2 / 12), ("bo", 10 / (10 + 1 + 2), 5 / 12)):
        row = rows["corpus", agent]
        assert row.score == figure_interval(figures["micro"][agent], clusters["corpus"], 0.8), "it replaces the mean"
        assert row.score.value == pytest.approx(micro) and list(row.figures) == ["kept"]
        assert row.figures["kept"] == figure_interval(figures["kept"][agent], clusters["corpus"], 0.8)
        assert row.figures["kept"].value == pytest.approx(share) and (row.attempts, row.errors) == (3, 0)
    values = {f"p{n}": [value, 0.75] for n, value in enumerate((1.0, 0.25, 0.5, 0.0))}
    plain = rows["plain", "bo"]
    assert plain.score == mean_interval(values, 0.8, clusters["plain"]) and plain.score.method.startswith("stratified")
    assert plain.figures == {} and plain.attempts == 8
    best = {row.agent: row.score for row in summary(run, 0.8, reduce="max") if row.benchmark == "plain"}
    tops = {task: [max(each)] for task, each in values.items()}
    assert best["bo"] == mean_interval(tops, 0.8, clusters["plain"])
    with pytest.raises(ConfigError):
        summary(run, strata="colour")

    for made, number in list(run.tried(benchmark="plain")):
        run.add_score(made, number, "judged", "rubric", Score("judged", 0.5 + made.epoch / 4))
    later = {(row.benchmark, row.agent): row for row in summary(run, 0.8, score="judged")}
    twice = {task: [0.5, 0.75] for task in values}
    assert later["plain", "bo"].score == mean_interval(twice, 0.8, clusters["plain"])
    assert later["corpus", "ada"].errors == 3 and later["corpus", "ada"].figures == {}
    with pytest.raises(UnknownName, match="judge"):
        summary(run, score="judge")


def test_a_run_whose_scores_were_all_given_later_is_ranked_by_the_first_of_them(tmp_path: Path) -> None:
    made = create(tmp_path, {}, "later")
    made.add_agent("a", {"name": "a"})
    made.add_tasks("b", [Task(f"t{n}", "?", metadata={"stratum": "xy"[n // 2]}) for n in range(4)])
    for number in range(4):
        made.append(trace(f"i{number}", f"t{number}", scores=()))
    for made_, tried in list(made.tried()):
        for name, value in (("first", 0.25), ("second", 0.75)):
            made.add_score(made_, tried, name, "rubric", Score(name, value + int(made_.task_id[1]) / 16))
    (row,) = summary(made)
    assert row.score.value == pytest.approx(0.25 + 6 / 64) and row.errors == 0
    assert first_score("b", made) == "first"


def test_a_figure_with_the_name_of_the_first_score_stands_in_its_place(run: Run) -> None:
    line = _line(replace(TOTALS, benchmark="corpus"), 0.9)
    one, two = Interval(0.5, 0.25, 0.75, 3), Interval(0.25, 0.0, 0.5, 3)
    assert _with_figures(line, run, {}) == line
    assert _with_figures(line, run, {"kept": one}) == replace(line, figures={"kept": one})
    assert _with_figures(line, run, {"kept": one, "micro": two}) == replace(line, score=two, figures={"kept": one})


def test_figures_are_of_the_tasks_and_the_sides_that_were_asked_for(run: Run) -> None:
    sides = {"one": (run, "ada"), "other": (run, "bo")}
    found = stored_figures(sides, "corpus", {}, tasks={"one": ["t1", "t2"], "other": ["t3"]})
    assert {name: {side: figure.tasks for side, figure in each.items()} for name, each in found.items()} == {
        name: {"one": ("t1", "t2"), "other": ("t3",)} for name in ("micro", "kept")
    }
    assert stored_figures(sides, "plain", {}) == {}, "it is not read where no score is a share"
    given: list[Any] = []

    def own(traces: Any) -> list[Figure]:
        given.append([(type(each), each.agent_name, each.task_id) for each in traces])
        return [Figure("own", ("p0",), lambda counts: counts.sum(1))]

    found = stored_figures(sides, "plain", {"plain": own, "corpus": own}, tasks={"one": [], "other": ["p0"]})
    assert given == [[], [(Trace, "bo", "p0")] * 2] and list(found["own"]) == ["one", "other"]
    failed = trace("x", "t1", None, agent="ada", benchmark="corpus", epoch=1)
    run.append(failed)
    with_errors = stored_figures({"one": (run, "ada")}, "corpus", {})["micro"]["one"]
    without = stored_figures({"one": (run, "ada")}, "corpus", {}, errors=False)["micro"]["one"]
    once = np.ones((1, 3))
    # the failed attempt at t1 missed the one label that was wanted there
    assert with_errors.of(once)[0] == pytest.approx(4 / (4 + 2 + 4)) and without.of(once)[0] == pytest.approx(4 / 9)


def test_cells_hold_the_tasks_that_agree_with_their_errors_and_clusters(tmp_path: Path) -> None:
    made = create(tmp_path, {}, "cells")
    for agent in ("bo", "ada"):
        made.add_agent(agent, {"name": agent})
    facts = [("t1", 10, "b"), ("t2", 9, "a"), ("t3", 10, "a"), ("t4", 10, "b")]
    made.add_tasks("s", [Task(t, "?", metadata={"length": n, "depth": d, "cluster": d}) for t, n, d in facts])
    made.add_tasks("none", [Task("u", "?", metadata={"level": 1})])
    for agent, values in (("bo", (1.0, 0.5, None, 0.0)), ("ada", (0.0, 1.0, 0.25, 0.75))):
        for (task, _, _), value in zip(facts, values, strict=True):
            made.append(trace(f"{agent}{task}", task, value, agent=agent, benchmark="s"))
    made.append(trace("more", "t1", 0.0, agent="bo", benchmark="s", epoch=1))
    made.append(trace("else", "u", 0.5, agent="bo", benchmark="none"))
    clusters = {"t1": "b", "t4": "b", "t3": "a"}
    found = cells(made, ["length"], 0.9)
    assert same(found, [
        Cell("s", "bo", (9,), mean_interval({"t2": [0.5]}, 0.9), 1, 0),
        Cell("s", "bo", (10,), mean_interval({"t1": [1.0, 0.0], "t3": [0.0], "t4": [0.0]}, 0.9, clusters), 4, 1),
        Cell("s", "ada", (9,), mean_interval({"t2": [1.0]}, 0.9), 1, 0),
        Cell("s", "ada", (10,), mean_interval({"t1": [0.0], "t3": [0.25], "t4": [0.75]}, 0.9, clusters), 3, 0),
    ])  # fmt: skip
    assert [each.values for each in cells(made, ["depth", "length"], benchmark="s")[:3]] == [
        ("a", 9), ("a", 10), ("b", 10),
    ]  # fmt: skip
    assert [each.values for each in cells(made, ["level", "length"]) if each.benchmark == "none"] == [(1, "")]
    assert found[1].to_json(["length"]) == {
        "benchmark": "s", "agent": "bo", "by": {"length": 10}, "score": found[1].score.to_json(), "attempts": 4,
        "errors": 1,
    }  # fmt: skip
    assert grids(found, ["length"])[1] == Grid(
        "s", "ada", ("length",), (9, 10), ("",), {(9, ""): found[2], (10, ""): found[3]}
    )
    two = cells(made, ["length", "depth"])
    grid = grids(two, ["length", "depth"])[0]
    assert (grid.rows, grid.columns, grid.column_name) == ((9, 10), ("a", "b"), "depth")
    assert grid.cells == {(9, "a"): two[0], (10, "a"): two[1], (10, "b"): two[2]}
    with pytest.raises(ConfigError) as refused:
        grids(two, ["a", "b", "c"])
    assert str(refused.value) == "by is a,b,c: a grid has rows and columns, so name one or two keys"
    for by, said in (
        ([], "by is '': name each key once, such as length or depth,length"),
        (["depth", "depth"], "by is 'depth,depth': name each key once, such as length or depth,length"),
        (
            ["lenght"],
            "no task of the run has 'lenght' in its metadata; did you mean 'length'? "
            "there are cluster, depth, length, level",
        ),
        (["zz"], "no task of the run has 'zz' in its metadata; there are cluster, depth, length, level"),
    ):
        with pytest.raises(ConfigError) as refused:
            cells(made, by)
        assert str(refused.value) == said


def test_a_cells_attempts_and_values_by_hand() -> None:
    tasks = [TaskMean("s", "bo", "t1", 2 / 3, 3, 3, True), TaskMean("s", "bo", "t2", 0.4, 2, 1, False)]
    assert _scores(TaskMean("s", "bo", "t", 0.29, 100, 100, True)) == [1.0] * 29 + [0.0] * 71  # 0.29 * 100 < 29
    assert _scores(tasks[0]) == [1.0, 1.0, 0.0] and _scores(tasks[1]) == [0.4]
    tasks.append(TaskMean("s", "bo", "t3", 0.75, 1, 1, False))
    score = mean_interval({"t1": [1.0, 1.0, 0.0], "t2": [0.4], "t3": [0.75]}, 0.9, {"t1": "c", "t2": "c"})
    assert _cell("s", "bo", (1, "x"), tasks, None, {"t1": "c", "t2": "c"}, 0.9) == Cell(
        "s", "bo", (1, "x"), score, 6, 1
    )
    assert [_value(each) for each in (3, 0.5, "a", None, True, [1, "é"], {"k": "x" * 90})] == [
        3, 0.5, "a", "", "true", '[1, "é"]', '{"k": "' + "x" * 73,
    ]  # fmt: skip
    assert sorted(["b", 10, 9, "a", 2.5, ""], key=_rank) == [2.5, 9, 10, "", "a", "b"]
    gaps = Effective("s", "bo", 0.5, 8, 4, None, (2, 6), True)
    assert gaps.to_json() == {
        "benchmark": "s", "agent": "bo", "threshold": 0.5, "last": 8, "sure": 4, "failing": None, "gaps": [2, 6],
        "is_end": True, "lower_is_better": False,
    }  # fmt: skip
    assert gaps.sentence("length") == (
        "bo on s: the last length that reaches 0.5 is 8, where the measurement ends (but 2, 6 does not); surely reached "
        "up to 4, surely missed at none."
    )
    assert Effective("s", "bo", 0.25, 0, 0, 3, (), False).sentence("depth") == (
        "bo on s: the last depth that reaches 0.25 is 0; surely reached up to 0, surely not at 3."
    )


def test_a_runs_own_figures_are_those_of_benchmarks_made_again_under_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    own = "goal_misspecification"
    run = create(tmp_path, {}, "own", figures={own: own, "other": own, "arithmetic": "arithmetic", "gone": "gone.py"})
    told: list[str] = []
    found = own_figures(told.append, run, run)
    assert list(found) == [own] and callable(found[own]), "of the same name, and with figures"
    assert len(told) == 1 and told[0].startswith("gone has figures of its own, which cannot be computed here: ")
    assert "was not made in this data home" not in told[0]
    assert _specs(run) == [
        (own, own, True), ("other", own, True), ("arithmetic", "arithmetic", True), ("gone", "gone.py", True),
    ]  # fmt: skip
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "elsewhere"))
    assert [is_own for _, _, is_own in _specs(run)] == [False] * 4
    told.clear()
    assert list(own_figures(told.append, run)) == [own] and told == [
        "gone has figures of its own, which cannot be computed here: the run names 'gone.py' for them, and it was not made "
        "in this data home: a file may hold any program, so it is not loaded"
    ]
    for benchmark, facts in (
        ("b", {"depth": 1, "position": 2}),
        ("c", {"group": "g", "length": 4}),
        ("d", {"level": 1}),
    ):
        run.add_tasks(benchmark, [Task("t", "?", metadata=facts)])
        run.append(trace(benchmark, "t", 0.5, benchmark=benchmark))
    assert [(each.benchmark, each.by) for each in own_grids(run)] == [("b", ("position",)), ("c", ("group", "length"))]
    score = own_grids(run, 0.5)[1].cells["g", 4].score
    assert same(score, mean_interval({"t": [0.5]}, 0.5)) and score.low != mean_interval({"t": [0.5]}).low
