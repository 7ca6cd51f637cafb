"""Each method of an Experiment on its own: its refusals, its run, what it loads, resumes, replays and measures."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Limits, Task
from firsthand.benchmark import Figure
from firsthand.errors import ConfigError, MissingExtra, ModelFileError, TooManyFailures
from firsthand.experiment.experiment import log_notice
from firsthand.experiment.named_agents import make_agents, open_models
from firsthand.experiment.settings import RunSettings
from firsthand.loop.approval import Approval
from firsthand.message import ToolCall
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.scorers.match import exact
from firsthand.scorers.model_judge import judged_by, rubric
from firsthand.tool import tool

NAMED = RunSettings(("arithmetic:levels=1:tasks=2",), ("scripted:echo",), tools=("none",))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def refusal(function: Any, *args: Any, **given: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        function(*args, **given)
    return str(refused.value)


def own(count: int = 2, name: str = "own", **more: Any) -> Benchmark:
    tasks = [Task(f"t{n}", f"Say {n}.", secret={"answer": str(n)}) for n in range(count)]
    return Benchmark(name, lambda seed: tasks, **{"scorers": (exact,), **more})


def echo(name: str = "a", **more: Any) -> Agent:
    return Agent(name, Scripted(lambda messages, *_: messages[-1].text[4:-1], name="scripted:m"), direct, **more)


def made(home: Path) -> int:
    return len(list(home.glob("runs/*/run.sqlite")))


def opened_runs(home: Path) -> int:
    """How often this process has the file of a run of this home open."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one by which the folder is read
            found += each.readlink().is_relative_to(home)
    return found


def test_what_an_experiment_cannot_be_is_said_with_what_to_give() -> None:
    for changes, said in (
        ({"agents": ()}, "the experiment has no agents: give one or more, as in Experiment([agent], ...)"),
        ({"agents": [echo("b"), echo("c"), echo("c")]}, "two agents are named 'c': give each agent a name of its own"),
        ({"benchmarks": ()}, "the experiment has no benchmarks: name one or more, as in Experiment(agents, ['arithmetic'])"),
        *(({name: wrong}, f"{name} is {wrong}: give 1 or more")
          for name in ("epochs", "limit", "concurrency", "workers") for wrong in (0, -1)),
        ({"where": "rays"}, "where is 'rays': give 'ray', 'ray:HOST:PORT', or None for this process"),
        ({"where": ""}, "where is '': give 'ray', 'ray:HOST:PORT', or None for this process"),
        ({"where": "ray:h:1", "settings": NAMED, "limits": Limits(calls=1)},
         "limits and where do not go together: on a cluster, limit each attempt by its agent's limits"),
    ):  # fmt: skip
        assert refusal(Experiment, **{"agents": [echo()], "benchmarks": "arithmetic", **changes}) == said
    most = Experiment([echo()], own(), epochs=100_000, limit=1, concurrency=1, limits=Limits(calls=1))
    assert isinstance(most.benchmarks, tuple) and isinstance(most.agents, tuple) and most.epochs == 100_000
    assert Experiment([echo()], "a", where="ray:h:1", workers=1, settings=NAMED).workers == 1
    assert Experiment([echo()], "game24").config() == {
        "benchmarks": ["game24"], "agents": ["a"], "epochs": 1, "seed": 0, "limit": None, "concurrency": 16, "on": None,
        "workers": None, "name": None,
    }  # fmt: skip


