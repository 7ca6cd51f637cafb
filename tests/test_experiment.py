"""Experiment as a library: what `firsthand run` does from Python, for agents made by name or by hand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import firsthand
from firsthand import Agent, Benchmark, Experiment, Limits, Task, catalog
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.commands.run import Config
from firsthand.config import parse
from firsthand.errors import ConfigError, LimitExceeded, StoreError, UnknownName
from firsthand.experiment.settings import RunSettings, stored_settings
from firsthand.loop.approval import Approval
from firsthand.loop.listener import Added, Step
from firsthand.message import ToolCall
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.self_consistency import self_consistency
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.runs.store import Run, open_run
from firsthand.show.board import leaderboard
from firsthand.tool import tool
from firsthand.trace import Score, Trace
from run_process import results

SCRIPT = {"\\+": "The answer is 50.", "step by step": "Let me see. The answer is 32", "": "I think it is 12."}
NAMES = RunSettings(
    benchmarks=("arithmetic:levels=1:tasks=6",), model=("scripted:script.json",), pattern=("direct", "cot")
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("script.json").write_text(json.dumps(SCRIPT))
    return tmp_path / "home"


def agents(model: Scripted | None = None) -> list[Agent]:
    """Two agents made by hand, equal to those that NAMES names."""
    model = model or Scripted(SCRIPT, name="scripted:script.json")
    tools = catalog.tools("calculator")
    sampling = firsthand.Sampling(max_tokens=256, temperature=0.0)
    return [Agent(name, model, pattern, {}, tools, sampling) for name, pattern in (("direct", direct), ("cot", cot))]


def runs(home: Path) -> int:
    return sum(each.is_dir() for each in (home / "runs").glob("*")) if home.exists() else 0


def of(model: Scripted, **fields: Any) -> Experiment:
    return Experiment(agents(model), "arithmetic:levels=1:tasks=6", **fields)


def refuse(place: Any) -> Any:
    raise AssertionError("nothing should be attempted")


# -- the same as the command --


@pytest.mark.slow
def test_names_and_hand_made_agents_give_the_traces_of_the_command(cli: Any, home: Path) -> None:
    assert cli("run", *NAMES.benchmarks, "--model", *NAMES.model, "--pattern", "direct,cot", "--epochs", "2")[0] == 0
    with open_run("last", home) as run:
        wanted = results(run)
    assert len(wanted) == 24
    named = Experiment.from_settings(replace(NAMES, epochs=2)).run()
    by_hand = Experiment(agents(), NAMES.benchmarks, epochs=2).run()
    for run in (named, by_hand):
        assert results(run) == wanted and run.status == "done"
        run.close()


@pytest.mark.slow
def test_a_run_from_names_is_the_commands_own(cli: Any, home: Path) -> None:
    with Experiment.from_settings(replace(NAMES, name="mine"), show_progress=True).run() as run:
        assert stored_settings(run) == replace(NAMES, name="mine") and run.id.rsplit("-", 1)[0].endswith("-mine")
        command = (
            "firsthand run arithmetic:levels=1:tasks=6 --model scripted:script.json --pattern direct,cot --name mine"
        )
        assert run.about["command"] == [command]
    assert cli("run", "--resume", run.id)[0] == 0 and cli("run", "--replay", run.id)[0] == 0


@pytest.mark.slow
def test_the_board_of_a_run_ranks_both_agents(home: Path) -> None:
    with Experiment(agents(), ["arithmetic:levels=1"], limit=8).run() as run:
        [board] = leaderboard(list(run.traces()))
    assert board.tasks == 8 and {row.agent for row in board.rows} == {"direct", "cot"}


def test_a_model_object_without_a_name_is_enough(home: Path) -> None:
    model = Scripted(lambda messages, sampling, index: "4", name="scripted:mine")
    tasks = [Task("one", "2 + 2?", metadata={}), Task("two", "3 + 1?")]
    own = Benchmark("own", lambda seed: tasks, (lambda task, trace: Score("is_4", float(trace.answer == "4")),))
    with Experiment([Agent("mine", model, direct)], own).run() as run:
        assert [trace.value() for trace in run.traces()] == [1.0, 1.0]
        assert run.config["benchmarks"] == ["own"] and run.config["agents"] == ["mine"]


# -- places --


def test_epochs_limit_and_seed_decide_the_places(home: Path) -> None:
    experiment = of(Scripted(SCRIPT), epochs=3, limit=2, seed=5)
    places = experiment.places()
    assert len(places) == 3 * 2 * 2 and {place.epoch for place in places} == {0, 1, 2}
    assert [place.agent.name for place in places[:4]] == ["direct", "cot", "direct", "cot"]
    tasks = catalog.benchmark("arithmetic:levels=1:tasks=6").tasks(5)
    assert {place.task.id for place in places} == {task.id for task in tasks[:2]}
    with experiment.run() as run:
        assert {trace.seed for trace in run.traces()} == {5} and len(run.done()) == 12


@pytest.mark.slow
def test_another_seed_gives_other_samples(home: Path) -> None:
    def sampled(messages: Any, sampling: Any, index: int) -> str:
        return str(sampling.seed)

    fixed = Benchmark("fixed", lambda seed: [Task("one", "Say a number.")], ())
    answers = []
    for seed in (0, 0, 1):
        with Experiment(agents(Scripted(sampled)), fixed, seed=seed, epochs=2).run() as run:
            answers.append({trace.answer for trace in run.traces()})
    assert answers[0] == answers[1] and len(answers[0]) > 1 and not answers[0] & answers[2]


# -- interrupted and resumed --


def stepwise(steps: int = 3) -> Callable[..., Any]:
    """A pattern of several calls, with time between them to be cancelled in."""

    async def walk(task: Any, ctx: Any) -> str:
        for step in range(steps):
            ctx = await ctx.say(f"{task.prompt} {step}").generate()
            await asyncio.sleep(0.002)
        return str(ctx.text)

    return walk


@pytest.mark.slow
@pytest.mark.parametrize("finished", [0, 1, 5])
def test_a_cancelled_run_resumes_to_the_traces_of_an_uninterrupted_one(home: Path, finished: int) -> None:
    def made(model: Scripted) -> Experiment:
        pair = [Agent(name, model, stepwise(), {}) for name in ("a", "b")]
        return Experiment(pair, "arithmetic:levels=1:tasks=6", concurrency=3)

    with made(Scripted(SCRIPT)).run() as whole:
        wanted = results(whole)
    model = Scripted(SCRIPT)
    experiment = made(model)
    run = experiment.create()

    async def cancelled() -> None:
        enough = asyncio.Event()
        kept: list[Trace] = []

        def on_trace(trace: Trace) -> None:
            kept.append(trace)
            if len(kept) == finished:
                enough.set()

        working = asyncio.create_task(experiment.resume_async(run, on_trace=on_trace))
        await (enough.wait() if finished else asyncio.sleep(0.02))
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    asyncio.run(cancelled())
    assert run.status == "interrupted" and finished <= len(run.done()) < 12
    before = len(run.done())
    told: list[str] = []
    experiment.resume(run, on_trace=lambda trace: told.append(trace.id))
    assert results(run) == wanted and run.status == "done" and len(told) == 12 - before
    assert len(run.database.read("SELECT 1 FROM effects")) == 12 * 3  # no reply was asked for twice


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_a_named_run_is_resumed_from_its_folder(home: Path) -> None:
    def stop(trace: Trace) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Experiment.from_settings(replace(NAMES, concurrency=1)).run(on_trace=stop)
    with open_run("last", home) as run:
        assert run.status == "interrupted" and len(run.done()) == 1
    with Experiment.from_run("last").resume("last") as run:
        assert len(run.done()) == 12
    with Experiment.from_settings(NAMES).run() as whole:
        assert results(run) == results(whole)


def test_a_hand_made_run_says_that_its_agents_must_be_passed_again(cli: Any, home: Path) -> None:
    with of(Scripted(SCRIPT), limit=2).run() as run:
        pass
    sentence = (
        f"{run.id} has agents that were made in Python (direct, cot), and names alone cannot make them again: "
        f"pass the same agents, as in Experiment(agents, ...).resume('{run.id}')"
    )
    with pytest.raises(ConfigError) as error:
        Experiment.from_run(run.id)
    assert str(error.value) == sentence
    for words in (["run", "--resume"], ["run", "--replay", run.id]):
        code, _, err = cli(*words)
        assert (code, err) == (2, f"firsthand: {sentence}\n")
    code, _, err = cli("fork", "last", "arithmetic/seed0-level1-0000/direct", "--at", "0")
    assert code == 2 and "was not made by `firsthand run`" in err
    assert of(Scripted(SCRIPT), limit=2).resume(run.id, listener=refuse).status == "done"


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_agents_or_settings(cli: Any, home: Path) -> None:
    with of(Scripted(SCRIPT), limit=2).run() as run:
        pass
    with pytest.raises(StoreError, match="agent 'direct' is not the one"):
        of(Scripted({"": "other"}), limit=2).resume(run.id)
    for change, sentence in (
        ({"limit": 3}, "was begun with limit 2, not 3"),
        ({"limit": 2, "seed": 1}, "was begun with seed 0, not 1"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            of(Scripted(SCRIPT), **change).resume(run.id)
    with pytest.raises(ConfigError, match="begun with benchmarks arithmetic:levels=1:tasks=6, not arc_easy"):
        Experiment(agents(Scripted(SCRIPT)), "arc_easy", limit=2).resume(run.id)
    of(Scripted(SCRIPT), limit=2, concurrency=1, name="other").resume(run.id)  # these change no result
    cli("run", *NAMES.benchmarks, "--model", *NAMES.model, "--limit", "1")
    cli("fork", "last", "arithmetic", "--at", "0")
    with pytest.raises(ConfigError, match="is a fork: `firsthand fork --resume"):
        of(Scripted(SCRIPT), limit=1).resume("last")


def test_a_run_that_is_being_worked_on_is_left_alone(home: Path) -> None:
    with of(Scripted(SCRIPT), limit=1).run() as run, run.working(), pytest.raises(ConfigError) as error:
        of(Scripted(SCRIPT), limit=1).resume(run)
    assert re.search(rf"is being run by process {os.getpid()} on \S+ since \d{{4}}-\S+ \S+ UTC: wait", str(error.value))


def test_errors_are_attempted_again_when_asked(home: Path) -> None:
    broken = [True]

    async def flaky(task: Any, ctx: Any) -> str:
        if broken[0]:
            raise ValueError("down")
        return "1"

    experiment = Experiment([Agent("flaky", Scripted(), flaky)], "arithmetic:levels=1:tasks=2")
    with experiment.run() as run:
        assert len(run.done(errors=False)) == 0
        broken[0] = False
        assert len(experiment.resume(run).done(errors=False)) == 0
        assert len(experiment.resume(run, redo_errors=True).done(errors=False)) == 2


def test_runs_of_0_6_resume_from_the_flags_they_stored(home: Path) -> None:
    flags = NAMES.to_json() | {"watch": True, "otel": False, "resume": None, "retry_errors": False, "json": True}
    assert flags.keys() | {"fail_fast", "trust"} == asdict(Config(benchmarks=("arithmetic",))).keys()
    del flags["device"]  # and those of versions before a flag was there
    run = store.create(home, flags, "old", command=["firsthand", "run"])
    assert stored_settings(run) == NAMES
    with Experiment.from_run(run).resume(run) as finished:
        assert len(finished.done()) == 12
    strange = store.create(home, flags | {"flavour": "x"}, "strange")
    with pytest.raises(ConfigError, match="RunSettings has no setting 'flavour'"):
        stored_settings(strange)


# -- told and limited --


def test_each_trace_is_kept_before_it_is_told_and_steps_are_heard(home: Path) -> None:
    experiment = of(Scripted(SCRIPT), limit=2)
    run = experiment.create()
    seen: list[str] = []
    steps: list[Step] = []

    def on_trace(trace: Trace) -> None:
        assert trace.place in run.done()
        seen.append(trace.place)

    experiment.resume(run, on_trace=on_trace, listener=lambda place: steps.append)
    assert sorted(seen) == sorted(place.id for place in experiment.places())
    assert len([step for step in steps if isinstance(step, Added)]) == sum(len(each.nodes) for each in run.traces())


def test_limits_are_of_the_whole_run_and_a_larger_one_finishes_it(home: Path) -> None:
    small = of(Scripted(SCRIPT), limits=Limits(calls=5), concurrency=1)
    run = small.create()
    with pytest.raises(LimitExceeded, match="call budget of the whole run exhausted with 7 attempts to go"):
        small.resume(run)
    assert len(run.done()) == 5 and run.status == "interrupted"
    assert len(replace(small, limits=Limits(calls=12)).resume(run).done()) == 12


def test_run_works_where_an_event_loop_runs_already(home: Path) -> None:
    async def notebook() -> Run:
        return of(Scripted(SCRIPT), limit=1).run()

    with asyncio.run(notebook()) as run:
        assert len(run.done()) == 2


# -- replays and equal budgets --


def test_a_replay_of_hand_made_agents_asks_no_model(home: Path) -> None:
    experiment = Experiment([replace(agents()[1], name="vote", pattern=self_consistency)], "arithmetic:tasks=4")
    with experiment.run() as run:
        wanted = {trace.place: (trace.answer, trace.scores) for trace in run.traces()}
    dead = replace(experiment.agents[0], model=Scripted([], name="scripted:script.json"))
    with replace(experiment, agents=[dead]).replaying(run.id).run() as again:
        assert {trace.place: (trace.answer, trace.scores) for trace in again.traces()} == wanted
    with replace(experiment, agents=[dead], seed=3).replaying(run.id).run() as other:
        assert all("holds no reply to" in str(trace.error) for trace in other.traces())


def test_a_replay_of_hand_made_agents_calls_nothing_outside(home: Path) -> None:
    calls: list[str] = []

    @tool(effect="irreversible")
    def send(text: str) -> str:
        """Send a text."""
        calls.append(text)
        return "sent"

    async def sender(task: Any, ctx: Any) -> str:
        return str((await ctx.call(ToolCall("1", "send", {"text": task.id}))).content)

    agent = Agent("sender", Scripted(), sender, {}, (send,), approval=Approval({"irreversible": "allow"}))
    experiment = Experiment([agent], "arithmetic:levels=1:tasks=3")
    with experiment.run() as run:
        assert len(calls) == 3
    cautious = replace(experiment, agents=[replace(agent, approval=Approval({"irreversible": "deny"}))])
    with cautious.replaying(run.id).run() as again:  # nobody is asked, because nothing is done
        assert {trace.answer for trace in again.traces()} == {"sent"} and len(calls) == 3


def test_a_replay_of_names_stores_its_source(home: Path) -> None:
    with Experiment.from_settings(NAMES).run() as run:
        wanted = results(run)
    Path("script.json").unlink()
    with Experiment.from_run(run.id, replay=str(run.path)).run() as again:
        assert {id: each[:3] for id, each in results(again).items()} == {id: each[:3] for id, each in wanted.items()}
        assert again.config["replay"] == str(run.path)


@pytest.mark.slow
def test_an_equal_budget_is_measured_in_a_run_of_its_own(cli: Any, home: Path) -> None:
    names = replace(NAMES, pattern=("direct", "self_consistency"), equal_budget="300")
    with Experiment.from_settings(names).run() as run:
        assert run.config["equal_budget"] == "300" and runs(home) == 2
        found = run.config["pattern"]
    code = cli("run", *NAMES.benchmarks, "--model", *NAMES.model, "--pattern", "direct,self_consistency",
               "--equal-budget", "300")[0]  # fmt: skip
    with open_run("last", home) as other:
        assert code == 0 and other.config["pattern"] == found and found[1].startswith("self_consistency:samples=")
    with Experiment.from_run(run.id).run():
        assert runs(home) == 5  # nothing is left to turn, so nothing is measured anew


# -- refusals --


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"agents": []}, "the experiment has no agents"),
        ({"benchmarks": []}, "the experiment has no benchmarks"),
        ({"agents": ["twice"]}, "two agents are named 'direct': give each agent a name of its own"),
        ({"epochs": 0}, "epochs is 0: give 1 or more"),
        ({"limit": -1}, "limit is -1"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"where": "dask"}, "where is 'dask': give 'ray', 'ray:HOST:PORT', or None for this process"),
        ({"where": "ray"}, "agents made in Python do not travel to a cluster"),
        ({"workers": 2}, "workers are those of a cluster"),
    ],
)
def test_what_cannot_be_an_experiment_is_refused_at_birth(home: Path, fields: dict[str, Any], sentence: str) -> None:
    pair = agents()
    given = {"agents": pair, "benchmarks": ["arithmetic"], **fields}
    if given["agents"] == ["twice"]:
        given["agents"] = [pair[0], pair[0]]
    with pytest.raises(ConfigError, match=sentence):
        Experiment(**given)
    assert runs(home) == 0


def test_names_that_do_not_exist_are_refused_before_a_run_is_made(home: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'arithmetic'"):
        Experiment(agents(), ["arithmetik"]).run()
    with pytest.raises(UnknownName, match="did you mean 'react'"):
        Experiment.from_settings(replace(NAMES, pattern=("reakt",)))
    with pytest.raises(ConfigError, match="limits and where do not go together"):
        replace(Experiment.from_settings(replace(NAMES, on="ray")), limits=Limits(calls=1))
    assert runs(home) == 0


def test_settings_follow_what_the_experiment_changes_of_them() -> None:
    experiment = replace(Experiment.from_settings(NAMES), epochs=4, limit=3, seed=9)
    assert experiment.config() == replace(NAMES, epochs=4, limit=3, seed=9).to_json()
    assert experiment.current_settings.command().endswith("--limit 3 --epochs 4 --seed 9")


@pytest.mark.slow
def test_the_package_gives_the_experiment_lazily() -> None:
    code = "import sys, firsthand; print('firsthand.experiment' in sys.modules, firsthand.Experiment.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False Experiment\n", done.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        *(
            ({name: 0}, f"{name} is 0: give 1 or more")
            for name in ("limit", "epochs", "concurrency", "max_tokens", "workers")
        ),
        ({"equal_budget": "0"}, "equal_budget is '0'"),
        ({"equal_budget": "many"}, "equal_budget is 'many'"),
        ({"equal_budget": "9", "model": ("a", "b")}, "name one model"),
        ({"equal_budget": "auto", "model": ("a", "b")}, "name one"),
        ({"model": ()}, "model is empty"),
        ({"pattern": ()}, "pattern is empty"),
        ({"model": ("a", "a")}, "name each one once"),
        ({"pattern": ("cot", "cot")}, "name each one once"),
        ({"approve": ("=ask",)}, "approve has"),
        ({"on": "cloud"}, "on is 'cloud'"),
        ({"workers": 2}, "workers are those of a cluster"),
        ({"on": "ray", "replay": "r"}, "replay and on do not go together"),
    ],
)
def test_settings_that_clash_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        RunSettings(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"limit": 1, "epochs": 1, "concurrency": 1, "max_tokens": 1}, {"on": "ray", "workers": 1}, {"on": "ray:h:1"},
        {"replay": "r"}, {"equal_budget": "1"}, {"equal_budget": "auto"}, {"model": ("a", "b")}, {"system": "-x y"},
        {"pattern": ("cot", "self_consistency:samples=3"), "tools": (), "temperature": 0.7, "budget_usd": 0.5, "seed": 7},
    ],
)  # fmt: skip
def test_settings_that_go_together_are_their_own_command_line(changes: dict[str, Any]) -> None:
    made = RunSettings(benchmarks=("arithmetic",), **changes)
    words = shlex.split(made.command())
    assert words[:3] == ["firsthand", "run", "arithmetic"]
    assert made.token_budget == (1.0 if changes.get("equal_budget") == "1" else None)
    if made.tools:  # no tools are no word
        assert parse(RunSettings, words[2:], prog="firsthand run") == made


def own_tasks(*tasks: Task) -> Benchmark:
    return Benchmark("own", lambda seed: tasks, (lambda task, trace: 1.0,))


def test_a_benchmark_without_tasks_is_refused_before_a_run_exists(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the benchmark own has no tasks: give it one or more$"):
        Experiment(agents(), [own_tasks()]).run()
    assert not list(home.glob("runs/*"))


@pytest.mark.parametrize("prompt", ["1+1?", "2+2?"])
def test_two_tasks_of_one_id_are_refused_whether_equal_or_not(home: Path, prompt: str) -> None:
    benchmark = own_tasks(Task("a", "1+1?"), Task("b", "1+1?"), Task("b", prompt))
    for limit in (None, 1):
        with pytest.raises(ConfigError, match=r"^the benchmark own has several tasks with the id 'b': give each an id"):
            Experiment(agents(), [benchmark], limit=limit).run()
    assert not list(home.glob("runs/*"))


def test_looking_for_tasks_of_one_id_makes_no_task_beyond_the_limit() -> None:
    def made(number: int) -> Task:
        assert number < 2, "made beyond the limit"
        return Task(f"t{number}", "1+1?")

    benchmark = Benchmark("own", lambda seed: LazyTasks(range(1000), made), (lambda task, trace: 1.0,))
    with Experiment(agents()[:1], [benchmark], limit=2).run() as run:
        assert len(list(run.traces())) == 2
