"""MCP tasks of both revisions: on the older wire too, kept in a file, and gone on with by the server after a stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import Client, MCPError

from firsthand.agent import Agent
from firsthand.message import ToolCall, assistant
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.serve.mcp.agent_offer import CallRecord, offer_agents
from firsthand.serve.mcp.benchmark_offer import offer_benchmarks
from firsthand.serve.mcp.exchange import Exchange
from firsthand.serve.mcp.mcp_server import McpServer, Offer
from firsthand.serve.mcp.older_tasks import RELATED
from firsthand.serve.mcp.served_tool import AsTask, ServedTool
from firsthand.serve.mcp.task_file import TaskFile
from firsthand.system.home import data_home
from firsthand.tool import tool_from_function
from firsthand.tools.mcp.remote_tasks import TaskParams, TaskRequest, TaskState
from mcp_task_client import KnowsTasks, answer, begun, raw, state_of

ASK = types.ElicitRequest(
    params=types.ElicitRequestFormParams(
        message="Which?", requested_schema={"type": "object", "properties": {"word": {"type": "string"}}}
    )
)
MOON = {"action": "accept", "content": {"word": "moon"}}
YES = {"action": "accept", "content": {"approve": True}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


class Asking:
    """A tool that asks for a word, and counts how often it was run."""

    def __init__(self, *, resumes: bool = True, as_task: AsTask = "may"):
        self.runs: list[tuple[str, str]] = []
        self.tool = ServedTool(
            "ask", "Asks.", {"type": "object", "properties": {"n": {"type": "integer"}}}, self._run,
            as_task=as_task, resumes=resumes,
        )  # fmt: skip

    async def _run(self, arguments: dict[str, Any], exchange: Exchange) -> str:
        self.runs.append((exchange.task, exchange.note))
        exchange.keep(f"run {len(self.runs)}")
        words = [((await exchange.ask("word", ASK)).content or {}).get("word") for _ in range(2)]
        return " ".join(map(str, words))


def served(
    offer: Offer,
    file: TaskFile | None,
    use: Callable[[Any, McpServer], Awaitable[Any]],
    mode: str = "auto",
    **client: Any,
) -> Any:
    """What `use` makes of a client of a server that went on with the tasks of a file, and was stopped after it."""

    async def main() -> Any:
        made = McpServer(offer, file)
        made.resume()
        try:
            async with Client(made.server, mode=mode, cache=None, **client) as connected:
                return await asyncio.wait_for(use(connected, made), 30)
        finally:
            await made.close()

    return asyncio.run(main())


async def wait_for(fact: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def moon(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult.model_validate(MOON)


NEW: dict[str, Any] = {"extensions": [KnowsTasks()], "elicitation_callback": moon}


# -- after a stop --


def test_the_next_server_goes_on_with_a_task_and_takes_no_answer_twice(tmp_path: Path) -> None:
    first, second = Asking(), Asking()

    async def begin(client: Any, made: McpServer) -> str:
        id = await begun(client, n=1)
        await wait_for(made.tasks.tasks[id].call.exchange.pending.__len__)
        await answer(client, id, word=MOON)
        await wait_for(lambda: "word+" in made.tasks.tasks[id].call.exchange.pending)
        return id

    async def finish(client: Any, made: McpServer) -> TaskState:
        await wait_for(made.tasks.tasks[id].call.exchange.pending.__len__)
        waiting = await state_of(client, id)
        assert waiting.status == "input_required" and list(waiting.input_requests or {}) == ["word+"]
        await answer(client, id, **{"word+": MOON})
        await wait_for(lambda: made.tasks.tasks[id].is_over)
        return await state_of(client, id)

    async def look(client: Any, made: McpServer) -> TaskState:
        assert made.tasks.tasks == {}
        return await state_of(client, id)

    id = served(Offer([first.tool]), TaskFile(tmp_path), begin, **NEW)
    found = served(Offer([second.tool]), TaskFile(tmp_path), finish, **NEW)
    assert found.status == "completed" and (found.result or {})["content"][0]["text"] == "moon moon"
    assert (first.runs, second.runs) == ([(id, "")], [(id, "run 1")])
    later = served(Offer([Asking().tool]), TaskFile(tmp_path), look, **NEW)
    assert (later.status, later.result) == ("completed", found.result)


def test_a_task_whose_tool_cannot_go_on_has_failed_after_a_stop(tmp_path: Path) -> None:
    async def begin(client: Any, made: McpServer) -> str:
        return await begun(client)

    async def look(client: Any, made: McpServer) -> TaskState:
        return await state_of(client, id)

    tool = Asking(resumes=False)
    id = served(Offer([tool.tool]), TaskFile(tmp_path), begin, **NEW)
    found = served(Offer([tool.tool]), TaskFile(tmp_path), look, **NEW)
    assert found.status == "failed" and "was stopped while ask ran" in (found.error or {})["message"]
    assert len(tool.runs) == 1


def test_a_cancelled_task_stays_cancelled_and_an_old_one_is_gone(tmp_path: Path) -> None:
    async def begin(client: Any, made: McpServer) -> str:
        id = await begun(client)
        await client.session.send_request(
            TaskRequest(method="tasks/cancel", params=TaskParams(taskId=id)), types.EmptyResult
        )
        return id

    async def look(client: Any, made: McpServer) -> TaskState:
        with pytest.raises(MCPError, match="there is no such task"):
            await state_of(client, "old")
        with pytest.raises(MCPError, match="there is no such task"):
            await state_of(client, "another's")
        return await state_of(client, id)

    id = served(Offer([Asking().tool]), TaskFile(tmp_path), begin, **NEW)
    file = TaskFile(tmp_path)
    row = file.find(id)
    assert row is not None
    file.add(replace(row, id="another's", owner="ann"))
    file.add(replace(row, id="old", expires=time.time() - 1))
    assert served(Offer([Asking().tool]), file, look, **NEW).status == "cancelled"


def test_an_agents_task_repeats_no_call_after_a_stop(tmp_path: Path) -> None:
    paid: list[int] = []

    def pay(amount: int) -> str:
        """Pay an amount."""
        paid.append(amount)
        return f"paid {amount}"

    def script(messages: Any, sampling: Any, index: int) -> Any:
        count = sum(message.role == "tool" for message in messages)
        return assistant("", ToolCall("c", "pay", {"amount": count + 1})) if count < 2 else "all is paid"

    tools = (tool_from_function(pay, effect="irreversible"),)
    agent = Agent("clerk", Scripted(script), react, {"native": True}, tools)

    async def begin(client: Any, made: McpServer) -> str:
        id = await begun(client, question="pay twice")
        await wait_for(made.tasks.tasks[id].call.exchange.pending.__len__)
        (key,) = made.tasks.tasks[id].call.exchange.pending
        await answer(client, id, **{key: YES})
        await wait_for(lambda: set(made.tasks.tasks[id].call.exchange.pending) - {key})
        return id

    async def finish(client: Any, made: McpServer) -> TaskState:
        await wait_for(made.tasks.tasks[id].call.exchange.pending.__len__)
        (key,) = made.tasks.tasks[id].call.exchange.pending
        await answer(client, id, **{key: YES})
        await wait_for(lambda: made.tasks.tasks[id].is_over)
        return await state_of(client, id)

    def ran(use: Any) -> Any:
        offer, record = Offer(), CallRecord(folder=tmp_path / "calls")
        offer_agents(offer, [agent], record)
        try:
            return served(offer, record.tasks, use, **NEW)
        finally:
            record.close()

    id = ran(begin)
    assert paid == [1]
    found = ran(finish)
    assert found.status == "completed" and (found.result or {})["content"][0]["text"] == "all is paid"
    assert paid == [1, 2]
    with store.open_run(tmp_path / "calls", data_home()) as run:
        (trace,) = run.traces()
        assert [call.kind for call in trace.calls].count("tool") == 2


def test_a_benchmark_goes_on_with_its_run_after_a_stop(tmp_path: Path) -> None:
    held, answered = [True], []

    async def guess(task: Any, ctx: Any) -> str:
        answered.append(task.id)
        while held[0] and len(answered) == 3:
            await asyncio.sleep(0.005)
        return "0"

    offer = Offer()
    offer_benchmarks(offer, ["arithmetic"], [Agent("guesser", Scripted([]), guess)])

    async def begin(client: Any, made: McpServer) -> str:
        id = await begun(client, "run_benchmark", benchmark="arithmetic", limit=3)
        await wait_for(lambda: made.tasks.tasks[id].call.exchange.status.startswith("2/3"))
        return id

    async def finish(client: Any, made: McpServer) -> TaskState:
        await wait_for(lambda: made.tasks.tasks[id].is_over)
        return await state_of(client, id)

    id = served(offer, TaskFile(tmp_path), begin, **NEW)
    held[0] = False
    found = served(offer, TaskFile(tmp_path), finish, **NEW)
    assert found.status == "completed" and len(store.list_runs(data_home())) == 1
    assert (found.result or {})["structuredContent"]["rows"][0]["attempts"] == 3 and len(answered) == 4


# -- the older wire --


def test_a_task_of_the_older_revision_is_polled_asked_and_answered(tmp_path: Path) -> None:
    heard: list[Any] = []

    async def decide(context: Any, params: Any) -> types.ElicitResult:
        heard.append((params.message, (params.meta or {}).get(RELATED)))
        return types.ElicitResult.model_validate(MOON)

    async def use(client: Any, made: McpServer) -> tuple[Any, ...]:
        declared = client.server_capabilities.tasks
        assert declared.cancel is not None and declared.requests.tools.call is not None
        (listed,) = (await client.list_tools()).tools
        created = (await raw(client, "tools/call", name="ask", arguments={"n": 1}, task={"ttl": 1000}))["task"]
        await wait_for(made.tasks.tasks[created["taskId"]].call.exchange.pending.__len__)
        waiting = await raw(client, "tasks/get", taskId=created["taskId"])
        result = await raw(client, "tasks/result", taskId=created["taskId"])
        return listed.execution.task_support, created, waiting, result, made.tasks.tasks[created["taskId"]].state()

    support, created, waiting, result, state = served(
        Offer([Asking().tool]), TaskFile(tmp_path), use, "legacy", elicitation_callback=decide
    )
    assert support == "optional" and created["status"] == "working" and created["ttl"] >= 1000
    assert waiting["status"] == "input_required" and waiting["pollInterval"] > 0
    about = {"taskId": created["taskId"]}
    assert result["content"][0]["text"] == "moon moon" and result["_meta"][RELATED] == about
    assert heard == [("Which?", about)] * 2 and state["status"] == "completed"


def test_the_older_revision_refuses_what_is_no_task_and_what_is_over(tmp_path: Path) -> None:
    quick = ServedTool("quick", "Quick.", {"type": "object"}, lambda arguments, exchange: None)  # type: ignore[arg-type, return-value]

    async def use(client: Any, made: McpServer) -> list[str]:
        said = []
        id = (await raw(client, "tools/call", name="ask", arguments={}, task={}))["task"]["taskId"]
        ended = await raw(client, "tasks/cancel", taskId=id)
        assert ended["status"] == "cancelled"
        for method, params in (
            ("tools/call", {"name": "quick", "arguments": {}, "task": {}}),
            ("tools/call", {"name": "none", "arguments": {}, "task": {}}),
            ("tools/call", {"name": "ask", "arguments": {"n": "x"}, "task": {}}),
            ("tasks/cancel", {"taskId": id}),
            ("tasks/result", {"taskId": id}),
            ("tasks/get", {"taskId": "none"}),
            ("tasks/update", {"taskId": id, "inputResponses": {}}),
        ):
            with pytest.raises(MCPError) as caught:
                await raw(client, method, **params)
            said.append(caught.value.error.message)
        return said

    said = served(Offer([Asking().tool, quick]), None, use, "legacy", elicitation_callback=moon)
    expected = ("becomes no task", "no tool 'none'", "cannot take", "is cancelled", "was cancelled", "no such task",
                "has no tasks/update")  # fmt: skip
    assert all(part in each for part, each in zip(expected, said, strict=True)), said


def test_a_task_of_the_older_revision_goes_on_after_a_stop(tmp_path: Path) -> None:
    async def begin(client: Any, made: McpServer) -> str:
        id = (await raw(client, "tools/call", name="ask", arguments={}, task={}))["task"]["taskId"]
        await wait_for(made.tasks.tasks[id].call.exchange.pending.__len__)
        return str(id)

    async def finish(client: Any, made: McpServer) -> Any:
        return await raw(client, "tasks/result", taskId=id)

    tool = Asking()
    id = served(Offer([tool.tool]), TaskFile(tmp_path), begin, "legacy", elicitation_callback=moon)
    found = served(Offer([tool.tool]), TaskFile(tmp_path), finish, "legacy", elicitation_callback=moon)
    assert found["content"][0]["text"] == "moon moon" and [task for task, _ in tool.runs] == [id, id]
