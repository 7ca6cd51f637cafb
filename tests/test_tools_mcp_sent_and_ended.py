"""What is sent to an MCP server under its own names, and the time that a server has to end."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import anyio
import mcp_types
from mcp.shared.message import SessionMessage

from firsthand.tools.mcp import stdio_frames
from firsthand.tools.mcp.stdio_frames import ServerProcess, _ended, _write


def test_fields_are_sent_under_the_names_of_the_protocol_and_those_that_were_not_given_are_left_out() -> None:
    lines: list[bytes] = []

    async def drain() -> None: ...

    root = mcp_types.Root.model_validate({"uri": "file:///a", "_meta": {"k": "é"}})
    tool = mcp_types.Tool.model_validate({"name": "t", "inputSchema": {"type": "object"}})
    note = mcp_types.JSONRPCNotification(jsonrpc="2.0", method="n")
    messages: list[Any] = [
        mcp_types.JSONRPCRequest(jsonrpc="2.0", id=1, method="m", params={"root": root, "none": None}), note,
        mcp_types.JSONRPCResponse(jsonrpc="2.0", id="s", result={"tools": [tool]}),
        mcp_types.JSONRPCError(jsonrpc="2.0", id=2, error=mcp_types.ErrorData(code=-1, message="no")),
    ]  # fmt: skip

    async def main() -> ServerProcess:
        server = ServerProcess(SimpleNamespace(stdin=SimpleNamespace(write=lines.append, drain=drain)))  # type: ignore
        write, outbound = anyio.create_memory_object_stream[Any](9)
        inbound, read = anyio.create_memory_object_stream[Any](9)
        for each in messages:
            await write.send(SessionMessage(each))
        write.close()
        await _write(server, outbound, inbound)
        for stream in (outbound, inbound, read):
            stream.close()
        return server

    assert asyncio.run(main()).awaited == {1}
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert [json.loads(line) for line in lines] == [
        {
            "jsonrpc": "2.0", "id": 1, "method": "m",
            "params": {"root": {"uri": "file:///a", "_meta": {"k": "é"}}, "none": None},
        },
        {"jsonrpc": "2.0", "method": "n"},
        {"jsonrpc": "2.0", "id": "s", "result": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}},
        {"jsonrpc": "2.0", "id": 2, "error": {"code": -1, "message": "no"}},
    ]  # fmt: skip


class Ending:
    """A process whose exit code is there at the look of this number; 0 is the first."""

    def __init__(self, at: int) -> None:
        self.left = at

    @property
    def returncode(self) -> int | None:
        self.left -= 1
        return None if self.left >= 0 else 3


def test_a_process_is_waited_for_as_long_as_the_grace_lasts_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(looks: int, grace_s: float) -> bool:
        monkeypatch.setattr(stdio_frames, "GRACE_S", grace_s)
        return asyncio.run(_ended(Ending(looks)))  # type: ignore[arg-type]

    assert ended(0, 0.0) and ended(0, 30.0), "one that has ended is not waited for"
    assert ended(1, 0.0), "it is looked at once more at the end"
    assert not ended(2, 0.0)
    assert ended(12, 30.0), "a dozen looks take more than 50 ms"
    assert not ended(10**9, 0.02)
