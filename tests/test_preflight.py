"""What cannot work is refused before a run is made: impossible options, missing tools, no sandbox, unsuitable tasks."""

from __future__ import annotations

import asyncio
import functools
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task, catalog
from firsthand.benchmarks.swe.swe_environment import Checkout
from firsthand.cli import main
from firsthand.context import Context
from firsthand.errors import ConfigError, SandboxError
from firsthand.experiment.preflight import check_ready, tasks_of
from firsthand.loop.pattern_options import MAX_NESTED, check_options, checked, tools_needed
from firsthand.message import ToolCall
from firsthand.model import Sampling
from firsthand.patterns.code_act import code_act
from firsthand.patterns.self_consistency import self_consistency
from firsthand.patterns.tot import tot
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.sandbox import sandbox
from firsthand.scorers.code import passes_tests
from firsthand.scorers.resolved import TaskWorkplaces
from firsthand.tool import tool
from firsthand.tools.python import python


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("script.json").write_text(json.dumps({"": "```python\nprint(1)\n```"}))
    return tmp_path / "home"


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    # another test's warm workers, which need no bwrap any more, stay out
    monkeypatch.setattr(sandbox, "_shared", functools.cache(sandbox._shared.__wrapped__))


def refused(*words: str) -> str:
    """Run a command that must be refused; returns the runs that it left behind all the same."""
    assert main(["run", "arithmetic", "--limit", "2", "--model", "scripted:script.json", *words]) in (1, 2)
    return ",".join(path.name for path in Path("home/runs").glob("2*")) if Path("home/runs").exists() else ""


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("self_consistency:samples=0", "samples is 0"),
        ("self_consistency:temperature=-1", "temperature is -1"),
        ("self_consistency(tot:breadth=0)", "breadth is 0"),
        ("tot:breadth=0", "breadth is 0"),
        ("tot:samples=-3", "samples is -3"),
        ("tot:judgements=0", "judgements is 0"),
        ("tot:temperature=nan", "temperature"),
        ("tot_dfs:visits=0", "visits is 0"),
        ("tot_dfs:per_state=0", "per_state is 0"),
        ("parallel:n=0", "n is 0"),
        ("parallel:threshold=1.5", "threshold 1.5"),
        ("parallel:temperature=-1", "temperature is -1"),
        ("reflexion:trials=0", "trials is 0"),
        ("reflexion:memory=0", "memory 0"),
        ("react:max_steps=0", "max_steps is 0"),
        ("react:native=true:constrained=true", "constrained is for actions in text"),
        ("react_cot:samples=0", "samples is 0"),
        ("react_cot:max_steps=-1", "max_steps is -1"),
        ("code_act:max_steps=0", "max_steps is 0"),
        ("plan_execute:max_steps=0", "max_steps is 0"),
        ("plan_execute:replans=-1", "replans -1"),
        ("orchestrate:workers=0", "workers 0"),
        ("orchestrate:workers=99:rounds=99", "no more than 256"),
        ("evaluator_optimizer:rounds=-1", "rounds is -1"),
        ("reply:max_steps=0", "max_steps is 0"),
        ("cot:shots=-1", "shots is -1"),
        ("cot:shots=2:extract=true", "leave one of the two out"),
        ("judge:reasoning_tokens=0", "reasoning_tokens is 0"),
        ("judge:max_chars=1", "max_chars is 1"),
        ("cot:shots=2", "carries 0 examples"),
        ("self_consistency:shots=2", "carries 0 examples"),
        ("plan_execute(cot:shots=2)", "carries 0 examples"),
        ("judge", "nothing to judge"),
        ("inspect_solver", "no sample of an Inspect task"),
        ("code_act", "code_act needs the tool 'python', and the tools are calculator"),
        ("plan_execute(code_act)", "code_act needs the tool 'python'"),
    ],
)
def test_an_impossible_option_or_need_is_refused_at_the_start(
    pattern: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused("--pattern", pattern) == ""
    assert says in capsys.readouterr().err


def test_every_number_that_a_pattern_takes_is_checked() -> None:
    """A pattern of the package with a whole-number option has checks, so that a new one is not forgotten."""
    import inspect

    for name in catalog.names("pattern"):
        function = catalog.find("pattern", name)
        parameters = inspect.signature(function).parameters.values()
        numbers = [p.name for p in parameters if type(p.default) is int and p.name != "shots"]
        needed = {p.name: "nowhere" for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
        for option in numbers:
            with pytest.raises(ConfigError, match=option):
                Agent("a", Scripted(), function, {**needed, option: -5})


def test_an_agent_made_in_python_is_refused_when_it_is_made_and_so_is_a_direct_call() -> None:
    with pytest.raises(ConfigError, match="breadth is 0"):
        Agent("a", Scripted(), partial(self_consistency, pattern=partial(tot, breadth=0)))

    async def own(task: Task, ctx: Context) -> str:
        return await tot(task, ctx, breadth=0)

    trace = asyncio.run(rollout(Agent("a", Scripted(["x"]), own), Task("1", "?")))
    assert trace.error is not None and trace.error.message == "breadth is 0: give 1 or more" and trace.calls == ()


def test_a_pattern_of_ones_own_may_bring_checks() -> None:
    def check(*, share: float) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"share is {share:g}: give 0 to 1")

    @checked(check, tools=("sql",))
    async def mine(task: Task, ctx: Context, *, share: float = 2.0) -> str:
        return ""

    with pytest.raises(ConfigError, match="share is 2"):
        Agent("a", Scripted(), mine)
    assert Agent("a", Scripted(), mine, {"share": 0.5}).to_json()["pattern"] == "mine"
    assert tools_needed(partial(self_consistency, pattern=mine), {}) == {"sql": "mine"}


def test_a_pattern_that_leads_itself_is_checked_down_to_a_depth_and_no_further() -> None:
    seen: list[int] = []

    @checked(lambda **given: seen.append(1))
    async def circle(task: Task, ctx: Context, *, pattern: Any = None) -> str:
        return ""

    circle.__wrapped__.__kwdefaults__ = {"pattern": circle}  # type: ignore[attr-defined]
    check_options(circle, {})
    assert len(seen) == 1 + MAX_NESTED


# -- the sandbox --


@pytest.mark.parametrize(
    "words", [("--pattern", "code_act", "--tools", "python"), ("--pattern", "react", "--tools", "shell")]
)
@pytest.mark.usefixtures("no_sandbox")
def test_without_a_sandbox_its_tools_are_refused_before_the_run(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(*words) == ""
    assert "untrusted code is not run without a sandbox" in capsys.readouterr().err


@pytest.mark.usefixtures("no_sandbox")
def test_without_a_sandbox_a_benchmark_that_tests_code_is_refused_before_the_model_is_asked(home: Path) -> None:
    model = Scripted(lambda *_: "x")
    benchmark = Benchmark("b", lambda seed: [Task("1", "?")], (passes_tests,))
    with pytest.raises(SandboxError, match="without a sandbox"):
        Experiment([Agent("a", model, tot)], benchmark).run()
    assert model.asked == [] and not (home / "runs").exists()


@pytest.mark.usefixtures("no_sandbox")
def test_a_sandbox_that_goes_missing_is_an_error_of_the_attempt_and_no_answer_to_the_model() -> None:
    model = Scripted({"": "```python\nprint(1)\n```"})
    trace = asyncio.run(rollout(Agent("a", model, code_act, {}, (python,)), Task("1", "?")))
    assert trace.error is not None and trace.error.kind == "SandboxError" and len(model.asked) == 1
    assert trace.scores == () and trace.stop_reason == "error"


@pytest.mark.parametrize("blocking", [True, False])
def test_a_tool_whose_sandbox_breaks_ends_the_attempt(blocking: bool) -> None:
    async def breaks() -> str:
        """Break."""
        raise SandboxError("gone")

    def breaks_in_thread() -> str:
        """Break."""
        raise SandboxError("gone")

    made: Any = tool(effect="read", name="breaks")(breaks_in_thread if blocking else breaks)

    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.call(ToolCall("1", "breaks", {}))).content

    trace = asyncio.run(rollout(Agent("a", Scripted(), pattern, {}, (made,)), Task("1", "?")))
    assert trace.error is not None and trace.error.message == "gone"


def test_of_several_tasks_that_cannot_be_attempted_the_first_is_told_and_one_that_can_is_enough() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return task.id

    def refuse(task: Task) -> None:
        if task.id != "good":
            raise ConfigError(f"{task.id} is refused")

    agent = Agent("a", Scripted(), checked(task=refuse)(pattern))
    for ids, told in ((("one", "two"), "one"), (("one", "good"), ""), (("good", "two"), ""), ((), "")):
        benchmark = Benchmark("b", lambda seed, ids=ids: [Task(id, "?") for id in ids], ())  # type: ignore[misc]
        if told:
            with pytest.raises(ConfigError, match=f"^{told} is refused"):
                check_ready([agent], [(benchmark, benchmark.tasks(0))])
        else:
            check_ready([agent], [(benchmark, benchmark.tasks(0))])


def test_every_agent_is_checked_against_every_benchmark_after_its_scorers_and_environments() -> None:
    asked: list[Any] = []
    broken: set[Any] = set()

    def ask(*what: Any) -> None:
        asked.append(what)
        if what in broken:
            raise ConfigError(f"{what} is refused")

    class Ready:
        def __init__(self, name: str):
            self.name, self.ready = name, lambda: ask(name)

    class Checked(Scripted):
        def check_request(self, sampling: Sampling, *, chats: bool = True, scores: bool = False) -> None:
            ask(self.name, sampling.temperature, chats, scores)

    def agent(name: str, temperature: float, *, follows: bool) -> Agent:
        @tool(effect="read", name=f"tool_{name}", ready=lambda: ask(f"tool_{name}"))
        def made() -> str:
            """Do."""
            return ""

        @tool(effect="read", name="plain")
        def plain() -> str:
            """Do."""
            return ""

        async def pattern(task: Task, ctx: Context) -> str:
            return ""

        mine = checked(task=lambda task: ask(name, task.id), follows_protocol=follows)(pattern)
        return Agent(name, Checked(name=f"scripted_{name}"), mine, {}, (plain, made), Sampling(temperature=temperature))

    def check() -> tuple[list[Any], str]:
        asked.clear()
        try:
            check_ready([ada, bob], [(one, tasks), (two, tasks[:1])])
        except ConfigError as error:
            return list(asked), str(error)
        return list(asked), ""

    ada, bob = agent("ada", 0.25, follows=False), agent("bob", 0.5, follows=True)
    plain_text = Task("1", "?", context="text", choices=("a", "b"))
    tasks = [plain_text, Task("2", "?", context="text"), Task("3", "?")]
    scorers: Any = (lambda *given: None, Ready("scorer"), Ready("last"))
    one = Benchmark("one", lambda seed: tasks, scorers)
    two: Any = Benchmark("two", lambda seed: tasks, (), environment=lambda task: Ready(f"place {task.id}"))
    whole = [
        ("tool_ada",), ("tool_bob",), ("scorer",), ("last",),
        ("scripted_ada", 0.25, True, False), ("ada", "1"),
        ("scripted_bob", 0.5, True, False), ("scripted_bob", 0.5, True, True), ("bob", "1"),
        ("place 1",),
        ("scripted_ada", 0.25, True, False), ("ada", "1"),
        ("scripted_bob", 0.5, True, False), ("scripted_bob", 0.5, True, True), ("bob", "1"),
    ]  # fmt: skip
    assert check() == (whole, "")
    for last in ("tool_bob", "scorer", "last", "place 1"):
        broken = {(last,)}
        assert check() == (whole[: whole.index((last,)) + 1], f"{(last,)} is refused")
    broken = {("ada", "1"), ("scripted_bob", 0.5, True, True)}
    found, told = check()
    assert found[4:12] == [
        *whole[4:6], ("ada", "2"), *whole[6:8], ("scripted_bob", 0.5, False, False), ("bob", "1"), ("place 1",),
    ] and told == "('ada', '1') is refused", "of the first benchmark another task will do, of the second none"  # fmt: skip
    broken = {(name, task.id) for name in ("bob",) for task in tasks}
    assert check() == ([*whole[:9], ("bob", "2"), ("bob", "3")], "('bob', '1') is refused"), "the first is enough"


def test_what_is_missing_is_told_of_the_first_task_and_one_that_can_be_opened_is_enough() -> None:
    def refuse(*words: object) -> None:
        raise ConfigError(" ".join(map(str, words)))

    class Place:
        def __init__(self, id: str):
            if id != "bare":
                self.ready = lambda: refuse(id) if id != "good" else None

    class Picky(Scripted):
        def check_request(self, sampling: Sampling, *, chats: bool = True, scores: bool = False) -> None:
            if not chats or scores:
                refuse(chats, scores)

    def named(name: str, ready: Any = None) -> Any:
        def function() -> str:
            """Do."""
            return ""

        return tool(effect="read", name=name, ready=ready)(function)

    seen: list[Task] = []

    async def pattern(task: Task, ctx: Context) -> str:
        return ""

    def told(agents: list[Agent], *tasks: Task, **more: Any) -> str:
        try:
            check_ready(agents, [(Benchmark("b", lambda seed: tasks, (), **more), tasks)])
        except ConfigError as error:
            return str(error)
        return ""

    def places(*ids: str) -> str:
        return told([], *(Task(id, "?") for id in ids), environment=lambda task: Place(task.id))

    assert [places("a", "c"), places("a", "good", "c"), places("bare", "c"), places()] == ["a", "", "", ""]
    assert places("a", "bare", "c") == ""
    mine = checked(task=seen.append, tools=("sql",), follows_protocol=True)(pattern)
    plain, scored = Task("1", "?", context="c"), Task("2", "?", context="c", choices=("a", "b"))
    led = partial(self_consistency, pattern=mine)
    for by in (mine, led):
        picky = Agent("p", Picky(), by, {}, (named("sql"),))
        assert told([picky], plain, scored) == "False False" and told([picky], scored, plain) == "True True"
        assert told([picky], plain, Task("3", "?")) == ""
    led_by_option = Agent("p", Picky(), self_consistency, {"pattern": mine}, (named("sql"),))
    assert told([led_by_option], plain) == "False False"
    secret = Task("s", "?", secret={"a": 1})
    seen.clear()
    assert told([Agent("p", Scripted(), mine, {}, (named("sql"),))], secret) == ""
    assert seen == [secret.public()] != [secret]
    lacking = Agent("l", Scripted(), mine, {}, (named("b"), named("a")))
    said = "pattern needs the tool 'sql', and the tools are a, b: give it, as in --tools sql"
    assert told([lacking], secret) == said
    assert told([Agent("l", Scripted(), mine)], secret) == said.replace("a, b", "none")
    assert told([lacking], secret, environment=lambda task: Place("good")) == ""
    assert told([Agent("l", Scripted(), mine, {}, (named("a"), lambda: None))], secret) == "", "a source may bring it"
    late = named("late", lambda: refuse("late"))
    assert told([Agent("l", Scripted(), pattern, {}, (named("x", lambda: None), late))]) == "late"


def test_a_task_whose_image_nothing_here_runs_is_refused_before_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    places = TaskWorkplaces()
    with_image = Task("1", "?", metadata={"image": "x/y:latest"})
    benchmark = Benchmark("b", lambda seed: [with_image], (), environment=lambda task: Checkout(task, places))
    with pytest.raises(SandboxError, match="neither docker nor podman"):
        Experiment([Agent("a", Scripted(lambda *_: "x"), tot)], benchmark).run()
    assert not (home / "runs").exists()
    in_sandbox = Task("2", "?", metadata={"repo": "r", "base_commit": "c"})
    check_ready([], [(benchmark, [with_image, in_sandbox])])  # one that can be opened is enough
    TaskWorkplaces(engine="/usr/bin/podman").ready(with_image)


async def no_tasks(seed: int) -> list[Task]:
    return []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tasks": [Task("t", "q")]}, "has a list as tasks: give a function"),
        ({"tasks": no_tasks}, "has an async function as tasks"),
        ({"tasks": lambda: [Task("t", "q")]}, r"take no seed: write the function as def tasks\(seed\)"),
        ({"scorers": passes_tests}, r"as scorers: give a tuple of them, as in scorers=\(exact,\)"),
        ({"scorers": ("exact",)}, "has 'exact' in scorers: a function was expected"),
        ({"figures": 1}, "has 1 in figures"),
        ({"environment": "docker"}, "has 'docker' in environment"),
        ({"name": 3}, "the name of a benchmark is 3"),
    ],
)
def test_a_benchmark_of_another_form_is_refused_where_it_is_made(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Benchmark(**{"name": "b", "tasks": lambda seed: [Task("t", "q")], "scorers": (), **fields})


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        (lambda seed: None, "are a NoneType: return a list of them"),
        (lambda seed: no_tasks(seed), "are a coroutine"),
        (lambda seed: {"t": Task("t", "q")}, "are a dict"),
        (lambda seed: "tasks", "are a str"),
        (lambda seed: [{"id": "t"}], "have {'id': 't'}: make each as Task"),
        (lambda seed: (Task("t", "q"), "t"), "have 't': make each"),
        (lambda seed: [Task(1, "q")], "one whose id is 1: a text"),  # type: ignore[arg-type]
        (lambda seed: [Task("t", 5)], "one whose prompt is 5"),  # type: ignore[arg-type]
        (lambda seed: 1 / 0, "cannot be made: ZeroDivisionError: division by zero"),
        (lambda seed: iter([]), "has no tasks"),
    ],
)
def test_tasks_of_another_form_are_refused_in_a_sentence(tasks: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tasks_of(Benchmark("b", tasks, ()), 0)


def test_tasks_may_be_a_generators_and_a_lists_and_a_sequence_that_makes_them_stays_as_it_is() -> None:
    class Made:
        def __len__(self) -> int:
            return 10**12

        def __getitem__(self, index: int) -> Task:
            return Task(f"t{index}", "q")

    def generated(seed: int) -> Any:
        yield Task(f"t{seed}", "q")

    assert tasks_of(Benchmark("b", generated, [passes_tests]), 7) == (Task("t7", "q"),)  # type: ignore[arg-type]
    judge: Any = type("Judge", (), {"judged": lambda *given: 1.0})()
    assert Benchmark("b", generated, (judge,)).scorers == (judge,)
    lazy = Made()
    assert tasks_of(Benchmark("b", lambda seed: lazy, ()), 0) is lazy  # type: ignore[arg-type, return-value]
    assert len(Benchmark("b", functools.partial(lambda n, seed: [n], 1), ()).tasks(0)) == 1  # type: ignore[list-item]


@pytest.mark.parametrize("place", ["files:.", "files:data", "files:data/..", "files:data:write=true"])
def test_an_agent_whose_tools_read_the_answers_of_its_benchmark_is_refused(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data").mkdir()
    Path("docs").mkdir()
    Path("data/rows.jsonl").write_text(json.dumps({"question": "Which?", "answer": "blue"}) + "\n")
    Path("data/shown.jsonl").write_text(json.dumps({"question": "What?", "answer": "red"}) + "\n")
    Path("mine.toml").write_text(
        'data = "data/rows.jsonl"\nexamples = "data/shown.jsonl"\nshots = 1\nprompt = "{question}"\ntarget = "{answer}"\n'
    )
    made = catalog.benchmark("mine.toml")
    assert made.files == (Path("data/rows.jsonl"), Path("data/shown.jsonl"))
    words = ["run", "mine.toml", "--model", "scripted:script.json", "--pattern", "react"]
    assert main([*words, "--tools", place]) == 2
    said = capsys.readouterr().err
    assert "list_files of react reads rows.jsonl, the data of mine with its answers, in " in said
    assert "give it a place without that file" in said and not list(tmp_path.glob("home/runs/2*"))
    assert main([*words, "--tools", "files:docs,calculator"]) == 0
