"""Attempts under the name of a score: failures count as 0 on every table, and the run's own reducer counts everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.boards.board_results import ItemScores
from firsthand.boards.read_results import run_results
from firsthand.commands import score as score_command
from firsthand.experiment.rescore import Rescored
from firsthand.runs.store import Run, create
from firsthand.stats.breakdown import cells
from firsthand.stats.intervals import mean_interval
from firsthand.stats.run_summary import summary
from firsthand.stats.task_scores import reduced_benchmarks, scored_attempts, task_scores
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace


def attempt(agent: str, task: str, value: float | None, epoch: int = 0, name: str = "own") -> Trace:
    failed = Failure("ModelError", "gone") if value is None else None
    scores = () if value is None or not name else (Score(name, value),)
    return Trace(f"{agent}{task}{epoch}", "b", task, {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=failed)


def stored(home: Path, attempts: list[Trace], reduce: str = "") -> Run:
    made = create(home, {"reduce": reduce} if reduce else {}, "r")
    made.add_tasks("b", [Task(f"t{n}", "?", metadata={"kind": "xy"[n % 2]}) for n in range(4)])
    for agent in dict.fromkeys(each.agent_name for each in attempts):
        made.add_agent(agent, {"name": agent})
    for each in attempts:
        made.append(each)
    return made


def judge(run: Run, *agents: str, value: float = 1.0) -> None:
    for trace, number in list(run.tried()):
        if trace.agent_name in agents and trace.error is None:
            run.add_score(trace, number, "later", "judge", Score("later", value))


def test_failed_attempts_count_as_0_on_the_board_of_a_score_given_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(
        tmp_path,
        [attempt("loud", f"t{n}", 1.0 if n == 0 else None) for n in range(4)]
        + [attempt("dead", "t0", None), attempt("rival", "t0", 1.0), attempt("rival", "t1", None)],
    )
    assert scored_attempts(run, "later") == [], "no attempt has such a score"
    judge(run, "loud")
    found = scored_attempts(run, "later")
    assert [(each.agent_name, each.value()) for each in found] == [
        ("loud", 1.0), ("loud", None), ("loud", None), ("loud", None), ("dead", None),
    ], "the rival was not scored"  # fmt: skip
    assert [[score.name for score in each.scores] for each in found] == [["later"], [], [], [], []]
    assert len(scored_attempts(run, "later", agent="dead")) == 0 == len(scored_attempts(run, "later", benchmark="c"))
    assert score_command.reported(run, Rescored("later", 1, 0, 0, 5), score_command.Config(run.id, ("later",)))[1] == 0
    told = capsys.readouterr().out
    assert "later, 4 tasks" in told and " 0.25 " in told and "rival" not in told
    assert next(each.score.value for each in summary(run, score="later") if each.agent == "loud") == 0.25


def test_the_runs_reducer_counts_in_summary_cells_boards_and_scores_given_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(tmp_path, [attempt("a", f"t{n}", float(e), e) for n in range(4) for e in range(2)], "max")
    assert reduced_benchmarks(run) == {"b"} and reduced_benchmarks(run, "mean") == set()
    assert task_scores(run, {"b"}) == {("b", "a"): {f"t{n}": (1.0,) for n in range(4)}}
    assert task_scores(run, set()) == {}
    (row,) = summary(run)
    assert row.score.value == 1.0
    assert [(each.score.value, each.score.n, each.attempts) for each in cells(run, ["kind"])] == [(1.0, 2, 4)] * 2
    (table,) = [each for each in run_results(run, print) if isinstance(each, ItemScores)]
    assert table.scores.tolist() == [[1.0] * 4]
    for trace, number in list(run.tried()):
        run.add_score(trace, number, "later", "judge", Score("later", 0.25 + trace.epoch / 2))
    score_command.reported(run, Rescored("later", 8, 0, 0, 0), score_command.Config(run.id, ("later",)))
    assert "0.75" in capsys.readouterr().out


def test_means_of_tasks_are_of_a_later_score_where_no_attempt_has_its_own(tmp_path: Path) -> None:
    run = stored(tmp_path, [attempt("a", "t0", 1.0, name=""), attempt("a", "t1", 1.0, name="")])
    judge(run, "a", value=0.5)
    assert [each.mean for each in run.task_means()] == [0.5, 0.5] and summary(run)[0].score.value == 0.5
    assert [each.score.value for each in cells(run, ["kind"])] == [0.5, 0.5]


@pytest.mark.parametrize("base", [0.0, 1e7, 1e9])
def test_large_scores_keep_the_variance_of_their_differences(base: float, tmp_path: Path) -> None:
    values = {f"t{n}": (base + n / 8, base + (n + 1) / 8) for n in range(4)}
    run = stored(tmp_path, [attempt("a", task, each[e], e) for task, each in values.items() for e in range(2)])
    judge(run, "a", value=base)
    (row,) = summary(run)
    expected = mean_interval(values)
    assert row.score.error == pytest.approx(expected.error) and row.score.low == pytest.approx(expected.low, rel=1e-15)
    assert row.spread.within == pytest.approx(1 / 128)
    for trace, number in list(run.tried()):
        run.add_score(trace, number, "large", "x", Score("large", base + trace.value()))
    assert summary(run, score="large")[0].score.error == pytest.approx(expected.error)