def test_an_experiment_of_names_has_all_their_settings_and_the_models_that_are_given() -> None:
    settings = replace(
        NAMED, on="ray:h:1", workers=3, epochs=4, seed=6, limit=2, concurrency=7, name="n", pattern=("direct", "cot"),
        approve=("external=ask",), temperature=0.5,
    )  # fmt: skip
    models = [Scripted(["x"], name="scripted:1"), Scripted(["y"], name="scripted:2")]
    found = Experiment.from_settings(settings, models=models)
    assert [(each.name, each.model) for each in found.agents] == [
        ("direct@scripted:1", models[0]), ("cot@scripted:1", models[0]),
        ("direct@scripted:2", models[1]), ("cot@scripted:2", models[1]),
    ]  # fmt: skip
    fields = {"where": "ray:h:1", "workers": 3, "epochs": 4, "seed": 6, "limit": 2, "concurrency": 7, "name": "n"}
    assert {name: getattr(found, name) for name in fields} == fields and found.settings == settings
    assert found.limits is None and found.config() == settings.to_json()
    changed = replace(found, epochs=1, workers=None, name=None, concurrency=2)
    assert changed.current_settings == replace(settings, epochs=1, workers=None, name=None, concurrency=2)
    assert not found.asks_person, "there is no tool to ask about"
    asking = Experiment([echo(), echo("b", tools=(send,), approval=Approval({"send": "ask"}))], own())
    assert asking.asks_person and not replace(asking, agents=asking.agents[:1]).asks_person


def test_figures_and_protocols_are_told_by_benchmark() -> None:
    def figures(traces: Any) -> list[Figure]:
        return []

    experiment = Experiment([echo()], [own(), own(name="other", figures=figures, protocol="p")])
    assert experiment.figures == {"other": figures} and experiment.protocols == {"own": "", "other": "p"}


def test_tasks_are_made_once_of_the_seed_and_cut_at_the_limit() -> None:
    asked: list[int] = []

    def tasks(seed: int) -> list[Task]:
        asked.append(seed)
        return [Task(f"{seed}-{n}", "?") for n in range(3)]

    for limit, ids in ((None, ["8-0", "8-1", "8-2"]), (2, ["8-0", "8-1"]), (3, ["8-0", "8-1", "8-2"]), (4, None)):
        asked.clear()
        experiment = Experiment([echo()], [Benchmark("b", tasks, ()), own()], seed=8, limit=limit)
        first, other = experiment.made_tasks
        assert [each.id for each in first] == (ids or ["8-0", "8-1", "8-2"]) and len(other) == 2
        assert experiment.made_tasks is experiment.made_tasks and asked == [8] and len(experiment.places()) in (4, 5)
    assert experiment.made_benchmarks is experiment.made_benchmarks


@tool(effect="external")
def send(text: str) -> str:
    """Send."""
    return f"sent {text}"


def test_a_run_is_made_with_its_name_and_not_at_all_where_something_is_missing(home: Path) -> None:
    def unready() -> None:
        raise ConfigError("no box here")

    broken = echo("b", tools=(replace(send, ready=unready),))
    assert refusal(Experiment([echo(), broken], own()).create) == "no box here"
    assert refusal(Experiment([echo(), broken], own()).check_ready) == "no box here"
    needs = Experiment([echo()], [own(), own(name="many", reduce="at_least_3")], epochs=2)
    assert refusal(needs.create) == "reduce is at_least_3, and there are 2 epochs: give --epochs 3 or more"
    assert made(home) == 0
    with replace(needs, epochs=3).create() as run:
        assert run.about["reducers"] == {"many": "at_least_3"} and "-own-many-" in run.id and run.status != "done"
        assert list(run.traces()) == [] and run.about["figures"] == {}
    Path("mine.py").write_text(
        "from firsthand.benchmark import Benchmark\nfrom firsthand.task import Task\ndef mine() -> Benchmark:\n"
        "    return Benchmark('mine', lambda seed: [Task('1', 'q', 'a')], (), figures=lambda traces: [])\n"
    )
    (home.parent / "deep").mkdir()
    Path("mine.py").rename("deep/mine.py")
    with Experiment([echo()], ["deep/mine.py", own()]).create() as run:
        assert ("-mine.py-own-" in run.id or "-mine-py-own-" in run.id) and "deep" not in run.id
        assert run.about["figures"] == {"mine": "deep/mine.py"}
        assert run.config["benchmarks"] == ["deep/mine.py", "own"] and run.config["agents"] == ["a"]
        assert run.about["command"] == sys.argv
    with Experiment([echo()], [own()], name="named").create() as run:
        assert "-named-" in run.id and "own" not in run.id


