"""Two agents task by task: only what both attempted is paired, epochs are averaged, and nothing is left out in silence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, UnknownName
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.execute import execute
from firsthand.runs.flaky import flaky
from firsthand.runs.pairing import compare
from firsthand.runs.run_names import find_run
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


def test_disagreement_is_the_chance_that_two_attempts_differ(run: Run) -> None:
    tried = {("bob", "even"): (1.0, 1.0, 0.0, 0.0), ("bob", "odd"): (1.0, 1.0, 1.0, 0.0), ("ada", "even"): (1.0,),
             ("ada", "odd"): (1.0,)}  # fmt: skip
    for (agent, task), values in tried.items():
        for epoch, value in enumerate(values):
            add(run, agent, task, value, epoch=epoch)
    found = flaky(compare(run, run, agent_a="ada", agent_b="bob"))
    assert [(each.task_id, each.where, each.disagreement) for each in found] == [
        ("even", "b", 1 - 4 / 12),
        ("odd", "b", 0.5),
    ]


@pytest.mark.parametrize(("seed", "repeated"), [(7, True), (8, False)])
def test_only_the_same_agent_under_the_same_seed_is_repeated(tmp_path: Path, seed: int, repeated: bool) -> None:
    worth = {"value": 1.0}

    def graded(task: Task, trace: Trace) -> Score:
        return Score("correct", worth["value"])

    benchmark = Benchmark("sums", lambda seed: [Task("t", "?"), Task("u", "?")], (graded,))
    agent = Agent("ada", Scripted(lambda messages, sampling, index: "x"), direct)
    runs = []
    for number, (own, worth["value"], epochs) in enumerate(((7, 1.0, 2), (seed, 0.0, 1))):
        run = create(tmp_path, {"seed": own}, f"r{number}")
        tried = [Place(agent, benchmark, task, epoch) for task in benchmark.tasks(0) for epoch in range(epochs)]
        asyncio.run(execute(run, tried, seed=own))
        runs.append(run)
    found = compare(*runs)
    assert found.repeated is repeated
    assert [each.where for each in flaky(found)] == ["between"] * 2 * repeated
    worth["value"] = 1.0
    again = create(tmp_path, {"seed": 7}, "again")
    asyncio.run(execute(again, [Place(agent, benchmark, task, 0) for task in benchmark.tasks(0)], seed=7))
    assert flaky(compare(runs[0], again)) == [], "an epoch that only one run has is no disagreement"


def test_a_run_is_named_by_its_last_letters_whole(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "sums")
    tail = run.id.rpartition("-")[2]
    assert find_run(tail, tmp_path) == find_run(run.id[:12], tmp_path) == run.path
    for part in (tail[1:], f"s-{tail}", tail[:-1]):
        with pytest.raises(UnknownName):
            find_run(part, tmp_path)


def test_missing_is_what_the_other_side_never_tried(run: Run) -> None:
    add(run, "ada", "failed", None)
    add(run, "ada", "both", 1.0)
    add(run, "bob", "both", None)
    found = compare(run, run, agent_a="ada", agent_b="bob")
    assert found.missing == (("sums", "failed"), ("sums", "only-ada"))
    assert found.only_a == (("sums", "both"), ("sums", "only-ada"))


def test_an_attempt_without_a_score_counts_as_nothing_in_its_tasks_mean(run: Run) -> None:
    add(run, "ada", "half", 1.0)
    add(run, "ada", "half", None, epoch=1)
    (mean,) = [each for each in run.task_means() if (each.agent, each.task) == ("ada", "half")]
    assert (mean.mean, mean.attempts, mean.scored) == (0.5, 2, 1)
    (totals,) = [each for each in run.totals() if each.agent == "ada"]
    assert totals.squares_within == 1.0 - 2 * 0.5 * 0.5


def test_the_other_runs_agent_of_that_name_is_meant_and_the_first_runs_clusters_count(tmp_path: Path) -> None:
    one, two = create(tmp_path, {}, "one"), create(tmp_path, {}, "two")
    for run, cluster, agents in ((one, "x", ("ada",)), (two, "y", ("bob", "ada"))):
        run.add_tasks("sums", [Task("t", "?", metadata={"cluster": cluster})])
        for agent in agents:
            add(run, agent, "t", None, epoch=1)
            add(run, agent, "t", 0.25 if agent == "bob" else 0.5, epoch=2, other=0.75)
            add(run, agent, "u", 1.0, other=float("nan"))
    found = compare(one, two)
    assert (found.b, found.clusters, found.changed) == (f"{two.id}/ada", {"sums": {"t": "x"}}, ())
    assert [(pair.task_id, pair.a.values, pair.b.values, pair.a.epochs) for pair in found.pairs] == [
        ("t", (0.5,), (0.5,), (2,)), ("u", (1.0,), (1.0,), (0,)),
    ]  # fmt: skip
    assert found.num_unscored == (1, 1) and found.unscored == ({"sums": 1}, {"sums": 1})
    assert not found.repeated, "neither run says what its agent is"
    named = compare(one, two, score="other", benchmark="sums")
    assert [(pair.task_id, pair.a.values, pair.a.trace_ids) for pair in named.pairs] == [
        ("t", (0.75,), ("ada-t-1", "ada-t-2")),
    ]  # fmt: skip
    valued = compare(one, two, score="other", error_value=0.125)
    assert [(pair.task_id, pair.a.values, pair.a.epochs) for pair in valued.pairs] == [
        ("t", (0.125, 0.75), (1, 2)), ("u", (0.125,), (0,)),
    ]  # fmt: skip
    assert (
        compare(one, two, benchmark="none").pairs == () and compare(one, two, agent_b="bob").pairs[0].change == "worse"
    )
    with pytest.raises(ConfigError, match=r"has 0 agents \(none yet\): say which to compare"):
        compare(create(tmp_path, {}, "empty"), one)
