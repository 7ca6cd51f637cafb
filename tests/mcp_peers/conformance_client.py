"""The client that the conformance suite drives: an agent of ours that calls what the suite's server offers.

    conformance client --command "python tests/mcp_peers/conformance_client.py" --requirements 2026-07-28

The suite appends the server's address, and names the scenario in the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.shared.auth import AuthorizationCodeResult

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.loop.approval import Approval, Decision
from firsthand.message import Json, ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.tools.mcp.approved_definitions import ApprovedDefinitions
from firsthand.tools.mcp.definitions import tool_name
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
GIVEN: Json = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "")
CIMD = "https://conformance-test.local/client-metadata.json"


class HeadlessSignIn:
    """A person who agrees at once: it follows the authorization page to the address with the code."""

    redirect_uri = "http://localhost:3000/callback"
    registers_anew = False

    def __init__(self) -> None:
        self._answer: AuthorizationCodeResult | None = None

    async def redirect(self, url: str) -> None:
        async with httpx2.AsyncClient(timeout=120.0) as http:
            response = await http.get(url, follow_redirects=False)
        asked = {key: value[0] for key, value in parse_qs(urlsplit(response.headers["location"]).query).items()}
        self._answer = AuthorizationCodeResult(code=asked["code"], state=asked.get("state"), iss=asked.get("iss"))

    async def answer(self) -> AuthorizationCodeResult:
        assert self._answer is not None
        return self._answer

    def close(self) -> None:
        pass


async def agree(tool: Tool, arguments: Json) -> Decision:
    return Decision(True, "conformance")


def value_of(schema: Json) -> Any:
    """A value that fits a simple schema."""
    if "default" in schema:
        return schema["default"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "string")
    return {"string": "text", "integer": 2, "number": 2.5, "boolean": True, "array": [], "object": {}}.get(kind)


def calls_of(source: RemoteTools) -> list[tuple[str, Json]]:
    """The calls of this scenario: those the suite names, or one of each tool."""
    if "toolCalls" in GIVEN:
        return [(each["name"], each["arguments"]) for each in GIVEN["toolCalls"]]
    if SCENARIO == "json-schema-2020-12-preservation":
        return [("json_schema_echo", {"schema": source.definitions["json_schema_2020_12_tool"].schema})]
    found = []
    for name in source.definitions:
        schema = source.definitions[name].schema
        required = schema.get("required", ())
        found.append(
            (name, {key: value_of(each) for key, each in schema.get("properties", {}).items() if key in required})
        )
    return found


async def issuer_of(url: str) -> str:
    """The authorization server that the suite registered the given client at: the suite names it nowhere else."""
    at = urlsplit(url)
    async with httpx2.AsyncClient(timeout=120.0) as http:
        found = await http.get(f"{at.scheme}://{at.netloc}/.well-known/oauth-protected-resource{at.path}")
    return str(found.json()["authorization_servers"][0])


async def main(url: str) -> None:
    declaration = ServerDeclaration(
        "suite",
        url=url,
        allow="127.0.0.0/8+localhost",
        revision="2025-11-25" if VERSION and VERSION < "2026" else "auto",
        timeout_s=120.0,
        opening_s=120.0,
    )
    if SCENARIO.startswith("auth/"):
        declaration = replace(
            declaration,
            oauth=True,
            issuer=await issuer_of(url) if "client_id" in GIVEN else "",
            client_id=GIVEN.get("client_id", ""),
            client_secret=GIVEN.get("client_secret", ""),
            client_metadata_url=CIMD,
        )
    source = RemoteTools(
        declaration, ApprovedDefinitions(declaration, Path(os.environ["FIRSTHAND_HOME"])), HeadlessSignIn
    )

    async def call_each(task: Task, ctx: Context) -> str:
        results = []
        for name, arguments in calls_of(source):
            result = await ctx.call(ToolCall(name, tool_name("suite", name), arguments))
            results.append(f"{name}: {result.content}")
        return "\n".join(results)

    agent = Agent(
        "conformance", Scripted(["The capital of France is Paris."] * 20), call_each, tools=(source,),
        approval=Approval(ask=agree),
    )  # fmt: skip
    trace = await rollout(agent, Task("suite", SCENARIO))
    print(trace.answer if trace.error is None else f"{trace.error.kind}: {trace.error.message}")
    if trace.error is not None:
        sys.exit(1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["FIRSTHAND_HOME"] = home
        asyncio.run(main(sys.argv[-1]))