def test_a_notice_is_logged_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "firsthand"):
        log_notice("100% of %s")
    assert [(each.name, each.levelname, each.getMessage()) for each in caplog.records] == [
        ("firsthand", "INFO", "100% of %s")
    ]


def test_no_run_is_made_if_spans_are_asked_for_that_cannot_be_sent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra, match="sending spans"):
        Experiment([echo()], own()).run(otel=True)
    assert made(home) == 0
    Experiment([echo()], own()).run(otel=False).close()
    assert made(home) == 1


class Cold(Scripted):
    """A model with tokens that is not in memory until it is loaded."""

    is_alive = False

    def __init__(self, name: str, *, wrong: bool = False):
        super().__init__({"": "1"}, name=f"scripted:{name}")
        self.loads, self.wrong = 0, wrong

    async def load(self) -> Any:
        self.loads += 1
        if self.wrong:
            raise ModelFileError("it is damaged")

    def unknown(self, *given: Any, **named: Any) -> Any:
        raise NotImplementedError

    stream_many = tokenize = detokenize = rate = counters = spell = unknown


def test_models_are_loaded_once_each_if_the_run_misses_one_of_their_attempts() -> None:
    one, two, far = Cold("one"), Cold("two"), Cold("far")
    agents = [Agent(name, model, direct) for name, model in (("a", one), ("b", two), ("c", two))]
    experiment = Experiment(agents, own())
    asyncio.run(experiment.make_ready())
    assert (one.loads, two.loads) == (1, 1)
    with replace(experiment, agents=agents[:1]).create() as run:
        asyncio.run(replace(experiment, agents=agents[:1]).attempt_async(run))
        before = one.loads
        asyncio.run(experiment.make_ready(run))
        assert (one.loads, two.loads) == (before, 2), "all of the first one's attempts are made"
        asyncio.run(replace(experiment, benchmarks=[own(3)], agents=agents[:1]).make_ready(run))
        assert one.loads == before + 1

    def unready() -> None:
        raise ConfigError("no box here")

    without = Experiment([*agents, replace(agents[0], name="d", tools=(replace(send, ready=unready),))], own())
    before = one.loads, two.loads
    for call in (without.make_ready, without.run_async):
        with pytest.raises(ConfigError, match=r"^no box here$"):
            asyncio.run(call())  # type: ignore[operator]
    assert (one.loads, two.loads) == before, "nothing is loaded before it is known that all is there"
    damaged = Experiment([Agent("a", Cold("x", wrong=True), direct)], own())
    with pytest.raises(ModelFileError, match="it is damaged"):
        asyncio.run(damaged.make_ready())
    with pytest.raises(ModelFileError, match="it is damaged"):
        damaged.run()
    elsewhere = Experiment([Agent("a", far, direct)], own(), where="ray", settings=NAMED)
    asyncio.run(elsewhere.make_ready())
    assert far.loads == 0, "on a cluster nothing is loaded here"


def test_two_models_of_one_name_are_both_loaded_and_one_of_two_agents_once() -> None:
    one, two = Cold("same"), Cold("same")
    agents = [Agent(name, model, direct) for name, model in (("a", one), ("b", two), ("c", one))]
    asyncio.run(Experiment(agents, own()).make_ready())
    assert (one.loads, two.loads) == (1, 1)


