"""A scoring of a small run, counted by hand: names, kept and failed scores, tries, what is stored when it ends early."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.errors import ConfigError, SandboxError, StoreError
from firsthand.experiment.rescore import Rescored, bound, rescore
from firsthand.providers.scripted import Scripted
from firsthand.runs.store import Run
from firsthand.scorers.match import exact
from firsthand.scorers.model_judge import judged_by, pairwise
from firsthand.system import lock
from firsthand.trace import Score, Trace


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def tasks(seed: int) -> list[Task]:
    return [Task(f"t{n}", f"{n}?", secret={"answer": str(n)}) for n in range(3)]


def made(*failing: str) -> Run:
    """A run of the agents a and b at three tasks; a's attempts at the tasks `failing` are errors."""

    async def pattern(task: Task, ctx: Any) -> str:
        if task.id in failing:
            raise ValueError("down")
        return task.prompt[0]

    async def other(task: Task, ctx: Any) -> str:
        return "b"

    agents = [Agent("a", Scripted([]), pattern), Agent("b", Scripted([]), other)]
    return Experiment(agents, Benchmark("own", tasks, (exact,))).run()


def given(run: Run, name: str) -> dict[str, float | None]:
    """The score of that name, by agent and task."""
    return {f"{each.agent_name} {each.task_id}": each.value(name) for each in run.traces() if each.score(name)}


def score(run: Run, scorer: Any, **options: Any) -> Rescored:
    return asyncio.run(rescore(run, scorer, **options))


def long(task: Task, trace: Trace) -> Score:
    return Score("other", len(task.prompt) + (trace.agent_name == "b") / 4)


@pytest.mark.slow
def test_scores_have_the_given_name_the_scorers_own_that_of_its_function_or_none() -> None:
    class Named:
        name, described = "named", "a named one"

        def __call__(self, task: Task, trace: Trace) -> float:
            return 0.5

    with made() as run:
        assert score(run, long) == Rescored("long", scored=6, kept=0, failed=0, skipped=0)
        assert given(run, "long") == {f"{agent} t{n}": 2 + (agent == "b") / 4 for agent in "ab" for n in range(3)}
        assert score(run, long, name="mine", described="by me").name == "mine"
        assert [score(run, each).name for each in (Named(), partial(long))] == ["named", "score"]
        assert score(run, partial(long), name="plain").name == "plain"
        assert run.score_names() == {
            "long": "long", "mine": "by me", "named": "a named one", "score": "score", "plain": "plain",
        }  # fmt: skip
        with pytest.raises(StoreError) as refused:
            score(run, long, name="mine")
        said = "has scores named 'mine' already, given by by me: give the new ones another name, --as NAME"
        assert str(refused.value) == f"run {run.id} {said}"
        assert score(run, long, name="mine", described="by me") == Rescored("mine", 0, 6, 0, 0)


def test_new_kept_failed_and_skipped_ones_are_counted_apart() -> None:
    broken = {"t1", "t2"}
    told: list[tuple[str, str, bool]] = []

    def fussy(task: Task, trace: Trace) -> Score:
        if task.id in broken:
            raise KeyError("x")
        return Score("fussy", 1.0)

    def on_score(trace: Trace, found: Score) -> None:
        told.append((trace.agent_name, trace.task_id, found.failed))

    with made("t0") as run:
        assert score(run, fussy, agent="b", on_score=on_score) == Rescored("fussy", 1, 0, 2, 0)
        assert sorted(told) == [("b", "t0", False), ("b", "t1", True), ("b", "t2", True)]
        broken.remove("t2")
        told.clear()
        assert score(run, fussy, on_score=on_score) == Rescored("fussy", 1, 3, 1, 1)
        assert sorted(told) == [("a", "t1", True), ("a", "t2", False)], (
            "a failed one is kept, an error has nothing to score"
        )
        assert score(run, fussy, redo_errors=True) == Rescored("fussy", 1, 2, 2, 1)
        assert score(run, fussy, redo_errors=True, benchmark="none") == Rescored("fussy", 0, 0, 0, 0)
        kept = run.scored("fussy")
        assert [kept[each.place, 1] for each in run.traces() if not each.error] == [
            each.task_id != "t1" for each in run.traces() if not each.error
        ]


def test_each_try_of_an_attempt_is_scored_for_itself() -> None:
    broken = ["t1"]

    async def flaky(task: Task, ctx: Any) -> str:
        if task.id in broken:
            raise ValueError("down")
        return "1"

    experiment = Experiment([Agent("a", Scripted([]), flaky)], Benchmark("own", tasks, (exact,)))
    with experiment.run() as run:
        assert score(run, long) == Rescored("long", 2, 0, 0, 1)
        broken.clear()
        experiment.resume(run, redo_errors=True)
        assert score(run, long) == Rescored("long", 1, 2, 0, 0)
        assert sorted(number for _, number in run.scored("long")) == [1, 1, 2]
        first, second = run.tries(next(each.place for each in run.traces() if each.task_id == "t1"))
        assert (first.score("long"), second.value("long")) == (None, 2.0)


