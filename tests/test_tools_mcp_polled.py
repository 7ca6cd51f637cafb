"""A task of an MCP server that costs too much: its inputs, their keys, its id and its polls have bounds."""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.agent import Agent
from firsthand.errors import ToolError
from firsthand.loop.approval import Approval, Decision
from firsthand.loop.calling import caller
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.system.poll_pause import MAX_PAUSE_S, pause_s
from firsthand.task import Task
from firsthand.tool import tool_from_function
from firsthand.tools.mcp import remote_tasks
from firsthand.tools.mcp.connection import McpConnection
from firsthand.tools.mcp.remote_tasks import CreatedTask, TasksOfServer
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.server_requests import MAX_ROOTS, RequestAnswers
from mcp_questions import during_a_call, form

SERVER = ServerDeclaration("peer", command="x", roots=("/",))
ROOTS = {"method": "roots/list"}
DONE = {"status": "completed", "result": {"content": [{"type": "text", "text": "done"}]}}


def followed(*states: dict[str, Any], task: str = "t1") -> tuple[Any, list[str]]:
    """The result of a task whose server gives these states, or its error, and the methods that were sent."""
    left, sent = list(states), []

    async def send_request(request: Any, kind: Any) -> Any:
        sent.append(request.method)
        return kind() if kind is types.EmptyResult else kind.model_validate({"taskId": task, **left.pop(0)})

    async def main() -> Any:
        answers = RequestAnswers(SERVER, caller)
        created = CreatedTask.model_validate({"resultType": "task", "taskId": task, "pollIntervalMs": 1})
        context: Any = SimpleNamespace(session=SimpleNamespace(send_request=send_request))
        try:
            result: Any = await TasksOfServer(answers)._follow(created, context)
        except ToolError as error:
            result = str(error)
        await asyncio.gather(*answers._sending)
        return result

    return asyncio.run(main()), sent


def asks(*keys: str) -> dict[str, Any]:
    return {"status": "input_required", "pollIntervalMs": 1, "inputRequests": dict.fromkeys(keys, ROOTS)}


def test_a_task_asks_for_a_hundred_inputs_under_short_keys() -> None:
    keys = [f"{number:0256}" for number in range(100)]
    result, sent = followed(asks(*keys[:60]), asks(*keys), DONE)
    assert result.content[0].text == "done" and sent.count("tasks/update") == 2
    result, sent = followed(asks(*keys[:60]), asks(*keys[60:]), asks("one more"))
    assert result == "MCP server peer asked for more than 100 inputs in one task, which is the limit"
    assert sent[-1] == "tasks/cancel" and sent.count("tasks/update") == 2
    result, sent = followed(asks("k" * 257))
    assert result == "MCP server peer asked for an input under a key of more than 256 characters"
    assert sent == ["tasks/get", "tasks/cancel"]


def test_the_id_of_a_task_has_a_bound() -> None:
    assert followed(DONE, task="t" * 4_096)[0].content[0].text == "done"
    result, sent = followed(DONE, task="t" * 4_097)
    assert (result, sent) == ("MCP server peer gave a task an id of more than 4,096 characters", [])


def test_a_poll_leaves_four_fifths_of_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [pause_s(0.02, 0.001), pause_s(0.02, 0.5), pause_s(0.02, 60.0), pause_s(9.0, 60.0)] == [
        0.02, 2.0, MAX_PAUSE_S, 9.0,
    ]  # fmt: skip
    waits: list[float] = []
    clock = iter([1.0, 1.001, 2.0, 2.5])

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(remote_tasks, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(remote_tasks, "time", SimpleNamespace(thread_time=lambda: next(clock, 3.0)))
    followed({"status": "working", "pollIntervalMs": 30}, {"status": "working"}, DONE)
    assert waits == [0.03, 2.0]


def test_a_call_is_given_the_roots_a_hundred_times() -> None:
    async def work(answers: RequestAnswers) -> Any:
        return [await answers.roots(None) for _ in range(MAX_ROOTS + 1)]

    found, _ = during_a_call(work, SERVER)
    assert all(isinstance(each, types.ListRootsResult) for each in found[:-1])
    assert found[-1].message == "more than 100 lists of roots in one call"
    outside = asyncio.run(work(RequestAnswers(SERVER, lambda: None)))
    assert isinstance(outside[-1], types.ListRootsResult), "before any call they cost what the connection allows"


def test_what_a_server_asks_over_a_shared_connection_is_put_to_no_other_attempt() -> None:
    shared = ServerDeclaration("bank", command="x", shared=True)
    made = McpConnection(shared)
    shown: list[str] = []

    class Person:
        def __init__(self, who: str) -> None:
            self.who = who

        async def __call__(self, tool: Any, arguments: Any) -> Decision:
            raise AssertionError("a form is filled in")

        async def fill(self, tool: Any, message: str, fields: Any) -> Any:
            shown.append(self.who)
            return {"seat": self.who}

    def asked() -> asyncio.Task[Any]:
        """As the connection's own task asks, which belongs to no call."""
        return asyncio.create_task(made.answers.elicit(None, form()), context=contextvars.Context())

    async def main() -> list[Any]:
        found: list[Any] = []
        both = asyncio.Barrier(2)

        def agent(who: str) -> Agent:
            async def bank__pay() -> str:
                """Pays."""
                at = caller()
                assert at is not None
                made.calls.append(at)
                await both.wait()
                if who == "alice":
                    found.append(await asked())
                await both.wait()
                if who == "alice":
                    made.calls.remove(at)
                await both.wait()
                if who == "bob":
                    found.append(await asked())
                return "paid"

            async def pattern(task: Task, ctx: Any) -> str:
                return str((await ctx.call(ToolCall("1", "bank__pay", {}))).content)

            tool = tool_from_function(bank__pay, effect="read")
            return Agent("a", Scripted([]), pattern, tools=(tool,), approval=Approval(ask=Person(who)))

        await asyncio.gather(*(rollout(agent(who), Task(who, who)) for who in ("alice", "bob")))
        return found

    refused, given = asyncio.run(main())
    assert refused.message == (
        "elicitation is answered during a tool call only, and on a shared connection while one attempt is calling alone, as "
        "requests do not name the call that they belong to: declare the server with shared = false"
    )
    assert given.content == {"seat": "bob"} and shown == ["bob"]