@pytest.mark.slow
def test_a_run_that_fails_is_kept_and_closed(home: Path) -> None:
    def stop(trace: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Experiment([echo()], own()).run(on_trace=stop)
    assert made(home) == 1 and opened_runs(home) == 0

    async def waits(task: Any, ctx: Any) -> str:
        await asyncio.sleep(60)
        return ""

    cancelled = Experiment([Agent("a", Scripted([]), waits)], own()).run_async()
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(cancelled, 0.05))
    assert made(home) == 2 and opened_runs(home) == 0

    async def down(task: Any, ctx: Any) -> str:
        raise ValueError

    failing = Experiment([Agent("a", Scripted([]), down)], own(5), concurrency=1)
    with pytest.raises(TooManyFailures):
        failing.run(fail_fast=2)
    with failing.run(fail_fast=0) as run:
        assert len(run.done()) == 5 and run.status == "done" and opened_runs(home) > 0
    assert opened_runs(home) == 0


def test_a_run_goes_on_with_the_same_settings_but_for_those_that_change_no_result(home: Path) -> None:
    experiment = Experiment([echo()], own(), concurrency=2, name="n", seed=3)
    with experiment.create() as run:
        ref = run.id
    other = replace(experiment, concurrency=5, name="m")
    with other.resume(ref) as run:
        assert run.id == ref and len(run.done()) == 2 and run.config["concurrency"] == 2
        begun = f"{ref} was begun with {{}}: resume it with the same settings, or leave them out"
        for changes, said in (
            ({"seed": 4}, "seed 3, not 4"),
            ({"epochs": 2}, "epochs 1, not 2"),
            ({"limit": 1}, "limit None, not 1"),
            ({"benchmarks": [own(), "game24"]}, "benchmarks own, not own,game24"),
            ({"agents": [echo("b"), echo()]}, "agents a, not b,a"),
        ):
            assert refusal(replace(experiment, **changes).resume, run) == begun.format(said)
    with store.create(home, {**experiment.config(), "on": "ray", "workers": 3}, "there") as there:
        assert len(experiment.resume(there).done()) == 2, "what was begun on a cluster may go on here"
    with store.create(home, {"seed": 3}, "older") as older:
        assert len(experiment.resume(older).done()) == 2, "a setting that the run does not tell may be any"
    for config, said in (
        ({"fork": 1}, "{0} is a fork: `firsthand fork --resume {0}` finishes it"),
        ({"chat": 1}, "{0} is a saved conversation: `firsthand chat --load {0}` continues it"),
    ):
        with store.create(home, {**config, "seed": 9}, "kind") as kind:
            assert refusal(experiment.resume, kind) == said.format(kind.id)


def test_a_run_from_another_home_is_made_again_if_it_names_what_is_installed_or_is_trusted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.py").write_text("async def mine(task, ctx):\n    return '1'\n")
    with Experiment.from_settings(replace(NAMED, pattern=("direct", "mine.py"), seed=4)).create() as run:
        path, ref = run.path, run.id
    assert [each.name for each in Experiment.from_run(ref).agents] == ["direct", "mine.py"], "it is of this home"
    monkeypatch.setenv("FIRSTHAND_HOME", str(home.parent / "other"))
    said = (
        f"{ref} was made elsewhere and names the pattern 'mine.py', which may run code or reach files and servers: look at "
        "it, then add --trust"
    )
    assert refusal(Experiment.from_run, str(path)) == said
    assert refusal(Experiment.from_run, str(path), benchmarks=("game24",), limit=3) == said
    trusted = Experiment.from_run(str(path), trust=True, epochs=2)
    assert [each.name for each in trusted.agents] == ["direct", "mine.py"]
    assert (trusted.epochs, trusted.seed) == (2, 4)
    Path("new.py").write_text("async def new(task, ctx):\n    return '1'\n")
    with store.open_run(path, home) as run:
        changed = Experiment.from_run(run, pattern=("cot", "new.py"))
    assert [each.name for each in changed.agents] == ["cot", "new.py"], "what the caller names is the caller's own"