def test_scores_that_attempts_have_of_their_own_and_attempts_without_a_task_are_refused() -> None:
    with made() as run:
        with pytest.raises(ConfigError) as refused:
            score(run, long, name="exact")
        assert str(refused.value) == (
            f"the attempts of {run.id} have a score 'exact' of their own: give another name, --as NAME"
        )
        lost = next(run.traces())
        run.append(replace(lost, id="x" * 16, place="f" * 16, task_id="gone", scores=()))
        with pytest.raises(StoreError) as missing:
            score(run, long)
        assert str(missing.value) == f"run {run.id} has an attempt at gone and not the task: it cannot be scored"


@pytest.mark.slow
def test_one_scoring_of_a_name_goes_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.01)
    with made() as run, run.scoring("long"):
        with pytest.raises(ConfigError, match=r"is being given scores named 'long' by process \d+ on "):
            score(run, long)
        assert score(run, long, name="mine").scored == 6
    with run:
        assert "long" not in run.score_names()


def test_a_scoring_that_ends_early_keeps_what_is_done_and_leaves_nothing_running() -> None:
    ended: list[str] = []

    async def slow(task: Task, trace: Trace) -> Score:
        if trace.agent_name == "b":
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(task.id)
        if task.id == "t2":
            await asyncio.sleep(0.01)
            raise SandboxError("no box")
        return Score("slow", 1.0)

    with made() as run:
        with pytest.raises(SandboxError, match="no box"):
            asyncio.run(asyncio.wait_for(rescore(run, slow), 20))
        assert sorted(ended) == ["t0", "t1", "t2"] and given(run, "slow") == {"a t0": 1.0, "a t1": 1.0}


def test_a_pair_judge_compares_with_the_attempts_of_its_rival() -> None:
    judge: Any = judged_by(
        pairwise(judge="scripted:echo", against="b", orders="first"),
        Scripted(score=lambda prompt, each: -0.1 if each == "[[A]]" else -3.0),
    )
    with made("t1") as run:
        rivals = bound(judge, run).rivals
        assert rivals == {("own", f"t{n}", 0): each for n in range(3) for each in run.traces() if (
            each.agent_name, each.task_id) == ("b", f"t{n}")}  # fmt: skip
        mine = replace(judge, rivals={})
        alone = replace(judge, against="")
        assert bound(mine, run) is mine and bound(alone, run) is alone
        with pytest.raises(ConfigError) as refused:
            bound(replace(judge, against="c"), run)
        assert str(refused.value) == f"run {run.id} has no agent 'c': it has a, b"
        assert score(run, judge) == Rescored("pairwise", 2, 0, 0, 1), "the rival's own attempts are neither"
        by_id = {each.id: each for each in run.traces()}
        (place,) = (each.place for each in by_id.values() if (each.agent_name, each.task_id) == ("a", "t0"))
        kept = [bool(run.journal(f"{place}/{name}").entries()) for name in ("1/pairwise", "2/pairwise", "pairwise")]
        assert kept == [True, False, False], "the judge's replies are those of this try"
        assert sorted((by_id[each.a].task_id, by_id[each.b].agent_name, each.winner) for each in run.preferences()) == [
            ("t0", "b", "a"), ("t2", "b", "a"),
        ]  # fmt: skip


def test_the_rival_of_each_epoch_is_the_attempt_of_the_same_epoch() -> None:
    judge: Any = pairwise(judge="scripted:echo", against="b", orders="first")

    async def pattern(task: Task, ctx: Any) -> str:
        return task.prompt

    agents = [Agent(name, Scripted([]), pattern) for name in "ab"]
    benchmarks = [Benchmark(name, tasks, (exact,)) for name in ("own", "more")]
    with Experiment(agents, benchmarks, epochs=2).run() as run:
        rivals = bound(judge, run).rivals
        assert rivals is not None and {key: each.id for key, each in rivals.items()} == {
            (each.benchmark, each.task_id, each.epoch): each.id for each in run.traces() if each.agent_name == "b"
        }
        assert len(rivals) == 2 * 3 * 2 and {epoch for _, _, epoch in rivals} == {0, 1}


def test_as_many_are_scored_at_a_time_as_asked_and_one_at_least() -> None:
    running = peak = 0

    async def counted(task: Task, trace: Trace) -> Score:
        nonlocal running, peak
        running, peak = running + 1, max(peak, running + 1)
        for _ in range(20):
            await asyncio.sleep(0)
        running -= 1
        return Score("counted", 1.0)

    with made() as run:
        for concurrency, most in ((0, 1), (2, 2), (99, 6)):
            peak = 0
            assert score(run, counted, name=f"at {concurrency}", concurrency=concurrency).scored == 6 and peak == most
