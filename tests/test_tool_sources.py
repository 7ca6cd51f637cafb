"""Tool sources are opened before an attempt and closed after it, whatever happens; here a server process over stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, Environment
from firsthand.cluster.spread.run_worker import Worker, attempt_message
from firsthand.context import Context
from firsthand.errors import ConfigError, ToolError
from firsthand.message import Json, ToolCall, ToolResult
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout, rollouts
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.tool_source import ToolSource, is_source, source_name
from firsthand.trace import Trace

TASKS = [Task(str(i), f"question {i}") for i in range(6)]

SERVER = """
import json, sys
tools, counts = ["echo"], 0
for line in sys.stdin:
    asked = json.loads(line)
    counts += 1
    if asked["tool"] == "learn":
        tools.append(asked["text"])
    if asked["tool"] == "unlearn":
        tools.remove(asked["text"])
    print(json.dumps({"text": asked["text"], "count": counts, "tools": tools}), flush=True)
"""


class Server:
    """A ToolSource: a process that answers lines of JSON, kept open between calls, and may come to know other tools."""

    live: list[Server] = []  # noqa: RUF012
    log: list[str] = []  # noqa: RUF012

    def __init__(self, name: str = "server", *, shared: bool = False, breaks: str = "", first: str = "echo"):
        self.name, self.shared, self.breaks, self.first = name, shared, breaks, first
        self.version = 0
        self.offered: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self.asking = asyncio.Lock()

    async def open(self) -> None:
        assert self.process is None, "it is open already"
        Server.log.append(f"open {self.name}")
        if self.breaks == "open":
            raise ToolError(f"{self.name} does not start")
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdin=pipe, stdout=pipe)
        Server.live.append(self)
        self.offered = [self.first, "learn", "unlearn"] if self.first == "echo" else [self.first]

    async def close(self) -> None:
        Server.log.append(f"close {self.name}")
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            await self.process.wait()
            self.process = None
            Server.live.remove(self)
        if self.breaks == "close":
            raise RuntimeError(f"{self.name} does not close")

    @property
    def tools(self) -> Sequence[Tool]:
        return [self.tool(name) for name in self.offered]

    def tool(self, name: str) -> Tool:
        @tool(effect="external", name=name)
        async def ask(text: str) -> str:
            """Ask the server."""
            answer = await self.ask(name, text)
            known = [self.first, "learn", "unlearn", *answer["tools"][1:]]
            if known != self.offered:
                self.offered, self.version = known, self.version + 1
            return f"{answer['text']} {answer['count']}"

        return ask

    async def ask(self, name: str, text: str) -> Json:
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        async with self.asking:
            self.process.stdin.write(json.dumps({"tool": name, "text": text}).encode() + b"\n")
            found: Json = json.loads(await self.process.stdout.readline())
        return found


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Any:
    Server.log.clear()
    yield
    assert Server.live == []


async def call(ctx: Context, name: str, text: str) -> ToolResult:
    return await ctx.call(ToolCall("1", name, {"text": text}))


async def twice(task: Task, ctx: Context) -> str:
    return " ".join([(await call(ctx, "echo", "a")).content, (await call(ctx, "echo", "b")).content])


def agent(*tools: Any, pattern: Any = twice) -> Agent:
    return Agent("a", Scripted(lambda *_: "fine"), pattern, tools=tools)


def attempt(*tools: Any, pattern: Any = twice, environment: Any = None) -> Trace:
    benchmark = Benchmark("b", lambda seed: TASKS, (), environment=environment)
    return asyncio.run(rollout(agent(*tools, pattern=pattern), TASKS[0], benchmark=benchmark))


def places_of(made: Agent) -> list[Place]:
    benchmark = Benchmark("b", lambda seed: TASKS, ())
    return [Place(made, benchmark, task) for task in TASKS]


async def all_of(made: Agent, concurrency: int) -> list[Trace]:
    return [trace async for trace in rollouts(places_of(made), concurrency=concurrency)]


def test_a_source_is_open_for_an_attempt_and_closed_after_it() -> None:
    trace = attempt(Server())
    assert trace.answer == "a 1 b 2" and Server.log == ["open server", "close server"]
    assert trace.agent["tools"] == ["server"]


@pytest.mark.slow
def test_what_makes_sources_gives_each_attempt_its_own() -> None:
    traces = asyncio.run(all_of(agent(Server), 4))
    assert [trace.answer for trace in traces] == ["a 1 b 2"] * 6
    assert Server.log.count("open server") == Server.log.count("close server") == 6


def test_a_shared_source_is_opened_once_for_a_run() -> None:
    traces = asyncio.run(all_of(agent(Server(shared=True)), 4))
    assert Server.log == ["open server", "close server"]
    counts = [int(word) for trace in traces for word in (trace.answer or "").split() if word.isdecimal()]
    assert sorted(counts) == list(range(1, 13))


def test_attempts_cannot_overlap_in_a_source_that_is_not_shared() -> None:
    with pytest.raises(ConfigError, match="several attempts would have server open"):
        asyncio.run(all_of(agent(Server()), 4))
    assert Server.log == []
    assert [trace.answer for trace in asyncio.run(all_of(agent(Server()), 1))] == ["a 1 b 2"] * 6


def test_a_source_is_known_by_its_name_and_what_has_none_by_its_class() -> None:
    class Nameless(Server):
        name = ""

        def __init__(self) -> None:
            super().__init__()
            self.name = ""

    assert [source_name(each) for each in (Server("mine"), Server, Nameless(), Nameless)] == [
        "mine", "Server", "Nameless", "Nameless",
    ]  # fmt: skip


def test_if_one_does_not_open_those_before_it_are_closed_and_the_error_is_the_attempts() -> None:
    trace = attempt(Server("first"), Server("second", breaks="open"), Server("third"))
    assert trace.error is not None and trace.error.message == "second does not start" and trace.calls == ()
    assert Server.log == ["open first", "open second", "close second", "close first"]


def test_if_one_does_not_close_the_others_are_closed() -> None:
    trace = attempt(Server("first"), Server("second", breaks="close", first="other"), pattern=says_nothing)
    assert trace.error is not None and "second does not close" in trace.error.message
    assert Server.log[-2:] == ["close second", "close first"]


async def says_nothing(task: Task, ctx: Context) -> str:
    return ""


def test_the_first_error_is_told_and_all_are_closed() -> None:
    async def fails(task: Task, ctx: Context) -> str:
        raise ValueError("the pattern failed")

    trace = attempt(Server("first"), Server("second", breaks="close", first="other"), pattern=fails)
    assert trace.error is not None and trace.error.message == "the pattern failed"
    assert Server.log[-2:] == ["close second", "close first"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_cancelled_attempt_closes_what_it_opened(shared: bool) -> None:
    waiting = asyncio.Event()

    async def waits(task: Task, ctx: Context) -> str:
        await call(ctx, "echo", "a")
        waiting.set()
        await asyncio.sleep(60)
        return ""

    async def cancelled() -> None:
        source: Any = Server(shared=True) if shared else Server
        running = asyncio.create_task(all_of(agent(source, pattern=waits), 3))
        await waiting.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    assert Server.log.count("open server") == Server.log.count("close server") >= 1


def test_a_shared_source_that_does_not_open_ends_the_run() -> None:
    with pytest.raises(ToolError, match="does not start"):
        asyncio.run(all_of(agent(Server(shared=True, breaks="open")), 4))
    assert Server.log == ["open server", "close server"]


def test_tools_that_a_source_changes_are_there_in_the_next_turn() -> None:
    async def learns(task: Task, ctx: Context) -> str:
        before = [each.name for each in ctx.tools]
        await call(ctx, "learn", "shout")
        after = [each.name for each in ctx.tools]
        found = (await call(ctx, "shout", "hey")).content
        await call(ctx, "unlearn", "shout")
        return f"{before} {after} {found} {(await call(ctx, 'shout', 'hey')).content[:24]}"

    trace = attempt(Server(), pattern=learns)
    names = ["echo", "learn", "unlearn"]
    assert trace.answer == f"{names} {['echo', 'learn', 'shout', 'unlearn']} hey 2 Error: no tool 'shout'; "
    changes = [event.data for event in trace.events if event.kind == "tools_changed"]
    assert changes == [{"added": ["shout"], "removed": []}, {"added": [], "removed": ["shout"]}]


@tool(effect="read")
def echo(text: str) -> str:
    """Give the text back."""
    return text


class World:
    """An Environment."""

    name = "world"
    tools = (echo,)

    async def open(self) -> None:
        Server.log.append("open world")

    async def final_state(self) -> Json:
        return {}

    async def close(self) -> None:
        Server.log.append("close world")


def test_two_sources_with_one_tool_name_are_an_error_that_names_both() -> None:
    trace = attempt(Server("first"), Server("second"))
    assert trace.error is not None and trace.error.kind == "ConfigError"
    assert "first and second both offer a tool 'echo'" in trace.error.message
    assert Server.log == ["open first", "open second", "close second", "close first"]
    trace = attempt(Server("first"), environment=lambda task: World())
    assert trace.error is not None and "first and world both offer a tool 'echo'" in trace.error.message
    trace = attempt(echo, Server("first"))
    assert trace.error is not None and "the agent has a tool 'echo', and first offers one too" in trace.error.message


def test_an_environment_is_a_source_whose_tools_stand_before_the_agents_own() -> None:
    world: Environment = World()
    source: ToolSource = world
    assert is_source(source)

    @tool(effect="read", name="echo")
    def other(text: str) -> str:
        """Give something else back."""
        return "other"

    assert attempt(other, environment=lambda task: World()).answer == "a b"
    assert Server.log == ["open world", "close world"]


def test_a_worker_opens_shared_sources_once_and_closes_them() -> None:
    async def work() -> list[Json]:
        made = agent(Server(shared=True))
        worker = Worker([made], [Benchmark("b", lambda seed: TASKS, ())])
        said = await worker.exchange([attempt_message(place, 0, []) for place in places_of(made)])
        while sum(each["kind"] == "trace" for each in said) < 6:
            kept = max((each["number"] for each in said if each["kind"] == "record"), default=0)
            said += await worker.exchange([{"kind": "kept", "upto": kept}])
        await worker.close()
        return said

    traces = [each["trace"] for each in asyncio.run(work()) if each["kind"] == "trace"]
    assert len(traces) == 6 and all(trace["error"] is None for trace in traces)
    assert Server.log == ["open server", "close server"]


def test_what_is_neither_tool_nor_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="'calculator' among its tools"):
        agent("calculator")
