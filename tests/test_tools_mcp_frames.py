"""Frames between us and an MCP server: what is sent, what is refused, what ends; and requests of an open connection."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import anyio
import mcp_types
from mcp import MCPError
from mcp.shared.message import SessionMessage

from firsthand.errors import StoreError, ToolError
from firsthand.tools.mcp import connection as connections
from firsthand.tools.mcp import remote_tools, stdio_frames
from firsthand.tools.mcp.connection import McpConnection
from firsthand.tools.mcp.message_flow import ALLOWANCE, GROWTH, MAX_VALUES, TOO_DENSE, TOO_OFTEN, MessageFlow
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.stdio_frames import ServerProcess, _end, _pass_on, _read, _streams, _write, started

NOTE = b'{"jsonrpc":"2.0","method":"n"}'


def message(**body: Any) -> SessionMessage:
    return SessionMessage(mcp_types.jsonrpc_message_adapter.validate_python({"jsonrpc": "2.0", **body}, by_name=False))


class Pipe:
    """Standard input of a process: keeps what is written, or is closed."""

    def __init__(self, *, broken: bool = False) -> None:
        self.lines: list[Any] = []
        self.broken, self.drained = broken, 0

    def write(self, raw: bytes) -> None:
        assert raw.endswith(b"\n") and raw.count(b"\n") == 1
        self.lines.append(json.loads(raw))

    async def drain(self) -> None:
        self.drained += 1
        if self.broken:
            raise BrokenPipeError


def reading(*pieces: bytes, wait: bool = False) -> Any:
    left = list(pieces)

    async def read(most: int) -> bytes:
        if not left and wait:
            await asyncio.sleep(60)
        return left.pop(0) if left else b""

    return SimpleNamespace(read=read)


def server_with(**process: Any) -> ServerProcess:
    return ServerProcess(SimpleNamespace(**process))  # type: ignore[arg-type]


def test_our_requests_are_awaited_and_renew_the_allowance_and_our_answers_do_not() -> None:
    async def main() -> None:
        pipe = Pipe()
        server = server_with(stdin=pipe)
        write, outbound = anyio.create_memory_object_stream[Any](9)
        inbound, read = anyio.create_memory_object_stream[Any](9)
        left = []
        for sent in (
            message(id=1, result={"a": "é"}), message(method="note"), message(id=2, method="ask", params={"x": None}),
            message(id="s", method="ask"),
        ):  # fmt: skip
            server.flow._left = 5.0
            await write.send(sent)
            writing = asyncio.create_task(_write(server, outbound.clone(), inbound))
            while write.statistics().current_buffer_used or pipe.drained < len(left) + 1:
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait({writing})
            left.append(server.flow._left)
        assert left == [5.0, 5.0, ALLOWANCE, ALLOWANCE] and server.awaited == {2, "s"}
        assert pipe.lines == [
            {"jsonrpc": "2.0", "id": 1, "result": {"a": "é"}}, {"jsonrpc": "2.0", "method": "note"},
            {"jsonrpc": "2.0", "id": 2, "method": "ask", "params": {"x": None}},
            {"jsonrpc": "2.0", "id": "s", "method": "ask"},
        ]  # fmt: skip
        broken = server_with(stdin=Pipe(broken=True))
        await write.send(message(method="note"))
        await _write(broken, outbound, inbound)
        with pytest.raises(anyio.EndOfStream):
            await read.receive()
        for each in (write, outbound, inbound, read):
            each.close()

    asyncio.run(main())


def test_a_message_may_have_as_many_bytes_as_the_limit_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    most = len(NOTE) + 10
    monkeypatch.setattr(stdio_frames, "MAX_FRAME", most)
    exact, longer = (NOTE[:-1] + b" " * (most + more - len(NOTE)) + b"}" for more in (0, 1))
    assert (len(exact), len(longer)) == (most, most + 1)
    too_long = f"sent a message of more than {most:,} bytes, which is the limit"

    async def passed(*pieces: bytes) -> tuple[int, str]:
        server = server_with(stdout=reading(*pieces))
        inbound, read = anyio.create_memory_object_stream[Any](64)
        await _read(server, inbound)
        with read:
            return len([each async for each in read]), server.reason

    async def main() -> None:
        assert await passed(exact + b"\n" + exact + b"\n") == (2, "")
        assert await passed(NOTE + b"\n" + longer + b"\n" + NOTE + b"\n") == (1, too_long)
        assert await passed(exact[:5], exact[5:], b"\n") == (1, "")
        assert await passed(exact, b" ", b"\n") == (0, too_long), "before its line ends"
        assert await passed(NOTE + b"\n" + exact) == (1, "") and await passed(NOTE + b"\n" + longer) == (1, too_long)

    asyncio.run(main())
    assert stdio_frames.MAX_NOISE == 1_000


def test_a_message_is_refused_for_its_values_and_for_coming_unasked() -> None:
    async def main() -> None:
        inbound, read = anyio.create_memory_object_stream[Any](9)
        with inbound, read:
            for values, reason in ((MAX_VALUES, ""), (MAX_VALUES + 1, TOO_DENSE)):
                server = server_with()
                server.awaited = {1}
                raw = b'{"jsonrpc":"2.0","id":1,"result":{"a":[' + b",".join([b"0"] * (values - 4)) + b"]}}"
                await _pass_on(server, raw, inbound)  # counted by its brackets and commas
                assert server.reason == reason, values
                assert server.awaited == (set() if not reason else {1})
            often = server_with()
            often.flow._left, often.flow._at = 1.0, time.monotonic() + 100
            await _pass_on(often, NOTE, inbound)
            assert often.reason == TOO_OFTEN
            failed = server_with()
            failed.awaited = {3}
            await _pass_on(failed, b'{"jsonrpc":"2.0","id":3,"error":{"code":-1,"message":"m"}}', inbound)
            assert failed.awaited == set() and failed.flow._left == ALLOWANCE
            for blank in (b"", b" \r"):
                await _pass_on(failed, blank, inbound)
            assert failed.noise == 0
            await _pass_on(failed, b"[" * 100_000, inbound)
            assert (failed.noise, failed.reason) == (1, "")
            assert read.statistics().current_buffer_used == 2

    asyncio.run(main())


def test_an_allowance_grows_with_time_up_to_its_whole() -> None:
    flow = MessageFlow()
    flow._left, flow._at = 10.0, time.monotonic() - 2
    assert flow.charge(b"[1,2]" + b" " * 995)
    assert flow._left == pytest.approx(10 + 2 * GROWTH - (1 + 1 + 2 / 20), abs=50)
    flow._at -= 1_000
    assert flow.charge(b"") and flow._left == ALLOWANCE - 1
    flow._left, flow._at = 1.0, time.monotonic() + 100  # no time goes by
    flow._left += 100 * GROWTH
    assert flow.charge(b"") and not MessageFlow.charge(flow, b"x" * 30_000_000)
    flow.refill()
    assert flow._left == ALLOWANCE


def test_the_streams_of_a_server_end_with_their_block_however_it_ends() -> None:
    async def main() -> None:
        for error in (None, KeyError("k"), asyncio.CancelledError()):
            server = server_with(stdin=Pipe(), stdout=reading(NOTE + b"\n", wait=True))
            before = asyncio.all_tasks()
            try:
                async with _streams(server) as (read, write):
                    assert (await read.receive()).message.method == "n"
                    await write.send(message(id=1, method="ask"))
                    while not server.process.stdin.lines:  # type: ignore[union-attr]
                        await asyncio.sleep(0)
                    assert len(asyncio.all_tasks() - before) == 2
                    if error is not None:
                        raise error
            except (KeyError, asyncio.CancelledError) as raised:
                assert raised is error
            assert asyncio.all_tasks() == before
            for work in (read.receive, lambda write=write: write.send(message(method="n"))):
                with pytest.raises(anyio.ClosedResourceError):
                    await work()

    asyncio.run(main())


@pytest.mark.slow
def test_a_server_has_a_moment_to_end_on_its_own_unless_it_broke_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (stdio_frames.GRACE_S, stdio_frames.KEPT_STDERR) == (1.0, 2_000)
    monkeypatch.setattr(stdio_frames, "GRACE_S", 0.3)
    words = tmp_path / "words"

    async def ended(script: str, reason: str = "") -> tuple[int | None, str]:
        words.write_text("")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", script, str(words), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        assert process.stdout is not None
        await process.stdout.readline()
        server = ServerProcess(process)
        server.reason = reason
        telling = asyncio.create_task(asyncio.sleep(60))
        await _end(server, telling)  # type: ignore[arg-type]
        assert telling.cancelled() and process.stdin is not None and process.stdin.is_closing()
        return process.returncode, words.read_text()

    async def main() -> None:
        tidy = 'echo ready; read -r _; echo closed > "$0"; exit 3'
        assert await ended(tidy) == (3, "closed\n")
        asked = """trap 'echo asked > "$0"; exit 4' TERM; echo ready; while :; do sleep 0.01; done"""
        assert await ended(asked) == (4, "asked\n")
        deaf = """trap '' TERM; echo ready; exec sleep 20"""
        assert await ended(deaf) == (-signal.SIGKILL, "")
        monkeypatch.setattr(stdio_frames, "GRACE_S", 3.0)
        at_once = time.monotonic()
        assert (await ended("echo ready; exec sleep 20", reason="sent too much"))[0] in (
            -signal.SIGKILL,
            -signal.SIGTERM,
        )
        assert time.monotonic() - at_once < 2.5
        child = 'sleep 20 & echo $! > "$0"; echo ready; read -r _; exit 0'
        status, pid = await ended(child)
        assert status == 0
        for _ in range(100):
            stat = Path(f"/proc/{int(pid)}/stat")
            if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("its child outlived it")

    if sys.platform == "linux":
        asyncio.run(main())


def test_a_server_that_cannot_be_started_is_told_by_its_name(tmp_path: Path) -> None:
    async def main() -> None:
        for command, said in (
            ("/none/such", "No such file or directory"), (str(tmp_path), "Permission denied"),
        ):  # fmt: skip
            with pytest.raises(ToolError) as error:
                async with started(ServerDeclaration("lib", command=command)):
                    pass
            assert str(error.value) == f"the MCP server lib cannot be started: {command}: {said}"
        for broken in ({"args": ("a", "b\0c")}, {"env": {"A": "b\0c"}}):
            with pytest.raises(ToolError, match=r"^the MCP server lib cannot be started: sh: embedded null byte$"):
                async with started(ServerDeclaration("lib", command="sh", **broken)):
                    pass
        script = 'echo "$A-$HOME-$PWD-$1$FIRSTHAND_UNSENT"; echo words >&2; read -r _; exit 0'
        declared = ServerDeclaration(
            "lib", command="sh", args=("-c", script, "sh", "b"), env={"A": "a", "HOME": "/mine"}, cwd=str(tmp_path)
        )
        os.environ["FIRSTHAND_UNSENT"] = "secret"
        try:
            async with started(declared) as (server, _):
                assert server.process.stdout is not None
                assert await server.process.stdout.readline() == f"a-/mine-{tmp_path}-b\n".encode()
                while not server.stderr:
                    await asyncio.sleep(0.005)
        finally:
            del os.environ["FIRSTHAND_UNSENT"]
        assert server.process.returncode == 0 and server.epitaph() == (
            "ended with exit code 0; its last words were: words"
        )

    asyncio.run(main())


# -- requests of a connection --


def connected(**settings: Any) -> McpConnection:
    made = McpConnection(ServerDeclaration("peer", url="https://peer.example/mcp", **settings))
    made._client = SimpleNamespace(name="client")  # type: ignore[assignment]
    return made


def test_a_request_ends_by_its_reply_its_error_its_time_or_the_connections_end() -> None:
    async def main() -> None:
        made = connected(timeout_s=0.05)
        cancelled: list[str] = []

        async def reply(client: Any) -> str:
            return f"from {client.name}"

        async def wait(client: Any) -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append("wait")
                raise
            return ""

        def failing(error: BaseException) -> Any:
            async def send(client: Any) -> str:
                raise error

            return send

        async def said(send: Any, **more: Any) -> str:
            with pytest.raises(ToolError) as error:
                await made.request(send, **more)
            return str(error.value)

        assert await made.request(reply) == "from client"
        late = "MCP server peer did not answer within"
        assert await said(wait) == f"{late} 0.05 s" and await said(wait, timeout_s=0.02) == f"{late} 0.02 s"
        assert cancelled == ["wait", "wait"]
        short, patient = connected(timeout_s=0.001), connected(timeout_s=600)
        assert await short.request(lambda client: asyncio.sleep(0.02, "late"), timeout_s=30) == "late"
        with pytest.raises(ToolError, match=rf"^{late} 0\.02 s$"):
            async with asyncio.timeout(10):
                await patient.request(wait, timeout_s=0.02)
        cancelled.pop()
        assert await said(failing(MCPError(-7, "no"))) == "MCP server peer failed the request (code -7): no"
        assert await said(failing(ToolError("ours"))) == "ours"
        assert await said(failing(ValueError("odd"))) == "MCP server peer broke the protocol: odd"
        with pytest.raises(StoreError, match=r"^kept$"):
            await made.request(failing(StoreError("kept")))
        asyncio.get_running_loop().call_later(0.01, made._dead.set)
        assert await said(wait, timeout_s=5) == "MCP server peer is not connected"
        assert await said(reply) == "MCP server peer is not connected", "it has ended"
        assert cancelled == ["wait"] * 3 and made.calls == []

    asyncio.run(main())


def test_the_end_of_a_process_is_told_by_what_is_known_of_it() -> None:
    made = connected()
    made._process = server_with(returncode=None)
    assert made.ending() == "MCP server peer is not connected", "it runs, and has broken no limit"
    made._failure = ValueError("odd")
    assert made.ending() == "MCP server peer broke the protocol: odd"
    made._process.reason = "sent too much"
    made._process.stderr += b"first\n last \xff words \n\n"
    assert made.ending() == "MCP server peer sent too much; its last words were: last \ufffd words"
    assert made._words() == "; it wrote: last \ufffd words"
    made._process.reason = ""
    made._client = None
    assert made.ending() == "MCP server peer closed its output; its last words were: last \ufffd words"
    made._process.stderr += b"w" * 301
    assert made._words() == "; it wrote: " + "w" * 300
    assert connections.CLOSING_S == 10.0


def test_lists_are_read_page_by_page_up_to_a_number_of_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.setattr(remote_tools, "MAX_PAGES", 3)
    source = RemoteTools(ServerDeclaration("peer", url="https://peer.example/mcp", opening_s=7.0))
    with pytest.raises(ToolError, match=r"^MCP server peer is not connected$"):
        _ = source.connection
    timeouts: list[Any] = []

    async def request(send: Any, *, timeout_s: float) -> Any:
        timeouts.append(timeout_s)
        return await send("client")

    source._connection = SimpleNamespace(request=request)  # type: ignore[assignment]

    def listing(*sizes: int, ends: bool = True) -> tuple[Any, list[Any]]:
        cursors: list[Any] = []

        async def send(client: str, cursor: str | None) -> Any:
            cursors.append(cursor)
            at = len(cursors) - 1
            following = f"c{at + 1}" if not ends or at + 1 < len(sizes) else None
            return SimpleNamespace(tools=[f"{at}.{n}" for n in range(sizes[at])], next_cursor=following)

        return send, cursors

    def read(*sizes: int, most: int = 99, ends: bool = True) -> tuple[Any, list[Any]]:
        send, cursors = listing(*sizes, ends=ends)
        try:
            return asyncio.run(source._pages(send, "tools", most)), cursors
        except ToolError as error:
            return str(error), cursors

    assert read(2, 0, 1) == (["0.0", "0.1", "2.0"], [None, "c1", "c2"]) and timeouts == [7.0] * 3
    pages = "MCP server peer lists its tools on more than 3 pages, which is the limit"
    assert read(1, 1, 1, ends=False) == (pages, [None, "c1", "c2"])
    assert read(2, 1, most=2)[0] == ["0.0", "0.1", "1.0"]
    assert read(3, 1, most=2) == ("MCP server peer lists more than 2 tools, which is the limit", [None])
