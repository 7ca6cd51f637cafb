"""Agents of an experiment made from names, what is refused before it, its places, and the knobs of equal budgets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from firsthand import Agent, Benchmark, Experiment, Task, catalog
from firsthand.errors import ConfigError, UnknownName
from firsthand.experiment import named_agents
from firsthand.experiment.equal_budget import Fitted, Knob, best_value, equalise, free_knob, next_value
from firsthand.experiment.named_agents import ALLOW_ALL, make_agents, may_ask, open_models, open_tools
from firsthand.experiment.on_cluster import address_of, build_worker, uses_files
from firsthand.experiment.preflight import check_ready
from firsthand.experiment.settings import RunSettings
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Limits
from firsthand.loop.pattern_options import checked
from firsthand.model import Sampling
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.tool import Effect, tool
from firsthand.tool_source import source_name
from firsthand.trace import Score


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(function: Any, *args: Any, **given: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        function(*args, **given)
    return str(refused.value)


def test_agents_are_made_for_each_model_and_pattern_with_all_that_settings_say() -> None:
    settings = RunSettings(
        pattern=("direct", "cot:shots=1"), tools=("calculator",), approve=("external=deny",), max_tokens=7,
        temperature=0.25, system="s", budget_tokens=1, budget_calls=2, budget_seconds=3.0, budget_usd=4.0, memory="notes",
    )  # fmt: skip
    models = [Scripted(["x"], name=f"scripted:{each}") for each in "mn"]
    made = make_agents(settings, models)
    assert [each.name for each in made] == [
        f"{pattern}@scripted:{model}" for model in "mn" for pattern in ("direct", "cot:shots=1")
    ]
    assert [each.model for each in made] == [models[0], models[0], models[1], models[1]]
    assert [each.options for each in made[:2]] == [{}, {"shots": 1}] and made[0].pattern is direct
    for each in made:
        assert each.sampling == Sampling(max_tokens=7, temperature=0.25) and each.system == "s" and each.guard is None
        assert each.limits == Limits(tokens=1, calls=2, seconds=3.0, cost_usd=4.0)
        assert each.approval == Approval({"external": "deny"}) and [own.name for own in each.own_tools] == [
            "calculator"
        ]
    assert len({id(each.memory) for each in made}) == 4 and made[0].memory is not None, "each has a memory of its own"
    (one,) = make_agents(replace(settings, pattern=("cot",), memory=None, guard=("redact:pattern=x",)), models[1:])
    assert (one.name, one.memory, len(one.guards)) == ("cot", None, 1) and one.pattern is cot
    assert open_models(RunSettings(model=("scripted:echo",)))[0].name == "scripted:echo"


def test_tools_are_opened_once_each_and_rules_are_for_one_of_them() -> None:
    assert [each.name for each in open_tools(("calculator",), ("calculator=ask", "write=deny"))] == ["calculator"]  # type: ignore[union-attr]
    assert open_tools(("none",)) == () == open_tools(())
    with pytest.raises(UnknownName, match=r"^no tool 'none';"):
        open_tools(("none", "calculator"))
    assert refusal(open_tools, ("calculator", "calculator")) == (
        "tools is calculator,calculator, which gives two tools named 'calculator': leave one out"
    )
    assert refusal(open_tools, ("calculator",), ("calculato=ask",)).startswith(
        "approve names 'calculato', no tool and no effect; did you mean 'calculator'? there are "
    )


def test_a_rule_for_a_tool_of_a_source_begins_with_the_sources_whole_name() -> None:
    (source,) = open_tools(("mcp:time",), ("time__now=ask", "time__=deny"))
    assert not hasattr(source, "effect")
    for rule in ("timer=ask", "time=ask", "time_now=ask", "mcp:time__now=ask"):
        name = rule.partition("=")[0]
        assert refusal(open_tools, ("mcp:time",), (rule,)).startswith(f"approve names {name!r}, no tool and no effect;")
    assert refusal(open_tools, ("mcp:time", "calculator"), ("times__now=ask",)).startswith("approve names 'times__now'")
    for texts, name in (
        (("mcp:time", "calculator", "mcp:time"), "mcp:time"),
        (("mcp:a", "mcp:b", "calculator", "mcp:b", "mcp:a"), "mcp:a"),
        (("calculator", "mcp:time", "calculator"), "calculator"),
    ):
        assert refusal(open_tools, texts) == (
            f"tools is {','.join(texts)}, which gives two tools named {name!r}: leave one out"
        )
    sources = open_tools(("mcp:b", "calculator", "mcp:a"), ("a__x=ask", "b__y=deny", "calculator=deny", "external=ask"))
    assert [source_name(each) for each in sources] == ["mcp:b", "calculator", "mcp:a"], "in the order of the names"


def test_a_replay_refuses_a_source_before_it_looks_at_the_run() -> None:
    settings = RunSettings(("arithmetic",), ("scripted:echo",), tools=("calculator", "mcp:time"), replay="nowhere")
    assert refusal(make_agents, settings) == (
        "a replay opens nothing, and mcp:time is opened for each attempt: leave it out"
    )


@tool(effect="external")
def send(text: str) -> str:
    """Send a text."""
    return text


def test_a_person_may_be_asked_where_a_rule_or_an_unknown_tool_says_so() -> None:
    def agent(approval: Approval | None = None, tools: Any = (send,)) -> Agent:
        return Agent("a", Scripted(["x"]), direct, {}, tools, approval=approval or Approval())

    assert not may_ask([agent()]) and not may_ask([]) and not may_ask([agent(ALLOW_ALL)])
    assert may_ask([agent(), agent(Approval({"send": "ask"}))]) and not may_ask([agent(Approval({"send": "deny"}))])
    unknown = agent(tools=(send, lambda: None))
    assert may_ask([unknown, agent()]) and may_ask([agent(), unknown]) and may_ask([agent(tools=(lambda: None,))])
    assert not may_ask([agent(tools=()), agent(tools=(send, send))])
    assert ALLOW_ALL.rules == dict.fromkeys(get_args(Effect), "allow")


def test_a_cluster_is_reached_by_its_address_and_its_workers_make_the_same_agents(home: Path) -> None:
    addresses = [address_of(RunSettings(on=each)) for each in (None, "ray", "ray:", "ray:host:6379")]
    assert addresses == [None, None, None, "host:6379"]
    worker = build_worker(
        RunSettings(("arithmetic", "game24"), ("scripted:echo",), pattern=("direct", "cot")).to_json()
    )
    assert list(worker.agents) == ["direct", "cot"] and list(worker.benchmarks) == ["arithmetic", "game24"]
    (home / "x").touch()
    plain = RunSettings(("arithmetic",), ("scripted:echo",), guard=(), memory=None)
    assert not uses_files(plain) and not uses_files(replace(plain, tools=(f"files:{home / 'x'}",)))
    for changes in (
        {"benchmarks": ("a:b=x",)},
        {"model": ("x",)},
        {"pattern": ("p(x)",)},
        {"tools": ("t: x ",)},
        {"guard": ("g:x",)},
        {"memory": "m:x,y"},
    ):
        assert uses_files(replace(plain, **changes))  # type: ignore[arg-type]


class Checker(Scripted):
    """A model whose endpoint has no field for what is named in `lacks`."""

    lacks: tuple[str, ...] = ()

    def check_request(self, sampling: Sampling, *, chats: bool = True, scores: bool = False) -> None:
        for what, asked in (
            ("chats", chats),
            ("scores", scores),
            ("text", not chats),
            ("system", sampling.top_p == 0.5),
        ):
            if asked and what in self.lacks:
                raise ConfigError(f"no {what}")


def test_what_an_agent_cannot_do_is_refused_whichever_agent_it_is() -> None:
    def ready(agents: Sequence[Agent], tasks: Sequence[Task], **parts: Any) -> str:
        benchmark = Benchmark("b", lambda seed: tasks, **{"scorers": (), **parts})
        try:
            check_ready(agents, [(benchmark, tasks)])
        except ConfigError as error:
            return str(error)
        return ""

    def refuse(task: Task, **options: Any) -> None:
        assert not task.secret, "patterns see the public task"
        if task.id == "bad":
            raise ConfigError("bad task")

    async def plain(task: Task, ctx: Any) -> str:
        return ""

    good, picky = Agent("good", Scripted(["x"]), plain), Agent("picky", Scripted(["x"]), checked(task=refuse)(plain))
    chat, text = Task("bad", "?", secret={"answer": "1"}), Task("t", "?", context="?")
    scored = Task("s", "?", choices=("a", "b"), context="?")
    assert ready([picky, good], [chat]) == ready([good, picky], [chat]) == "bad task" and ready([good], [chat]) == ""

    def unready() -> None:
        raise ConfigError("not here")

    broken = Agent("broken", Scripted(["x"]), plain, {}, (replace(send, ready=unready),))
    assert ready([good, broken], []) == "not here" == ready([broken, good], [])

    class Unready:
        ready = staticmethod(unready)

        def __call__(self, task: Any, trace: Any) -> Score:
            return Score("s", 1.0)

    assert ready([good], [chat], scorers=(Unready(),)) == "not here"
    kinds: dict[str, Any] = {
        "u": SimpleNamespace(ready=unready),
        "r": SimpleNamespace(ready=lambda: None),
        "n": object(),
    }
    for ids, told in (("u", "not here"), ("uu", "not here"), ("ur", ""), ("ru", ""), ("un", ""), ("", "")):
        assert ready([good], [Task(each, "?") for each in ids], environment=lambda task: kinds[task.id]) == told

    @checked(tools=("send", "find"))
    async def needy(task: Task, ctx: Any) -> str:
        return ""

    lacking = "needy needs the tool 'find', and the tools are {}: give it, as in --tools find"
    assert ready([Agent("a", Scripted(["x"]), needy, {}, (send,)), good], [chat]) == lacking.format("send")
    two = (send, replace(send, spec=replace(send.spec, name="add")))
    assert ready([Agent("a", Scripted(["x"]), needy, {}, two)], [chat]) == lacking.format("add, send")
    alone = Agent("a", Scripted(["x"]), needy, {}, ())
    assert ready([alone], [chat]) == lacking.format("none").replace("'find'", "'send'").replace(
        "tools find", "tools send"
    )
    source: Any = lambda: None  # noqa: E731
    assert ready([Agent("a", Scripted(["x"]), needy, {}, (send, source))], [chat]) == ""
    assert ready([Agent("a", Scripted(["x"]), needy)], [], environment=lambda task: object()) == ""

    following = checked(follows_protocol=True)(plain)

    def asked(lacks: str, tasks: Sequence[Task], pattern: Any = following, **sampling: Any) -> str:
        model = Checker(["x"])
        model.lacks = tuple(lacks.split())
        return ready([Agent("a", model, pattern, sampling=Sampling(**sampling)), good], tasks)

    easy = Task("easy", "?")
    assert asked("chats", [easy]) == "no chats" and asked("system", [easy], top_p=0.5) == "no system"
    assert asked("scores", [scored]) == "no scores" and asked("text", [text]) == "no text"
    assert asked("scores text", [scored, text]) == "no scores" and asked("scores text", [scored, easy]) == ""
    assert asked("text", [scored]) == "" and asked("scores", [text, scored]) == ""
    assert asked("text scores", [text, scored], plain) == "", "a pattern that does not follow the protocol"


def test_the_next_value_of_a_knob_lies_on_the_line_through_its_neighbours() -> None:
    for points, value in (
        ({8: 95}, None),
        ({8: 105}, None),
        ({8: 94.9}, 16),
        ({8: 105.1}, 4),
        ({1: 200}, None),
        ({1: 50}, 2),
        ({3: 200}, 1),
        ({4: 60, 8: 98}, None),
        ({4: 60, 8: 95}, None),
        ({4: 60, 8: 90}, 9),  # 4 + 40 / 7.5
        ({4: 60, 8: 150}, 5),  # 4 + 40 / 22.5
        ({4: 110, 8: 150}, 3),  # 4 - 10 / 10
        ({1: 110, 8: 150}, None),
        ({4: 60, 8: 60.01}, None),
        (
            {4: 60, 8: 60.2},
            64,
        ),  # it grows by more than a five-hundredth of its mean cost, to at most eight times the last
        ({1: 100 / 6, 2: 100 / 3}, 6),  # 1 + 5, and not the 5.999 of floats
        ({4: 60, 8: 59}, None),
        ({1: 10, 2: 11}, 16),
        ({64: 10, 100: 20}, 388),
        ({100: 10, 200: 11}, 512),
        ({300: 10, 512: 11}, None),
        ({4: 60, 5: 150}, None),
        ({4: 60, 6: 150}, 5),
        ({2: 30, 4: 60, 16: 150, 32: 300}, 9),
        ({4: 110, 8: 150, 16: 250}, 3),
        ({2: 20, 4: 40, 8: 50}, 28),
    ):
        assert next_value(points, 100) == value, points
    for points, value in (
        ({1: 50, 2: 100, 3: 105, 4: 106}, 3),
        ({1: 104.5, 3: 105}, 1),
        ({2: 99.0, 3: 100.0}, 2),
        ({2: 98.9, 3: 100.0}, 3),
        ({5: 105.0, 7: 105.1}, 5),
        ({7: 110.0, 5: 110.0, 6: 111.0}, 5),
        ({1: 103, 3: 105}, 3),
        ({4: 200, 2: 150, 3: 150}, 2),
    ):
        assert best_value(points, 100) == value


def test_each_knob_is_turned_until_it_meets_the_budget() -> None:
    asked: list[list[str]] = []

    async def measure(patterns: Sequence[str]) -> Mapping[str, float]:
        asked.append(list(patterns))
        costs = {"direct": lambda n: 20.0, "self_consistency": lambda n: 40.0 + 30 * n}
        found = {}
        for text in patterns:
            name, _, value = text.partition(":")
            default = 8
            found[text] = float(costs[name](int(value.partition("=")[2] or default)))  # type: ignore[no-untyped-call]
        return found

    budget, fitted = asyncio.run(equalise(["direct", "self_consistency"], 300, measure))
    assert budget == 300 and asked == [[f"self_consistency{each}"] for each in ("", ":samples=16", ":samples=9")]
    assert fitted == [
        Fitted("direct", None, None, None),
        Fitted("self_consistency:samples=9", "samples", 9, 310.0),
    ]
    asked.clear()
    budget, fitted = asyncio.run(equalise(["direct", "self_consistency"], None, measure))
    assert (budget, asked) == (280, [["direct", "self_consistency"]])
    assert fitted == [Fitted("direct", None, None, 20.0), Fitted("self_consistency:samples=8", "samples", 8, 280.0)]
    tried: list[int] = []

    async def cube(patterns: Sequence[str]) -> Mapping[str, float]:
        tried.append(int(patterns[0].partition("=")[2] or 8))
        return {patterns[0]: float(tried[-1] ** 3)}

    # it bends away from every line: at most five values after the default, here without coming within 5%
    assert asyncio.run(equalise(["self_consistency"], 1e6, cube))[1][0].tokens == 97**3
    assert tried == [8, 16, 128, 69, 91, 97]
    assert free_knob("react") == Knob("react", "max_steps", 6) and Knob("a:b=1", "n", 2).at(3) == "a:b=1:n=3"


def test_an_experiment_is_its_places_its_description_and_its_settings() -> None:
    agents = [Agent(name, Scripted(["x"]), direct) for name in ("a", "b")]
    own = Benchmark(
        "own", lambda seed: [Task(f"{seed}-{each}", "?") for each in "xyz"], (), protocol="as said", description="d"
    )
    experiment = Experiment(
        agents, [own, "arithmetic:levels=1:tasks=2"], epochs=2, seed=7, limit=2, concurrency=3, name="n"
    )
    places = [(p.benchmark.name, p.epoch, p.task.id, p.agent.name) for p in experiment.places()]
    assert places[:8] == [("own", epoch, f"7-{each}", agent) for epoch in (0, 1) for each in "xy" for agent in "ab"]
    assert len(places) == 16 and places[8][0] == "arithmetic"
    fields = {"epochs": 2, "seed": 7, "limit": 2, "concurrency": 3, "on": None, "workers": None, "name": "n"}
    assert experiment.config() == {"benchmarks": ["own", "arithmetic:levels=1:tasks=2"], "agents": ["a", "b"], **fields}
    assert experiment.protocols == {
        "own": "as said",
        "arithmetic": catalog.benchmark("arithmetic:levels=1:tasks=2").protocol,
    }
    assert experiment.figures == {} and not experiment.asks_person
    assert Experiment(agents, own).benchmarks == (own,) and Experiment(agents, "arithmetic").benchmarks == (
        "arithmetic",
    )
    settings = RunSettings(
        ("arithmetic:levels=1",), ("scripted:echo",), pattern=("direct", "cot"), epochs=2, seed=5, limit=4, concurrency=6,
        name="n",
    )  # fmt: skip
    made = Experiment.from_settings(settings)
    assert made.current_settings == settings and made.config() == settings.to_json()
    assert (made.epochs, made.seed, made.limit, made.concurrency, made.name) == (2, 5, 4, 6, "n")
    assert [each.name for each in made.agents] == ["direct", "cot"] and (made.where, made.workers) == (None, None)
    with made.create() as run:
        assert run.id.endswith("-n") or "-n-" in run.id
        assert run.config == json.loads(json.dumps(settings.to_json()))
    with replace(made, name=None).create() as run:
        assert "arithmetic" in run.id
    said = (
        "where is 'ray', and agents made in Python do not travel to a cluster: make them from names, as in "
        "Experiment.from_settings(RunSettings(..., on='ray'))"
    )
    assert refusal(Experiment, agents, "arithmetic", where="ray") == said
    assert refusal(Experiment, agents, "arithmetic", epochs=100_001) == (
        "epochs is 100001: the most is 100,000, each an attempt at every task"
    )
    assert refusal(Experiment, agents, "arithmetic", workers=1) == (
        "workers are those of a cluster: name it, as in where='ray'"
    )


def test_a_model_by_name_is_opened_on_the_device_and_with_the_weights_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def opened(name: str, **given: Any) -> SimpleNamespace:
        asked.append((name, given))
        return SimpleNamespace(name=name)

    monkeypatch.setattr(named_agents, "fetch_named", lambda name, *, shown: asked.append((name, shown)))
    monkeypatch.setattr(catalog, "model", opened)
    settings = RunSettings(("b",), ("m1", "m2"), device="cuda:1", weights="int8")
    found = open_models(settings, show_progress=True)
    given = {"device": "cuda:1", "weights": "int8"}
    assert [model.name for model in found] == ["m1", "m2"]
    assert asked == [("m1", True), ("m2", True), ("m1", given), ("m2", given)], "all are fetched before one is opened"
