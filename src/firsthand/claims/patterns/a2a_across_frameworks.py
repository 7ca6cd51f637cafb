"""A2A between our server and the protocol's own client."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.errors import DataError, MissingExtra

CLAIM = Claim(
    quote="Google A2A: Agent-to-Agent protocol for cross-framework communication",
    source="a2a-protocol.org",
    kind="ours",
    cost_s=8,
    needs=("extra a2a", "extra serve"),
)
WORDS = "the mill was built in 1871"
AGENT = 'name = "echo"\ndescription = "Repeats what it is told."\nmodel = "scripted:echo"\npattern = "direct"\n'
WAYS = (("JSONRPC", True), ("JSONRPC", False), ("HTTP+JSON", True), ("HTTP+JSON", False))
"""Binding, and whether the answer is streamed."""
SERVE = ("-P", "-m", "firsthand", "serve", "--agent", "agent.toml", "--port", "0", "--log", "none")


def measure(lab: Lab) -> Measurement:
    """`firsthand serve --agent` and the client of the official SDK, by card, over two bindings, streamed or not.

    1 if the agent's words come back; the agent repeats what it is told.
    """
    try:
        import a2a.client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        extra = "serve" if error.name == "uvicorn" else "a2a"
        raise MissingExtra(str(error.name).partition(".")[0], extra, "a client of A2A's own SDK") from None
    with _served() as url:
        return _measured([asyncio.run(_worked(url, way, streams)) for way, streams in WAYS])


def _measured(found: Sequence[float]) -> Measurement:
    """`found`: for each of WAYS 1 if it worked."""
    rows = tuple(
        (f"{way}, {'streamed' if streams else 'at once'}", each)
        for (way, streams), each in zip(WAYS, found, strict=True)
    )
    worked = int(sum(row[1] for row in rows))
    return Measurement(
        worked / len(rows),
        "ways in which the official SDK's client gets the agent's answer",
        n=len(rows),
        columns=("binding", "worked"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Every way works, between two programs that share no code but the protocol's own library."""
    told = f"{m.value:.0%} of {m.n} ways work between our server and the SDK's client; both use that SDK's types"
    if m.value == 1:
        return ruling("holds here", told)
    return ruling("holds in part" if m.value > 0 else "does not hold here", told)


@contextmanager
def _served() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "agent.toml").write_text(AGENT, encoding="utf-8")
        server = subprocess.Popen([sys.executable, *SERVE], cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            found = next((re.search(r"https?://[\d.:]+", line) for line in server.stdout if "served at" in line), None)
            if found is None:
                raise DataError("`firsthand serve --agent` ended before it served: run it by hand to see why")
            yield found[0]
        finally:
            server.terminate()
            server.wait(30)


async def _worked(url: str, binding: str, streams: bool) -> float:
    import httpx
    from a2a.client import ClientConfig, ClientFactory
    from a2a.types import Message, Part, Role, SendMessageRequest

    async with httpx.AsyncClient(timeout=30) as http:
        config = ClientConfig(httpx_client=http, supported_protocol_bindings=[binding], streaming=streams)
        message = Message(message_id="1", role=Role.ROLE_USER, parts=[Part(text=WORDS)])
        try:
            client = await ClientFactory(config).create_from_url(url)
            events = [event async for event in client.send_message(SendMessageRequest(message=message))]
        except Exception:
            return 0.0
    artifacts = [each for event in events for each in (*event.task.artifacts, event.artifact_update.artifact)]
    return float(any(WORDS in part.text for artifact in artifacts for part in artifact.parts))
