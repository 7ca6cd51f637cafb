"""Starts an MCP server and exchanges lines of JSON with it, within limits.

The SDK's own transport keeps a line for as long as it grows. Here a frame has a largest size, lines that are no message are
counted, the last words on standard error are kept for the error message, and the whole process group ends with the block, or
with this process (`orphan_guard.py`).
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from firsthand.errors import ToolError
from firsthand.system.json_values import values_in
from firsthand.system.terminal import one_line
from firsthand.tools.mcp.message_flow import MAX_VALUES, TOO_DENSE, TOO_OFTEN, MessageFlow
from firsthand.tools.mcp.orphan_guard import guarded_process, signal_group
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.unpaired_surrogates import without_halves

MAX_FRAME = 8_000_000
"""The most bytes of one message."""
MAX_NOISE = 1_000
"""The most lines that are no messages, after which the connection ends."""
KEPT_STDERR = 2_000
"""The last bytes of standard error, which stand in the error message when the server dies."""
MAX_ID_DIGITS = 20
"""Numbers of as many digits are no ids of ours."""
GRACE_S = 1.0
"""Seconds to end on its own after its input closes; the group is then terminated, and killed after as long again."""
_CHUNK = 65_536


class ServerProcess:
    """A running server, and why the connection with it ended."""

    def __init__(self, process: asyncio.subprocess.Process):
        self.process = process
        self.reason = ""
        """The reason why we ended the connection."""
        self.noise = 0
        """The number of lines that were no messages."""
        self.stderr = bytearray()
        self.flow = MessageFlow()
        self.awaited: set[int | str] = set()
        """The ids of our requests that the server has not answered."""

    def epitaph(self) -> str:
        """The sentence on how it ended, with the last line that it wrote on standard error."""
        said = one_line(self.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])[:300]
        last = f"; its last words were: {said}" if said else ""
        if self.reason:
            return f"{self.reason}{last}"
        code = self.process.returncode
        ended = "closed its output" if code is None else f"ended with exit code {code}" if code >= 0 else ""
        return f"{ended or f'was ended by signal {-(code or 0)}'}{last}"


@asynccontextmanager
async def started(declaration: ServerDeclaration) -> AsyncGenerator[tuple[ServerProcess, Any]]:
    """The process and its transport: a context manager of the two streams that the SDK's client takes."""
    environment = {**get_default_environment(), **declaration.env}
    guarded = guarded_process(
        declaration.command, declaration.filled_args, env=environment, cwd=declaration.cwd, limit=_CHUNK
    )
    async with AsyncExitStack() as stack:
        try:
            process = await stack.enter_async_context(guarded)
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise ToolError(
                f"the MCP server {declaration.name} cannot be started: {declaration.command}: {said}"
            ) from None
        server = ServerProcess(process)
        words = asyncio.create_task(_keep_stderr(server))
        try:
            yield server, _streams(server)
        finally:
            await asyncio.shield(asyncio.ensure_future(_end(server, words)))


@asynccontextmanager
async def _streams(server: ServerProcess) -> AsyncGenerator[tuple[Any, Any]]:
    inbound, read = anyio.create_memory_object_stream[SessionMessage | Exception](64)
    write, outbound = anyio.create_memory_object_stream[SessionMessage](64)
    reader = asyncio.create_task(_read(server, inbound))
    writer = asyncio.create_task(_write(server, outbound, inbound))
    try:
        yield read, write
    finally:
        for each in (reader, writer):
            each.cancel()
        await asyncio.wait({reader, writer})
        for stream in (inbound, read, write, outbound):
            stream.close()


