"""MCP between programs of different makers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.errors import MissingExtra

CLAIM = Claim(
    quote="MCP (Model Context Protocol): Anthropic's open standard for agent↔tool communication — like USB for AI tools",
    source="modelcontextprotocol.io",
    kind="ours",
    cost_s=8,
    needs=("extra mcp", "extra inspect"),
)
SERVER = ("-P", "-m", "firsthand", "mcp", "--tools", "calculator")
SUM = {"expression": "6*7"}
FOREIGN = (
    "from mcp.server.mcpserver import MCPServer\n"
    "server = MCPServer('foreign')\n"
    "@server.tool()\n"
    "def times(a: int, b: int) -> int:\n"
    "    'The product.'\n"
    "    return a * b\n"
    "server.run()\n"
)
"""A server written with the official SDK."""


def measure(lab: Lab) -> Measurement:
    """Each pair lists tools over standard input and output, and one is called for 6 times 7; 1 if 42 comes back.

    Clients of the official SDK and of Inspect (which is built on that SDK) at `firsthand mcp`; ours at a server written
    with the SDK.
    """
    pairs: dict[str, Callable[[], Awaitable[str]]] = {
        "official SDK, newest revision -> our server": lambda: _official("auto"),
        "official SDK, legacy handshake -> our server": lambda: _official("legacy"),
        "Inspect -> our server": _inspect,
        "our client -> a server of the official SDK": _ours,
    }
    return _measured(pairs)


def _measured(pairs: Mapping[str, Callable[[], Awaitable[str]]]) -> Measurement:
    """The pairs that work; MissingExtra where a client of another maker is not installed."""

    async def both(call: Callable[[], Awaitable[str]]) -> float:
        try:
            async with asyncio.timeout(60):
                return float("42" in await call())
        except ImportError as error:
            extra = "inspect" if "inspect" in str(error.name) else "mcp"
            raise MissingExtra(str(error.name).partition(".")[0], extra, "a client of another maker") from None
        except Exception:
            return 0.0

    rows = tuple((name, asyncio.run(both(call))) for name, call in pairs.items())
    worked = int(sum(row[1] for row in rows))
    return Measurement(
        worked / len(rows),
        "pairs of client and server that list tools and call one with the right result",
        n=len(rows),
        columns=("pair", "worked"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Every pair works; a plug that fits sometimes is part of it. How many use it is not tested."""
    told = f"{m.value:.0%} of {m.n} pairs work; that it is a standard is a matter of adoption, which nobody counts here"
    if m.value == 1:
        return ruling("holds here", told)
    return ruling("holds in part" if m.value > 0 else "does not hold here", told)


async def _official(mode: str) -> str:
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    ours = StdioServerParameters(command=sys.executable, args=list(SERVER), env=dict(os.environ))
    async with Client(stdio_client(ours), mode=mode) as client:
        if [tool.name for tool in (await client.list_tools()).tools] != ["calculator"]:
            return ""
        return str((await client.call_tool("calculator", SUM)).content[0])


async def _inspect() -> str:
    from inspect_ai.tool import mcp_connection, mcp_server_stdio

    server = mcp_server_stdio(name="ours", command=sys.executable, args=list(SERVER), env=dict(os.environ))
    async with mcp_connection(server):
        (tool,) = await server.tools()
        return str(await tool(**SUM))


async def _ours() -> str:
    from firsthand.tools.mcp.remote_tools import RemoteTools
    from firsthand.tools.mcp.server_declaration import ServerDeclaration

    source = RemoteTools(ServerDeclaration("foreign", command=sys.executable, args=("-P", "-c", FOREIGN)))
    try:
        await source.open()
        (tool,) = [each for each in source.tools if each.name == "foreign__times"]
        return str(await tool({"a": 6, "b": 7}))
    finally:
        await source.close()