@pytest.mark.slow
def test_a_replay_asks_recorded_models_tools_and_judges(home: Path) -> None:
    async def sends(task: Task, ctx: Any) -> str:
        sent = await ctx.call(ToolCall("1", "send", {"text": task.id}))
        return f"{sent.content} {(await ctx.say(task.prompt).generate()).text}"

    judge = Scripted(score=lambda prompt, each: -0.1 if each.strip() == "[[7]]" else -3.0, name="scripted:j")
    judged: Any = judged_by(rubric(judge="scripted:echo"), judge)
    agents = [
        Agent("a", Scripted({"": "x"}, name="scripted:x", fingerprint="fx"), sends, {}, (send,)),
        Agent("b", Scripted({"": "y"}, name="scripted:y", fingerprint="fy"), sends, {}, (send,)),
    ]
    agents = [replace(each, approval=Approval({"external": "allow"})) for each in agents]
    experiment = Experiment(agents, own(scorers=(exact, judged)), epochs=2, seed=5, concurrency=3)
    with experiment.run() as run:
        before = {each.place: (each.answer, each.scores[1].value) for each in run.traces()}
        assert set(before.values()) == {
            (f"sent t{n} {word}", before[p][1]) for p in before for n in (0, 1) for word in "xy"
        }
        again = experiment.replaying(run.id)
        asked = len(judge.asked)
        first, second = again.agents
        assert [(each.name, each.model.name, each.model.fingerprint) for each in again.agents] == [
            ("a", "scripted:x", "fx"), ("b", "scripted:y", "fy"),
        ]  # fmt: skip
        assert first.approval.rules["external"] == second.approval.rules["write"] == "allow"
        assert first.own_tools[0].function is not send.function and first.pattern is sends
        assert (again.epochs, again.seed, again.concurrency) == (2, 5, 3)
        with again.run() as replayed:
            assert {each.place: (each.answer, each.scores[1].value) for each in replayed.traces()} == before
        assert len(judge.asked) == asked, "the judge is not asked again"
    named = Experiment.from_settings(NAMED, models=[Scripted({"": "1"}, name="scripted:echo")])
    with named.run() as run:
        path = run.path
        there = replace(named, settings=replace(NAMED, on="ray", workers=2), where="ray", workers=2, epochs=3)
        found = there.replaying(run.id)
    assert found.current_settings == replace(NAMED, epochs=3, replay=str(path)) and found.where is None
    (agent,) = make_agents(replace(NAMED, tools=("calculator", "fetch"), approve=("fetch=ask",), replay=str(path)))
    plain, outside = agent.own_tools
    live = make_agents(replace(NAMED, tools=("calculator", "fetch")))[0].own_tools
    assert (plain.name, outside.name) == ("calculator", "fetch") and plain.function is live[0].function
    assert outside.function is not live[1].function and agent.approval.verdict(outside) == "allow"


def test_models_are_opened_with_their_device_and_weights() -> None:
    for changes, said in (
        ({"device": "cuda:1"}, "device is 'cuda:1', and scripted:echo does not run here: a device is for local models"),
        ({"weights": "int8"}, "weights is 'int8', and scripted:echo does not run here: a format is for local models"),
    ):
        assert refusal(open_models, replace(NAMED, **changes)) == said  # type: ignore[arg-type]
    Path("s.json").write_text('["x"]')
    found = open_models(replace(NAMED, model=("scripted:s.json", "scripted:echo")))
    assert [each.name for each in found] == ["scripted:s.json", "scripted:echo"]


def test_a_benchmark_is_in_a_run_once_however_it_is_named(home: Path) -> None:
    few = "arithmetic:levels=1:tasks=1"
    for both in ((own(), own(3, protocol="other")), (few, "arithmetic:levels=2:tasks=1"), (few, own(), few)):
        refused = refusal(Experiment([echo()], both).run)
        assert " is given 2 times, and a run holds one attempt of each of its tasks" in refused
        assert refused.startswith("own" if both[0] != few else "arithmetic") and made(home) == 0
        with pytest.raises(ConfigError, match="is given 2 times"):
            asyncio.run(Experiment([echo()], both).make_ready())  # before a model is loaded
    assert len(list(Experiment([echo()], (few, own())).run().traces())) == 3
