"""Two agents task by task: only what both attempted is paired, epochs are averaged, and nothing is left out in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.runs.pairing import compare
from firsthand.runs.store import Run, create
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace


def add(run: Run, agent: str, task: str, value: float | None, *, epoch: int = 0, other: float = 0.0) -> None:
    scores = () if value is None else (Score("correct", value), Score("other", other))
    error = Failure("ModelError", "no answer") if value is None else None
    run.append(
        Trace(f"{agent}-{task}-{epoch}", "sums", task, {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=error)
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """ada against bob: worse, better, same, and one task that each has alone."""
    run = create(tmp_path, {}, "sums")
    for agent, values in {"ada": (1.0, 0.0, 1.0), "bob": (0.0, 0.25, 1.0)}.items():
        for number, value in enumerate(values):
            add(run, agent, f"t{number}", value, other=1 - value)
    add(run, "ada", "only-ada", 1.0)
    add(run, "bob", "only-bob", 1.0)
    return run


def test_two_agents_of_a_run_are_paired_task_by_task(run: Run) -> None:
    found = compare(run, run, agent_a="ada", agent_b="bob")
    assert (found.a, found.b) == (f"{run.id}/ada", f"{run.id}/bob")
    assert found.values == ([1.0, 0.0, 1.0], [0.0, 0.25, 1.0])
    assert [pair.change for pair in found.pairs] == ["worse", "better", "same"]
    assert [pair.task_id for pair in found.tasks("worse")] == ["t0"]
    assert (found.only_a, found.only_b) == ((("sums", "only-ada"),), (("sums", "only-bob"),))
    assert found.pairs[0].a.trace_ids == ("ada-t0-0",)


def test_a_named_score_is_compared_instead_of_the_first(run: Run) -> None:
    assert compare(run, run, agent_a="ada", agent_b="bob", score="other").values == ([0.0, 1.0, 0.0], [1.0, 0.75, 0.0])


def test_epochs_are_averaged_within_their_task(run: Run) -> None:
    add(run, "bob", "t1", 0.75, epoch=1)
    pair = compare(run, run, agent_a="ada", agent_b="bob").pairs[1]
    assert (pair.b.values, pair.b.value) == ((0.25, 0.75), 0.5)


def test_failures_are_counted_and_valued_only_if_asked(run: Run) -> None:
    add(run, "bob", "t2", None, epoch=1)
    add(run, "bob", "t0", None)  # the latest try counts: t0 has no score any more
    left_out = compare(run, run, agent_a="ada", agent_b="bob")
    assert left_out.values == ([0.0, 1.0], [0.25, 1.0])
    assert left_out.num_unscored == (0, 1)
    assert ("sums", "t0") in left_out.only_a
    valued = compare(run, run, agent_a="ada", agent_b="bob", error_value=0.0)
    assert valued.values == ([1.0, 0.0, 1.0], [0.0, 0.25, 0.5])
    assert valued.num_unscored == (0, 2)


def test_one_agent_is_compared_over_two_runs_without_being_named(tmp_path: Path) -> None:
    first, second = create(tmp_path, {}, "sums"), create(tmp_path, {}, "sums")
    add(first, "ada", "t0", 0.0)
    add(second, "ada", "t0", 1.0)
    add(second, "bob", "t0", 0.5)
    assert compare(first, second).values == ([0.0], [1.0])
    with pytest.raises(ConfigError, match=r"has 2 agents \(ada, bob\)"):
        compare(second, first)
    with pytest.raises(UnknownName, match="did you mean 'ada'"):
        compare(first, second, agent_a="adda")


def test_a_task_that_is_not_the_same_in_both_runs_is_not_paired(tmp_path: Path) -> None:
    first, second = create(tmp_path, {}, "sums"), create(tmp_path, {}, "sums")
    for run, prompt in [(first, "2 + 2"), (second, "2 + 3")]:
        run.add_tasks("sums", [Task("t0", prompt), Task("t1", "1 + 1")])
        add(run, "ada", "t0", 1.0)
        add(run, "ada", "t1", 1.0)
    found = compare(first, second)
    assert [pair.task_id for pair in found.pairs] == ["t1"]
    assert found.changed == (("sums", "t0"),)
