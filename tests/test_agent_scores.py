"""An agent has one score on a benchmark of a run: reducer, figures and attempts without a verdict count alike everywhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from firsthand.boards.board_results import ItemScores
from firsthand.boards.read_results import run_results
from firsthand.commands import compare as compare_command
from firsthand.commands import runs as runs_command
from firsthand.errors import ConfigError
from firsthand.perturbations.helm_figures import CONFIDENCE, helm_figures
from firsthand.runs.index import Index
from firsthand.runs.pairing import compare
from firsthand.runs.score_totals import ScoreMean
from firsthand.runs.store import Run, create, list_runs
from firsthand.show.board import attempts_of, leaderboard, reducers_of
from firsthand.stats.agent_scores import agent_scores, task_values
from firsthand.stats.breakdown import cells
from firsthand.stats.figure_stats import figure_value
from firsthand.stats.figures import figure_detail
from firsthand.stats.run_summary import summary
from firsthand.studio import open_runs
from firsthand.studio.comparison_slices import cost_plots
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.views import run_list_views
from firsthand.studio.views.comparison_views import grid_rows, sides_of
from firsthand.studio.views.curve_views import KeptCurves
from firsthand.task import Task
from firsthand.trace import Call, Failure, Score, Trace, Usage

CALL = Call(":0", "generate", None, 0.0, 1.0, "r", Usage(5, 1, 2, 0.25))
NO_VERDICT = Score("ok", 0.0, failure="no verdict", unjudged=True)


def attempt(agent: str, task: str, score: Score | None, epoch: int = 0) -> Trace:
    failed = Failure("ModelError", "gone") if score is None else None
    scores = () if score is None else (score,)
    return Trace(
        f"{agent}{task}{epoch}",
        "b",
        task,
        {"name": agent},
        epoch,
        0,
        "",
        1.0,
        scores=scores,
        error=failed,
        calls=(CALL,),
    )


def ok(value: float) -> Score:
    return Score("ok", value)


def stored(home: Path, attempts: list[Trace], reduce: str = "", cluster: bool = False) -> Run:
    made = create(home, {"reduce": reduce} if reduce else {}, "r")
    metadata = {"kind": "x"} | ({"cluster": "c"} if cluster else {})
    made.add_tasks("b", [Task(f"t{n}", "?", metadata=metadata) for n in range(4)])
    for agent in dict.fromkeys(each.agent_name for each in attempts):
        made.add_agent(agent, {"name": agent})
    for each in attempts:
        made.append(each)
    return made


def scores_everywhere(run: Run, home: Path) -> list[dict[str, float]]:
    """Agent -> its score on the board, in the summary, in the list of runs, on the plot, and of the grid and the boards."""
    (board,) = leaderboard(attempts_of(run), reducers=reducers_of(run))
    ((_, points, _),) = cost_plots([(run, agent, agent) for agent in run.agents()], ["b"])
    (info,) = list_runs(home, scored=agent_scores)
    values = {agent: [*each.values()] for (_, agent), each in task_values(run).items()}
    return [
        {row.agent: row.score.value for row in board.rows},
        {row.agent: row.score.value for row in summary(run)},
        {each.agent: each.mean for each in agent_scores(run)},
        {each.agent: each.mean for each in info.scores},
        {point.name: point.score for point in points},
        {agent: sum(each) / len(each) for agent, each in values.items()},
    ]  # fmt: skip


def test_the_runs_reducer_counts_in_lists_plots_grids_and_boards(tmp_path: Path) -> None:
    lucky = [attempt("lucky", f"t{n}", ok(float(e == 0)), e) for n in range(2) for e in range(3)]
    steady = [attempt("steady", f"t{n}", ok(0.5), e) for n in range(2) for e in range(3)]
    run = stored(tmp_path, lucky + steady, "max")
    assert scores_everywhere(run, tmp_path) == [{"lucky": 1.0, "steady": 0.5}] * 6
    assert [row.values for row in grid_rows(sides_of([run]))] == [(1.0, 0.5)] * 2
    ((_, points, _),) = cost_plots([(run, agent, agent) for agent in run.agents()], ["b"])
    assert {point.name for point in points if point.on_frontier} == {"lucky"}
    assert [(each.agent, each.tasks) for each in agent_scores(run)] == [("lucky", 2), ("steady", 2)]


def test_an_attempt_without_a_verdict_is_left_out_everywhere_and_an_error_counts_as_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    unread = [attempt("unread", f"t{n}", ok(1.0) if n < 2 else NO_VERDICT) for n in range(4)]
    wrong = [attempt("wrong", f"t{n}", (ok(1.0), ok(1.0), ok(1.0), None)[n]) for n in range(4)]
    run = stored(tmp_path, unread + wrong)
    assert scores_everywhere(run, tmp_path) == [{"unread": 1.0, "wrong": 0.75}] * 6
    assert [(row.score.n, row.attempts, row.errors) for row in summary(run)] == [(2, 4, 2), (4, 4, 1)]
    assert [(each.score.value, each.score.n, each.errors) for each in cells(run, ["kind"])] == [
        (1.0, 2, 2),
        (0.75, 4, 1),
    ]
    assert {row.task: row.values for row in grid_rows(sides_of([run]))}["t3"] == (None, 0.0)
    found = compare(run, run, agent_a="wrong", agent_b="unread", error_value=0.0)
    assert [(pair.task_id, pair.change) for pair in found.pairs] == [("t0", "same"), ("t1", "same")]
    assert found.only_a == (("b", "t2"), ("b", "t3")) and found.unscored == ({"b": 1}, {"b": 2})
    assert found.num_unjudged == (0, 2)
    assert compare_command.main(compare_command.Config((run.id, run.id), agent_a="wrong", agent_b="unread")) == 0
    told = capsys.readouterr().out
    assert "1 attempt of a without a score, counted as 0\n" in told
    assert "2 attempts of b without a score, counted as 0, but for 2 without a verdict: left out" in told
    tables = [each for each in run_results(run, print) if isinstance(each, ItemScores)]
    assert [table.scores.tolist()[0][:2] for table in tables] == [[1.0, 1.0]] * 2


def test_of_several_attempts_those_with_a_verdict_count(tmp_path: Path) -> None:
    made = [attempt("a", "t0", ok(1.0), 0), attempt("a", "t0", NO_VERDICT, 1), attempt("a", "t0", ok(0.0), 2)]
    run = stored(tmp_path, [*made, attempt("a", "t1", ok(1.0))])
    assert scores_everywhere(run, tmp_path) == [{"a": 0.75}] * 6
    (total,) = run.totals()
    assert (total.tasks, total.attempts, total.scored, total.unjudged, total.counted) == (2, 4, 3, 1, 3)
    assert (total.inverse_epochs, total.squares_within) == (1.5, 0.5)
    first, second = run.task_means()
    assert (first.mean, first.attempts, first.counted, first.binary) == (0.5, 3, 2, True) and second.counted == 1
    assert summary(run)[0].spread.attempts == 3
    (cell,) = cells(run, ["kind"])
    assert (cell.score.value, cell.score.n, cell.attempts) == (0.75, 2, 4)


def test_a_reducer_takes_the_attempts_with_a_verdict_and_leaves_out_a_task_with_too_few(tmp_path: Path) -> None:
    scores = {"t0": (ok(1.0), ok(0.0), NO_VERDICT), "t1": (ok(1.0), NO_VERDICT, NO_VERDICT)}
    run = stored(
        tmp_path,
        [attempt("a", task, each, e) for task, made in scores.items() for e, each in enumerate(made)],
        "at_least_2",
    )
    assert scores_everywhere(run, tmp_path) == [{"a": 0.0}] * 6
    assert task_values(run) == {("b", "a"): {"t0": 0.0}}
    none = stored(tmp_path / "few", [attempt("a", "t0", ok(1.0)), attempt("a", "t1", NO_VERDICT)], "at_least_2")
    assert agent_scores(none) == (), "so far there are too few attempts"
    unread = [attempt("a", "t0", each, epoch) for epoch, each in enumerate((ok(1.0), NO_VERDICT))]
    with pytest.raises(ConfigError, match="1 scored attempts"):
        task_values(stored(tmp_path / "unread", unread, "at_least_2"))


def test_a_scorer_or_an_attempt_that_failed_counts_as_0_everywhere(tmp_path: Path) -> None:
    broken = Score("ok", 0.0, failure="KeyError: x")
    run = stored(tmp_path, [attempt("a", f"t{n}", (ok(1.0), ok(1.0), broken)[n]) for n in range(3)])
    run.append(replace(attempt("a", "t3", None), scores=(NO_VERDICT,)))
    assert scores_everywhere(run, tmp_path) == [{"a": 0.5}] * 6
    unread = attempt("a", "t4", NO_VERDICT)
    assert [each.is_unjudged(name) for each in (unread, *run.traces()) for name in ("ok", None)] == [True] * 2 + [
        False
    ] * 8
    assert not unread.is_unjudged("other")


def test_an_agent_without_any_verdict_has_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stored(
        tmp_path, [attempt("a", f"t{n}", NO_VERDICT) for n in range(2)] + [attempt("c", "t0", ok(1.0))], cluster=True
    )
    a, c = summary(run)
    assert (a.score.n, a.errors, a.attempts, c.score.value) == (0, 2, 2, 1.0) and a.score.value != a.score.value
    assert [each.agent for each in agent_scores(run)] == ["c"] == [each.agent for each in run.info.scores]
    told: list[str] = []
    assert [each.models for each in run_results(run, told.append) if isinstance(each, ItemScores)] == [("c",)]
    assert told == ["a has no ok on b: it has no value for the tasks that were answered."]


def test_a_verdict_that_a_later_judge_did_not_give_is_left_out_too(tmp_path: Path) -> None:
    bare = [replace(attempt("a", f"t{n}", ok(1.0)), scores=()) for n in range(3)]
    run = stored(tmp_path, bare)
    for number, (trace, tried) in enumerate(list(run.tried())):
        run.add_score(trace, tried, "late", "judge", NO_VERDICT if number != 1 else Score("late", 0.5))
    assert [each.mean for each in agent_scores(run)] == [0.5]
    assert (summary(run)[0].score.n, summary(run, score="late")[0].score.value) == (1, 0.5)
    last = next(trace for trace in run.traces() if trace.task_id == "t2")
    run.add_score(last, 1, "late", "judge", Score("late", 0.0))
    assert [each.mean for each in agent_scores(run)] == [0.25], "the last score of a name counts"
    run.add_score(last, 1, "late", "judge", Score("late", 0.0, failure="KeyError: x"))
    assert [each.mean for each in agent_scores(run)] == [0.25], "a scorer that failed counts as 0"


def test_a_figure_of_the_corpus_is_the_score_in_lists_and_on_plots(tmp_path: Path) -> None:
    parts = ((1, 0, 0), (0, 3, 3))
    shares = [Score("f1", float(each == (1, 0, 0)), figure_detail("micro_f1", each)) for each in parts]
    run = stored(tmp_path, [attempt("a", f"t{n}", each) for n, each in enumerate(shares)])
    assert scores_everywhere(run, tmp_path)[:5] == [{"a": 0.25}] * 5, "their mean is 0.5"


def test_the_list_of_runs_keeps_a_score_that_is_no_mean_and_asks_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stored(tmp_path, [attempt("a", "t0", ok(float(e)), e) for e in range(2)], "max") as run:
        run.finish("done")
        assert run.info.scores == (ScoreMean("b", "a", None, 1),)
    asked: list[str] = []

    def scored(run: Run) -> tuple[ScoreMean, ...]:
        asked.append(run.id)
        return agent_scores(run)

    def broken(run: Run) -> tuple[ScoreMean, ...]:
        raise ValueError("a benchmark's own code")

    assert [info.lacks_scores for info in list_runs(tmp_path)] == [True], "without `scored` it is not known"
    for _ in range(2):
        (info,) = list_runs(tmp_path, scored=scored)
        assert info.scores == (ScoreMean("b", "a", 1.0, 1),) and asked == [run.id]
    Index(tmp_path / "runs")._remove()
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    assert runs_command.main(runs_command.Config()) == 0 and "1.00" in capsys.readouterr().out
    Index(tmp_path / "runs")._remove()
    told: list[str] = []
    for times in (1, 2):
        assert [info.scores for info in list_runs(tmp_path, told.append, scored=broken)] == [()]
        (*_, said) = told
        assert (
            len(told) == times
            and f"run {run.id} cannot be computed" in said
            and "ValueError: a benchmark's own" in said
        )
    assert [info.scores for info in list_runs(tmp_path, scored=agent_scores)] == [(ScoreMean("b", "a", 1.0, 1),)]


def test_the_studio_tells_of_runs_whose_scores_cannot_be_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: Run) -> tuple[ScoreMean, ...]:
        raise ValueError("<b>" + "x" * 2000)

    ids = []
    for _ in range(12):
        with stored(tmp_path, [attempt("a", "t0", ok(float(e)), e) for e in range(2)], "max") as run:
            run.finish("done")
            ids.append(run.id)
    store = SqliteStore(tmp_path)
    app = Starlette(routes=run_list_views.routes(OpenRuns(tmp_path), store, KeptCurves()))
    app.state.pages = ()
    client = TestClient(app)
    with monkeypatch.context() as patch:
        patch.setattr(open_runs, "agent_scores", broken)
        for headers in ({}, {"hx-request": "true"}):
            text = client.get("/", headers=headers).text
            told = re.findall('<p class="problem"[^>]*>([^<]*)</p>', text)
            assert len(told) == 11 and told[-1] == "and 2 more problems"
            assert all(
                each.startswith("the scores of run ") and "ValueError: &lt;b&gt;xx" in each and len(each) < 1100
                for each in told[:-1]
            )
            assert all(f"/runs/{id}" in text for id in ids), "they are listed"
    assert 'class="problem"' not in client.get("/").text
    store.close()


def test_a_run_that_goes_on_is_listed_with_its_score_so_far_which_is_not_kept(tmp_path: Path) -> None:
    run = stored(tmp_path, [attempt("a", "t0", ok(float(e)), e) for e in range(2)], "max")
    with run, run.working():
        assert run.info.status == "running"
        assert [info.scores for info in list_runs(tmp_path, scored=agent_scores)] == [(ScoreMean("b", "a", 1.0, 1),)]
        assert [info.lacks_scores for info in list_runs(tmp_path)] == [True]


def test_a_grid_of_a_run_with_too_few_attempts_for_its_reducer_so_far_has_no_scores_of_it(tmp_path: Path) -> None:
    early = stored(tmp_path / "early", [attempt("a", "t0", ok(1.0))], "pass_at_2")
    other = stored(tmp_path / "other", [attempt("a", "t0", ok(0.5))])
    assert [row.values for row in grid_rows(sides_of([early, other]))] == [(None, 0.5)]


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("cluster", [False, True])
def test_a_table_with_attempts_without_a_verdict_is_the_one_without_them(
    tmp_path: Path, tasks: int, cluster: bool
) -> None:
    made = [attempt("a", f"t{n}", ok(float((n + e) % 3 == 0)), e) for n in range(tasks) for e in range(2)]
    unread = [attempt("a", f"t{n}", NO_VERDICT, 2) for n in range(4)]
    (less,) = summary(stored(tmp_path / "less", made, cluster=cluster))
    (more,) = summary(stored(tmp_path / "more", made + unread, cluster=cluster))
    assert repr((more.score, more.spread)) == repr((less.score, less.spread)) and more.errors == 4


def test_helm_figures_leave_out_attempts_without_a_verdict() -> None:
    def made(task: str, score: Score) -> Trace:
        each = attempt("a", task, score)
        return replace(each, scores=(*each.scores, Score(CONFIDENCE, 1.0)))

    traces = [made("t0", NO_VERDICT), made("t0~typos", ok(0.0)), made("t1", ok(1.0)), made("t1~typos", NO_VERDICT)]
    traces += [made("t2", ok(1.0)), made("t2~typos", ok(0.0))]
    found = {each.name: figure_value(each) for each in helm_figures(traces, ("typos",))}
    assert (found["ok"], found["robustness"], found["under typos"]) == (1.0, 0.5, 0.5)
    assert found["Brier score"] == 0.0 and found["seconds"] == 1.0
    unread = {each.name for each in helm_figures([made("t0", NO_VERDICT)], ("typos",))}
    assert "Brier score" not in unread and "seconds" in unread
