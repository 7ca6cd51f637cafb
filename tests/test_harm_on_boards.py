"""Boards, comparisons and tables agree: an attempt without a score of harm counts nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.boards.board_results import ItemScores
from firsthand.boards.read_results import run_results
from firsthand.commands import compare as compare_command
from firsthand.runs.pairing import _Attempt, _tried, compare, scores_of
from firsthand.runs.store import Run, create
from firsthand.show.board import leaderboard
from firsthand.show.live_totals import LiveTotals
from firsthand.stats.agent_scores import agent_scores, task_values
from firsthand.stats.breakdown import cells
from firsthand.stats.run_summary import summary
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

HARM = {"is_harm": True}


def attempt(agent: str, task: int, value: float | None, detail: dict[str, object] = HARM, epoch: int = 0) -> Trace:
    failed = Failure("ModelError", "gone") if value is None else None
    scores = () if value is None else (Score("obeyed", value, detail),)
    return Trace(
        f"{agent}{task}{epoch}", "b", f"t{task}", {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=failed
    )


def stored(home: Path, attempts: list[Trace], name: str = "r") -> Run:
    made = create(home, {}, name)
    made.add_tasks("b", [Task(f"t{n}", "?", metadata={"kind": "x"}) for n in range(4)])
    for agent in dict.fromkeys(each.agent_name for each in attempts):
        made.add_agent(agent, {"name": agent})
    for each in attempts:
        made.append(each)
    return made


def mixed(detail: dict[str, object] = HARM) -> list[Trace]:
    """One agent that obeys and then fails, one that resists, one that fails throughout."""
    return [
        *(attempt("flaky", n, 1.0 if n == 0 else None, detail) for n in range(4)),
        *(attempt("firm", n, 0.0, detail) for n in range(4)),
        *(attempt("dead", n, None) for n in range(4)),
    ]


def test_each_table_of_a_run_leaves_failed_attempts_out_of_a_score_of_harm(tmp_path: Path) -> None:
    run = stored(tmp_path, mixed())
    assert {each.agent: (each.mean, each.tasks) for each in agent_scores(run)} == {"flaky": (1.0, 1), "firm": (0.0, 4)}
    assert task_values(run)["b", "flaky"] == {"t0": 1.0} and task_values(run)["b", "dead"] == {}
    lines = {line.agent: (line.score.n, line.errors, line.left_out) for line in summary(run)}
    assert lines == {"flaky": (1, 3, 3), "firm": (4, 0, 0), "dead": (0, 4, 4)}
    assert {cell.agent: (cell.score.n, cell.errors) for cell in cells(run, ["kind"])} == {
        "flaky": (1, 3), "firm": (4, 0), "dead": (0, 4),
    }  # fmt: skip
    told: list[str] = []
    found = {each.models[0]: each for each in run_results(run, told.append) if isinstance(each, ItemScores)}
    assert {name: float(each.scores[each.scores == each.scores].mean()) for name, each in found.items()} == {
        "flaky": 1.0,
        "firm": 0.0,
    }
    assert len(told) == 1 and told[0].startswith("dead has no obeyed on b")


def test_other_scores_count_failed_attempts_as_before(tmp_path: Path) -> None:
    run = stored(tmp_path, mixed({}))
    assert {each.agent: each.mean for each in agent_scores(run)} == {"flaky": 0.25, "firm": 0.0, "dead": 0.0}
    assert {line.agent: (line.score.n, line.left_out) for line in summary(run)} == dict.fromkeys(
        ("flaky", "firm", "dead"), (4, 0)
    )
    assert scores_of([run], error_value=0.0)["b"]["dead"] == {f"t{n}": (0.0,) for n in range(4)}


def test_comparisons_leave_failed_attempts_out_of_a_score_of_harm(tmp_path: Path) -> None:
    run = stored(tmp_path, mixed())
    for score in (None, "obeyed"):
        found = compare(run, run, agent_a="firm", agent_b="flaky", score=score, error_value=0.0, unmade_value=0.0)
        assert ([pair.task_id for pair in found.pairs], found.values, found.harms) == (["t0"], ([0.0], [1.0]), {"b"})
        assert scores_of([run], score=score, error_value=0.0)["b"] == {
            "flaky": {"t0": (1.0,)}, "firm": {f"t{n}": (0.0,) for n in range(4)},
        }  # fmt: skip
    assert not compare(run, run, agent_a="firm", agent_b="dead", error_value=0.0).pairs, (
        "harm on one side tells of both"
    )
    assert not compare(run, run, agent_a="dead", agent_b="firm", score="obeyed", error_value=0.0).pairs


def test_a_run_in_which_everything_fails_resisted_nothing_beside_one_that_ran(tmp_path: Path) -> None:
    ran = stored(tmp_path, [attempt("one", n, 0.0) for n in range(4)])
    dead = stored(tmp_path, [attempt("one", n, None) for n in range(4)], "dead")
    assert list(agent_scores(dead)) == []
    assert list(scores_of([ran, dead], score="obeyed", error_value=0.0)["b"]) == [f"{ran.id}/one"]
    assert not compare(ran, dead, score="obeyed", error_value=0.0).pairs


@pytest.mark.parametrize(("detail", "said"), [(HARM, "left out"), ({}, "counted as 0")])
def test_a_comparison_tells_what_failed_attempts_count_as(
    detail: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    run = stored(tmp_path, mixed(detail))
    compare_command.main(compare_command.Config((run.id, run.id), agent_a="firm", agent_b="flaky", errors="zero"))
    assert f"3 attempts of b without a score, {said}\n" in capsys.readouterr().out


def test_a_scorer_that_failed_is_no_attack_that_was_resisted() -> None:
    broken = Trace(
        "x", "b", "t1", {"name": "flaky"}, 0, 0, "", 1.0, scores=(Score("obeyed", 0.0, failure="ScorerError: gone"),)
    )
    unread = Trace(
        "y", "b", "t2", {"name": "flaky"}, 0, 0, "", 1.0,
        scores=(Score("obeyed", 0.0, HARM, failure="never read", unjudged=True),),
    )  # fmt: skip
    (board,) = leaderboard([attempt("flaky", 0, 1.0), broken, unread])
    (row,) = board.rows
    assert (row.score.value, row.score.n, row.left_out) == (1.0, 1, 1)


@pytest.mark.parametrize(("detail", "shown"), [(HARM, "flaky 1.00"), ({}, "flaky 0.25")])
def test_the_line_of_a_run_that_goes_on_counts_like_its_table(detail: dict[str, object], shown: str) -> None:
    totals, line = LiveTotals(clock=iter(range(99)).__next__), ""
    for n in (1, 2, 3, 0):
        line = totals.add(attempt("flaky", n, 1.0 if n == 0 else None, detail))
    assert line.startswith(shown)


def test_a_score_of_harm_behind_another_leaves_the_first_as_it_is() -> None:
    totals = LiveTotals(clock=iter(range(99)).__next__)
    done = attempt("flaky", 0, 1.0, {})
    totals.add(replace(done, scores=(*done.scores, Score("toxic", 1.0, HARM))))
    assert totals.add(attempt("flaky", 1, None, {})).startswith("flaky 0.50")


def test_attempts_that_were_not_made_resisted_nothing() -> None:
    tries = {("b", "t"): [_Attempt(0, "p", "i", 1.0, is_harm=True)]}
    assert _tried(tries, {"b"}, 0.0, "mean", 3, 0.0)["b", "t"].values == (1.0,)
    assert _tried(tries, (), 0.0, "mean", 3, 0.0)["b", "t"].values == (1.0, 0.0, 0.0)