async def _read(server: ServerProcess, inbound: Any) -> None:
    """Passes messages on until the server closes its output or breaks a limit."""
    stdout = server.process.stdout
    assert stdout is not None
    kept = bytearray()
    with inbound, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        while piece := await stdout.read(_CHUNK):
            if b"\n" in piece:
                first, *lines = piece.split(b"\n")
                kept += first
                for line in (bytes(kept), *lines[:-1]):
                    await _pass_on(server, line, inbound)
                    if server.reason:
                        return
                kept = bytearray(lines[-1])
            else:
                kept += piece
            if len(kept) > MAX_FRAME:
                server.reason = f"sent a message of more than {MAX_FRAME:,} bytes, which is the limit"
                return


async def _pass_on(server: ServerProcess, line: bytes, inbound: Any) -> None:
    if not line.strip():
        return
    if len(line) > MAX_FRAME:
        server.reason = f"sent a message of more than {MAX_FRAME:,} bytes, which is the limit"
        return
    if values_in(line, MAX_VALUES) > MAX_VALUES:
        server.reason = TOO_DENSE
        return
    try:
        message = mcp_types.jsonrpc_message_adapter.validate_json(without_halves(line), by_name=False)
    except (ValueError, RecursionError):
        if (answered := _answered(line)) in server.awaited:
            server.awaited.remove(answered)
            error = mcp_types.ErrorData(code=mcp_types.PARSE_ERROR, message="its answer cannot be read")
            await inbound.send(SessionMessage(mcp_types.JSONRPCError(jsonrpc="2.0", id=answered, error=error)))
            return
        server.noise += 1
        if server.noise > MAX_NOISE:
            server.reason = f"wrote more than {MAX_NOISE:,} lines that are no messages of MCP"
        return
    if isinstance(message, mcp_types.JSONRPCResponse | mcp_types.JSONRPCError) and message.id in server.awaited:
        server.awaited.remove(message.id)
    elif not server.flow.charge(line):
        server.reason = TOO_OFTEN
        return
    await inbound.send(SessionMessage(message))


def _answered(line: bytes) -> int | str:
    """The id of the request that a line which is no message of MCP answers; an empty text if it answers none."""
    try:
        body = json.loads(line, parse_int=lambda digits: int(digits) if len(digits) < MAX_ID_DIGITS else 0.0)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(body, dict) or not body.keys() & {"result", "error"}:
        return ""
    found = body.get("id")
    return found if isinstance(found, int | str) and not isinstance(found, bool) else ""


async def _write(server: ServerProcess, outbound: Any, inbound: Any) -> None:
    stdin = server.process.stdin
    assert stdin is not None
    try:
        async for sent in outbound:
            if isinstance(sent.message, mcp_types.JSONRPCRequest):
                server.awaited.add(sent.message.id)
                server.flow.refill()
            stdin.write(sent.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()
    except (OSError, anyio.ClosedResourceError):
        inbound.close()  # the session sees the end of the connection


async def _keep_stderr(server: ServerProcess) -> None:
    stderr = server.process.stderr
    assert stderr is not None
    while piece := await stderr.read(_CHUNK):
        server.stderr += piece
        del server.stderr[:-KEPT_STDERR]


async def _end(server: ServerProcess, words: asyncio.Task[None]) -> None:
    """Closes the server's input, waits for it, and ends whatever is left of its process group."""
    process = server.process
    if process.stdin is not None:
        process.stdin.close()
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if not server.reason and await _ended(process):  # one that broke a limit gets no time to end on its own
            break
        signal_group(process.pid, sent)
    signal_group(process.pid, signal.SIGKILL)  # children that outlived it
    await _ended(process)
    words.cancel()
    await asyncio.wait({words})
    transport = getattr(process, "_transport", None)  # a child that left the group may still hold a pipe
    if transport is not None:
        transport.close()


async def _ended(process: asyncio.subprocess.Process) -> bool:
    """True once the process has ended; `Process.wait` would also wait for children that hold its pipes."""
    loop = asyncio.get_running_loop()
    until = loop.time() + GRACE_S
    while process.returncode is None and loop.time() < until:
        await asyncio.sleep(0.005)
    return process.returncode is not None
