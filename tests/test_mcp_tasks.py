"""MCP tasks of both revisions: on the older wire too, kept in a file, and gone on with by the server after a stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
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
from firsthand.serve.mcp.served_tool import AsTask, ServedTool, text_result
from firsthand.serve.mcp.task_file import TaskFile, TaskRow
from firsthand.system.home import data_home
from firsthand.tool import tool_from_function
from firsthand.tools.mcp.remote_tasks import TASKS, TaskParams, TaskRequest, TaskState, UpdateParams, UpdateRequest
from served import until

ASK = types.ElicitRequest(
    params=types.ElicitRequestFormParams(
        message="Which?", requested_schema={"type": "object", "properties": {"word": {"type": "string"}}}
    )
)
MOON = {"action": "accept", "content": {"word": "moon"}}
KNOWS_TASKS = {"extensions": {TASKS: {}}, "elicitation": {"form": {}}}


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
    offer: Offer, file: TaskFile | None, use: Callable[[Any, McpServer], Awaitable[Any]], mode: str = "auto", **client: Any
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


class Wire:
    """A client's requests about tasks as they stand on the wire of a revision."""

    def __init__(self, client: Any):
        self.session = client.session

    async def send(self, method: str, kind: type[Any] = TaskState, **params: Any) -> Any:
        request = types.Request[Any, str](method=method, params=params)
        return await self.session.send_request(request, kind)
