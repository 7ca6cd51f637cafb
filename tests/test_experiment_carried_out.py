"""An experiment that is carried out: what its run is told, how many attempts run at once, seeds, replays, refusals."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.benchmark import Figure
from firsthand.errors import ConfigError, LimitExceeded
from firsthand.experiment.settings import RunSettings
from firsthand.loop.budget import Limits
from firsthand.patterns.direct import direct
from firsthand.providers.cached import Replay
from firsthand.providers.scripted import Scripted
from firsthand.runs.store import open_run
from firsthand.scorers.match import exact
from firsthand.scorers.model_judge import JudgeScorer
from firsthand.tool import tool
from firsthand.trace import Score


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def right(task: Task, trace: Any) -> Score:
    return Score("right", float(trace.answer == task.secret["answer"]))


def own(count: int = 5, **more: Any) -> Benchmark:
    tasks = [Task(f"t{n}", f"Say {n}.", secret={"answer": str(n)}) for n in range(count)]
    return Benchmark("own", lambda seed: tasks, (right,), protocol="as said", **more)


@pytest.mark.slow
def test_a_run_is_told_protocols_reducers_figures_and_the_command_that_makes_it() -> None:
    figured = replace(own(), name="figured", figures=lambda *_: {"f": Figure(1.0)}, reduce="max", protocol="other")
    experiment = Experiment([Agent("a", Scripted(["x"]), direct)], [own(), figured, "arithmetic:levels=1:tasks=1"])
    with experiment.create() as run:
        about = run.about
        assert about["protocols"] == {"own": "as said", "figured": "other", **{
            "arithmetic": experiment.made_benchmarks[2].protocol}}  # fmt: skip
        assert about["reducers"] == {"figured": "max"} and about["figures"] == {"figured": "figured"}
        assert "own-figured-arithmetic" in run.id
    settings = RunSettings(("arithmetic:levels=1:tasks=1",), ("scripted:echo",), seed=4, epochs=2)
    with Experiment.from_settings(settings).create() as run:
        assert run.about["command"] == [settings.command()] and run.config["seed"] == 4
        assert "--seed 4" in settings.command() and "--epochs 2" in settings.command()
    own_now: dict[str, Any] = {"seed": 9, "epochs": 3, "limit": 5, "concurrency": 7, "name": "n"}
    with replace(Experiment.from_settings(settings), **own_now).create() as run:
        assert run.about["command"] == [replace(settings, **own_now).command()], "not that of the settings it came from"
        assert all(each in run.about["command"][0] for each in ("--seed 9", "--epochs 3", "--limit 5", "--name n"))
        assert {name: run.config[name] for name in own_now} == own_now


@pytest.mark.slow
def test_a_run_is_resumed_with_a_seed_of_0_and_no_limit_only_if_it_had_them() -> None:
    experiment = Experiment([Agent("a", Scripted({"": "1"}), direct)], own(), seed=3, limit=1)
    with experiment.create() as run:
        begun = f"{run.id} was begun with {{}}: resume it with the same settings, or leave them out"
        for changes, said in (({"seed": 0}, "seed 3, not 0"), ({"limit": None}, "limit 1, not None")):
            changed: Any = changes
            with pytest.raises(ConfigError) as refused:
                replace(experiment, **changed).resume(run)
            assert str(refused.value) == begun.format(said) and len(run.done()) == 0
        with run.working(), pytest.raises(ConfigError, match=f"^{run.id} is being run by process "):
            replace(experiment, seed=0).resume(run)  # this is told first: what is in the way changes by itself
        assert len(experiment.resume(run).done()) == 1
    none = replace(experiment, seed=0, limit=None, agents=[Agent("b", Scripted({"": "1"}), direct)])
    with none.run() as run:
        with pytest.raises(ConfigError, match=r"was begun with limit None, not 2:"):
            replace(none, limit=2).resume(run)
        assert len(none.resume(run).done()) == 5


def test_at_most_so_many_attempts_run_at_once_each_is_kept_before_it_is_told_and_listened_to() -> None:
    running, most = [0], [0]

    async def counted(task: Task, ctx: Any) -> str:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.002)
        running[0] -= 1
        return task.prompt.split()[1].rstrip(".")

    told: list[str] = []
    heard: list[tuple[str, int]] = []
    experiment = Experiment([Agent("a", Scripted([]), counted)], own(), epochs=2, seed=8, limit=4, concurrency=3)
    run = experiment.create()

    def on_trace(trace: Any) -> None:
        assert run.trace(trace.place).id == trace.id
        told.append(f"{trace.task_id}/{trace.epoch}")

    def listener(place: Any) -> None:
        heard.append((place.task.id, place.epoch))

    with run:
        asyncio.run(experiment.attempt_async(run, on_trace=on_trace, listener=listener))
        assert most[0] == 3 and sorted(told) == sorted(f"t{n}/{epoch}" for n in range(4) for epoch in (0, 1))
        assert sorted(heard) == sorted((f"t{n}", epoch) for n in range(4) for epoch in (0, 1))
        assert [trace.value() for trace in run.traces()] == [1.0] * 8 and {each.seed for each in run.traces()} == {8}
        before = [trace.id for trace in run.traces()]
        asyncio.run(experiment.attempt_async(run, on_trace=on_trace))
        assert [trace.id for trace in run.traces()] == before and len(told) == 8, "nothing is repeated"
        with pytest.raises(ConfigError) as refused:
            replace(experiment, seed=9).resume(run)
        assert str(refused.value) == (
            f"{run.id} was begun with seed 8, not 9: resume it with the same settings, or leave them out"
        )


def test_limits_are_of_all_attempts_together() -> None:
    experiment = Experiment(
        [Agent("a", Scripted({"": "1"}), direct)], own(), limits=Limits(calls=2), concurrency=1
    )  # fmt: skip
    with experiment.create() as run:
        with pytest.raises(LimitExceeded) as used_up:
            asyncio.run(experiment.attempt_async(run))
        assert str(used_up.value) == (
            "call budget of the whole run exhausted with 3 attempts to go; what is done is kept: "
            f"resume run {run.id} with a larger limit to finish them"
        )
        assert sum(len(trace.calls) for trace in run.traces()) == 2


@tool(effect="external")
def send(text: str) -> str:
    """Send."""
    raise AssertionError("a replay calls nothing outside")


@pytest.mark.slow
def test_a_replay_has_the_recorded_models_and_tools_and_asks_nobody(home: Path) -> None:
    agent = Agent("a", Scripted({"": "1"}, name="scripted:m"), direct, {}, (send,))
    experiment = Experiment([agent], own(2), epochs=2, seed=3)
    with experiment.run() as run:
        answers = [trace.answer for trace in run.traces()]
        ref = run.id
    again = experiment.replaying(ref)
    assert (again.epochs, again.seed) == (2, 3) and again.agents[0].model.name == "scripted:m"
    assert again.agents[0].model is not agent.model and again.agents[0].approval.rules["irreversible"] == "allow"
    with again.run() as run:
        assert [trace.answer for trace in run.traces()] == answers and all(t.error is None for t in run.traces())
    settings = RunSettings(("arithmetic:levels=1:tasks=1",), ("scripted:echo",), seed=4)
    with Experiment.from_settings(settings).run() as run:
        made = run
    assert Experiment.from_settings(settings).replaying(made.id).current_settings == replace(
        settings, replay=str(made.path)
    )
    with open_run("last", home) as run:
        assert run.id == made.id
    Path("judged.py").write_text(
        "from firsthand.benchmark import Benchmark\nfrom firsthand.scorers.match import exact\n"
        "from firsthand.scorers.model_judge import rubric\nfrom firsthand.task import Task\n"
        "def judged() -> Benchmark:\n    tasks = [Task('t', 'Q?', secret={'answer': 'x'})]\n"
        "    return Benchmark('judged', lambda seed: tasks, (exact, rubric(judge='scripted:echo')))\n"
    )
    given = [Scripted({"": "1"}, name="scripted:given")]
    for models in (None, given):
        replayed = Experiment.from_settings(replace(settings, benchmarks=("judged.py",), replay=ref), models=models)
        (benchmark,) = replayed.made_benchmarks
        plain, judge = benchmark.scorers
        assert isinstance(judge, JudgeScorer) and isinstance(judge.agent.model, Replay) and plain is exact
        assert (replayed.agents[0].model is given[0]) is (models is given), (
            "judges are recorded whoever gives the models"
        )
    live = Experiment.from_settings(replace(settings, benchmarks=("judged.py",)), models=given)
    judge = live.made_benchmarks[0].scorers[1]
    assert isinstance(judge, JudgeScorer) and isinstance(judge.agent.model, Scripted)
    opened: Any = replace(agent, tools=(lambda: None,))
    with pytest.raises(ConfigError, match="a has tools that are opened for each attempt, and a replay opens nothing"):
        Experiment([opened], own()).replaying(ref)
