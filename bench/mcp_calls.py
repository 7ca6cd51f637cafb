"""Tool calls over MCP: an agent's call beside the SDK's bare client, and 1,000 tools listed without a longer prompt.

    python bench/mcp_calls.py --calls 300 --rounds 5

One server, started over stdio, answers `echo` at once. The bare client is the SDK's `Client` over its own stdio transport;
ours is `ctx.call` of an attempt: validated, approved, journalled, recorded, and the same call on the wire. Rounds alternate,
and the table holds the median of the rounds with their range. The bar is 1.5 times the bare client. (The file is not called
mcp.py, which would stand in the way of the SDK's package.)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mcp import Client, StdioServerParameters

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration

SERVER = """
import asyncio, sys
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
import mcp_types as types

TEXT = {"type": "string", "description": "What to repeat."}
SCHEMA = {"type": "object", "properties": {"text": TEXT}, "required": ["text"]}
COUNT = int(sys.argv[1])

async def tools(ctx, params):
    names = ["echo", *(f"tool_{i:04}" for i in range(COUNT - 1))]
    found = [types.Tool(name=name, description=f"Repeats, as {name}.", input_schema=SCHEMA) for name in names]
    return types.ListToolsResult(tools=found)

async def call(ctx, params):
    return types.CallToolResult(content=[types.TextContent(type="text", text=params.arguments["text"])])

async def main():
    server = Server("bench", on_list_tools=tools, on_call_tool=call)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

asyncio.run(main())
"""


async def bare(path: Path, calls: int) -> float:
    """Milliseconds per call of the SDK's client."""
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    server = StdioServerParameters(command=sys.executable, args=[str(path), "1"], env=environment)
    async with Client(server) as client:
        await client.list_tools()
        for _ in range(20):
            await client.call_tool("echo", {"text": "hello"})
        began = time.perf_counter()
        for _ in range(calls):
            await client.call_tool("echo", {"text": "hello"})
        return (time.perf_counter() - began) / calls * 1000


def declared(path: Path, tools: int) -> ServerDeclaration:
    """The server, as an agent's."""
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return ServerDeclaration("bench", command=sys.executable, args=(str(path), str(tools)), env=environment)


async def ours(path: Path, calls: int) -> float:
    """Milliseconds per call of an attempt."""
    found: list[float] = []

    async def call_often(task: Task, ctx: Context) -> str:
        for _ in range(20):
            await ctx.call(ToolCall("c", "bench__echo", {"text": "hello"}))
        began = time.perf_counter()
        for _ in range(calls):
            await ctx.call(ToolCall("c", "bench__echo", {"text": "hello"}))
        found.append((time.perf_counter() - began) / calls * 1000)
        return "done"

    agent = Agent("bench", Scripted([]), call_often, tools=(RemoteTools(declared(path, 1)),))
    trace = await rollout(agent, Task("1", "bench"))
    assert trace.error is None and all(call.error is None for call in trace.calls), trace.error
    return found[0]


async def listed(path: Path, tools: int) -> dict[str, float]:
    """Seconds to open a server of many tools, and characters of what the prompt then holds of them."""
    source = RemoteTools(declared(path, tools))
    began = time.perf_counter()
    try:
        await source.open()
        open_s = time.perf_counter() - began
        began = time.perf_counter()
        await source.tools[-1]({"query": "tool 0123", "most": 5})
        search_ms = (time.perf_counter() - began) * 1000

        def size(offered: object) -> int:
            return sum(len(json.dumps(tool.spec.to_json())) for tool in offered)  # type: ignore[attr-defined]

        return {
            "tools": tools,
            "open_s": open_s,
            "search_ms": search_ms,
            "all_chars": size(source._all.values()),
            "offered_chars": size(source.tools),
            "offered": len(source.tools),
        }
    finally:
        await source.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FIRSTHAND_HOME"] = folder
        path = Path(folder) / "server.py"
        path.write_text(SERVER, encoding="utf-8")
        rounds = [
            (asyncio.run(bare(path, given.calls)), asyncio.run(ours(path, given.calls))) for _ in range(given.rounds)
        ]
        many = asyncio.run(listed(path, given.tools))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| client | ms per call, median of rounds | range |\n|---|---|---|")
    for name, column in (("the SDK's, bare", 0), ("an agent's", 1)):
        values = [each[column] for each in rounds]
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |")
    ratio = statistics.median(each[1] / each[0] for each in rounds)
    print(f"ratio {ratio:.2f}, the bar is 1.5")
    print(
        f"{many['tools']} tools: opened in {many['open_s']:.2f} s, searched in {many['search_ms']:.1f} ms; the prompt holds "
        f"{many['offered']} of them, {many['offered_chars']:,} of {many['all_chars']:,} characters"
    )


if __name__ == "__main__":
    main()
