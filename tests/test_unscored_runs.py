"""Runs that have no scores, such as an arena's, have none in any table; failed ones count as 0 as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firsthand.boards.read_results import read_results
from firsthand.cli import main
from firsthand.runs.pairing import compare, scores_of
from firsthand.runs.store import Run, create
from firsthand.stats.agent_scores import agent_scores, task_values
from firsthand.stats.run_summary import summary
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

GONE = Failure("ModelError", "gone")
Attempts = tuple[tuple[Score, ...] | None, ...]
"""The scores of an agent's attempts at the tasks; None of one that failed."""


def made(home: Path, name: str = "r", *, benchmark: str = "b", more: Run | None = None, **agents: Attempts) -> Run:
    run = more or create(home, {}, name)
    for agent, attempts in agents.items():
        run.add_tasks(benchmark, [Task(f"t{n}", "?") for n in range(len(attempts))])
        run.add_agent(agent, {"name": agent})
        for n, scores in enumerate(attempts):
            run.append(Trace(f"{name}{benchmark}{agent}{n}", benchmark, f"t{n}", {"name": agent}, 0, 0, "", 1.0,
                             scores=scores or (), error=GONE if scores is None else None))  # fmt: skip
    return run


NONE: tuple[Score, ...] = ()
ONE = (Score("s", 1.0),)
BROKEN = (Score("s", 0.0, failure="KeyError: x"),)


def test_a_run_without_scores_has_none_in_any_table(tmp_path: Path) -> None:
    run = made(tmp_path, a=(NONE, NONE, NONE), c=(NONE, NONE, None))
    assert [(line.score.n, line.attempts, line.errors) for line in summary(run)] == [(0, 3, 0), (0, 3, 1)]
    assert agent_scores(run) == () and task_values(run) == {("b", "a"): {}, ("b", "c"): {}}
    assert scores_of([run], error_value=0.0) == {}
    assert compare(run, run, agent_a="a", agent_b="c", error_value=0.0).pairs == ()
    found = read_results([str(run.path)], tmp_path)
    assert not found.models and "Nothing was scored on b." in found.remarks


@pytest.mark.parametrize(
    ("attempts", "value"), [((None, None), 0.0), ((BROKEN, NONE), 0.0), ((None, ONE), 0.5), ((NONE, ONE), 0.5)]
)
def test_attempts_or_scorers_that_failed_count_as_0(tmp_path: Path, attempts: Attempts, value: float) -> None:
    run = made(tmp_path, a=attempts)
    [line] = summary(run)
    assert (line.score.value, line.score.n) == (value, 2)
    values = scores_of([run], error_value=0.0)["b"]["a"]
    if BROKEN not in attempts:
        assert sum(sum(each) for each in values.values()) / 2 == value


def test_an_agent_without_scores_beside_one_that_has_some_counts_as_0(tmp_path: Path) -> None:
    run = made(tmp_path, a=(NONE, NONE), c=(ONE, ONE))
    assert [line.score.value for line in summary(run)] == [0.0, 1.0]
    assert scores_of([run], error_value=0.0)["b"] == {
        "a": {"t0": (0.0,), "t1": (0.0,)},
        "c": {"t0": (1.0,), "t1": (1.0,)},
    }


def test_scores_given_later_count_on_their_benchmark_alone(tmp_path: Path) -> None:
    run = made(tmp_path, a=(NONE, NONE))
    made(tmp_path, benchmark="other", more=run, a=(NONE, NONE))
    run.add_score(next(iter(run.traces(benchmark="b"))), 1, "later", "by hand", Score("later", 1.0))
    assert [(line.benchmark, line.score.n) for line in summary(run)] == [("b", 2), ("other", 0)]
    assert summary(run)[0].score.value == 0.5


def test_commands_say_that_nothing_was_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    with made(tmp_path, a=(NONE, NONE), c=(NONE, NONE)) as run:
        id = run.id
    assert main(["summary", id]) == 0
    assert "No attempt here counts: nothing was scored" in capsys.readouterr().out
    assert main(["summary", id, "--json"]) == 0
    assert [each["errors"] for each in json.loads(capsys.readouterr().out)] == [0, 0]
    for command, told in (("compare", "nothing was scored in these runs"), ("power", "has no scores to plan from")):
        assert main([command, id]) == 2 and told in capsys.readouterr().err


def test_a_run_with_scores_keeps_them_beside_one_without(tmp_path: Path) -> None:
    bare, scored = made(tmp_path, "bare", a=(NONE, NONE)), made(tmp_path, "scored", a=(ONE, ONE))
    found = compare(bare, scored, error_value=0.0)
    assert (found.pairs, found.only_a, found.only_b) == ((), (), (("b", "t0"), ("b", "t1")))
