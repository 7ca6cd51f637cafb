"""Milliseconds for a question to a served agent, through each of its three doors by the SDK of each.

    python bench/served_agent.py --calls 100 --rounds 3

`firsthand serve --agent` runs in a process of its own with a model that repeats the question, so that the time is that of
the doors: admission, the session and its journal on the disk, and the protocol. Rounds alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import openai
from a2a.client import ClientConfig, ClientFactory
from a2a.types import Message, Part, Role, SendMessageRequest
from mcp import Client

from firsthand.commands.agent_server import with_port
from firsthand.serve.http.listen_address import ListenAddress

AGENT = 'name = "echo"\nmodel = "scripted:echo"\npattern = "direct"\n'
Ask = Callable[[str], Awaitable[str]]


async def by_openai(url: str, round_of: Callable[[Ask], Awaitable[float]]) -> float:
    """A round of chat completions."""
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")

    async def ask(text: str) -> str:
        done = await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": text}])
        return done.choices[0].message.content or ""

    async with client:
        return await round_of(ask)


async def by_a2a(url: str, round_of: Callable[[Ask], Awaitable[float]]) -> float:
    """A round of messages over JSON-RPC, each a task of its own."""
    client = await ClientFactory(ClientConfig(streaming=False)).create_from_url(url)

    async def ask(text: str) -> str:
        message = Message(message_id=str(uuid.uuid4()), role=Role.ROLE_USER, parts=[Part(text=text)])
        answer = ""
        async for event in client.send_message(SendMessageRequest(message=message)):
            answer = event.task.artifacts[0].parts[0].text
        return answer

    try:
        return await round_of(ask)
    finally:
        await client.close()


async def by_mcp(url: str, round_of: Callable[[Ask], Awaitable[float]]) -> float:
    """A round of calls of the tool `ask` over streamable HTTP."""
    async with Client(f"{url}/mcp") as client:

        async def ask(text: str) -> str:
            return str((await client.call_tool("ask", {"question": text})).content[0].text)

        return await round_of(ask)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()

    async def round_of(ask: Ask) -> float:
        for number in range(-5, given.calls):
            if number == 0:
                began = time.perf_counter()
            text = f"Say {uuid.uuid4()}"
            assert text in await ask(text)
        return (time.perf_counter() - began) / given.calls * 1e3

    rows = {"OpenAI chat completions": by_openai, "A2A over JSON-RPC": by_a2a, "MCP over HTTP": by_mcp}
    times: dict[str, list[float]] = {name: [] for name in rows}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "agent.toml").write_text(AGENT, encoding="utf-8")
        port = with_port(ListenAddress(port=0)).port
        url = f"http://127.0.0.1:{port}"
        words = [
            sys.executable,
            "-m",
            "firsthand",
            "serve",
            "--agent",
            "agent.toml",
            "--sessions",
            "s",
            "--port",
            str(port),
        ]
        environment = {**os.environ, "FIRSTHAND_HOME": name}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen([*words, "--log", "none"], cwd=folder, env=environment, **quiet)
        try:
            while not answers(url):
                assert server.poll() is None, "the server ended"
                time.sleep(0.1)
            for _ in range(given.rounds):
                for door, run in rows.items():
                    times[door].append(asyncio.run(run(url, round_of)))
        finally:
            server.terminate()
            server.wait()
    print("| door | ms a question, median of rounds | range |\n|---|---|---|")
    for door, found in times.items():
        print(f"| {door} | {statistics.median(found):.1f} | {min(found):.1f} to {max(found):.1f} |")


def answers(url: str) -> bool:
    """True once the server takes requests."""
    try:
        return httpx.get(f"{url}/.well-known/agent-card.json").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
