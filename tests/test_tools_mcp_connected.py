"""An MCP server's tools, resources and prompts as an agent sees them, and the connection: opened, ended, told of."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import anyio

from firsthand.errors import ConfigError, ToolError
from firsthand.tools.mcp.connection import McpConnection
from firsthand.tools.mcp.definitions import tool_name
from firsthand.tools.mcp.mcp import mcp
from firsthand.tools.mcp.orphan_guard import guarded_process
from firsthand.tools.mcp.remote_tools import EachAttempt, RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.stdio_frames import KEPT_STDERR, MAX_NOISE, ServerProcess, _keep_stderr, _pass_on, _read

LIBRARY = str(Path(__file__).parent / "mcp_peers" / "library_server.py")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def library(mode: str = "full", **settings: Any) -> ServerDeclaration:
    return ServerDeclaration("lib", command=sys.executable, args=("-S", LIBRARY, mode), **settings)


def with_source(work: Callable[[RemoteTools], Awaitable[Any]], mode: str = "full", **settings: Any) -> Any:
    """The result of work with the open source of the library."""

    async def main() -> Any:
        source = RemoteTools(library(mode, **settings))
        try:
            await source.open()
            return await work(source)
        finally:
            await source.close()

    return asyncio.run(main())


async def said(source: RemoteTools, name: str, **arguments: Any) -> str:
    """The result of a tool as its model reads it, or its error."""
    (tool,) = [each for each in source.tools if each.name == f"lib__{name}"]
    try:
        return await tool(arguments)
    except ToolError as error:
        return f"ToolError: {error}"


ODD = tool_name("lib", "odd.name")


def test_all_that_a_server_has_is_read_page_by_page_and_offered_under_its_name() -> None:
    async def work(source: RemoteTools) -> None:
        assert [(each.name, each.effect, each.origin, each.timeout_s) for each in source.tools] == [
            ("lib__alpha", "external", None, 12.0),
            ("lib__get_prompt", "external", None, 12.0),
            ("lib__lend", "read", None, 12.0),
            (ODD, "external", None, 12.0),
            ("lib__list_resources", "read", None, 12.0),
            ("lib__read_resource", "external", None, 12.0),
            ("lib__list_prompts", "read", None, 12.0),
        ]
        assert (
            source.left_out == {"broken": "its schema refers to 'http://x', which is outside of it"}
            and source.changes == {}
        )
        assert sorted(source.definitions) == ["alpha", "broken", "get_prompt", "lend", "odd.name"]
        assert source.definitions["alpha"].hints == {"readOnlyHint": True} and source.definitions["lend"].hints == {}
        assert (source.version, source.is_large, source.name, source.server) == (1, False, "mcp:lib", "lib")
        assert await said(source, "lend", title="é") == '{"title": "\\u00e9"}'
        assert await said(source, "list_resources") == (
            "lib:///a: The A. Of books.\nlib:///b: b.\nlib:///{id} (a template): by id\nx:{y} (a template): D."
        )
        assert await said(source, "read_resource", uri="lib:///b") == "the text of lib:///b"
        assert await said(source, "list_prompts") == "praise(book, tone?): Praises.\nplain(): Plain words"
        assert await source._get_prompt("praise", {"book": "Emma"}) == 'user: praise {"book": "Emma"}'
        send: Any = lambda client, cursor: client.list_tools(cursor=cursor)  # noqa: E731
        assert len(await source._pages(send, "tools", 3)) == 6
        with pytest.raises(ToolError, match="MCP server lib lists more than 2 tools, which is the limit"):
            await source._pages(send, "tools", 2)

    only = ("lend", "alpha", "broken", "odd*", "get_*")
    with_source(work, trusted=True, only=only, effects={"lend": "read"}, timeout_s=7)


@pytest.mark.slow
def test_resources_and_prompts_are_offered_where_there_are_any_or_may_be() -> None:
    def offered(mode: str, **settings: Any) -> list[str]:
        async def work(source: RemoteTools) -> list[str]:
            return [
                each.name.removeprefix("lib__") for each in source.tools if each.name[5:9] in ("list", "read", "get_")
            ]

        names: list[str] = with_source(work, mode, only=("none",), **settings)
        return names

    both = ["list_resources", "read_resource"], ["list_prompts", "get_prompt"]
    assert offered("full", resources=False) == both[1] and offered("full", prompts=False) == both[0]
    assert offered("bare") == both[0] and offered("plain") == []

    async def none(source: RemoteTools) -> list[str]:
        return [await said(source, "list_resources"), await said(source, "list_prompts")]

    assert with_source(none, "dynamic", trusted=True) == ["There are none."] * 2


@pytest.mark.slow
def test_a_server_of_more_tools_than_are_shown_at_once_offers_a_search() -> None:
    async def work(source: RemoteTools) -> None:
        extra = ["list_prompts", "list_resources", "read_resource", "search_tools"]
        assert source.is_large and sorted(each.name for each in source.tools) == [f"lib__{each}" for each in extra]
        (search,) = [each for each in source.tools if each.name == "lib__search_tools"]
        assert search.effect == "write" and source.version == 1
        none = "None of the 5 tools fits; try other words."
        assert await source._search_tools("zebra") == none and source.version == 1
        found = await source._search_tools("lends a book", 0)
        assert found == 'These tools are available now:\nlib__lend {"title": "<string>"}\nLends a book.'
        assert source.version == 2 and "lib__lend" in [each.name for each in source.tools]
        assert await source._search_tools("book") == found and source.version == 2, "nothing new was found"
        assert (await source._search_tools("book odd alpha hidden", 11)).count("\nlib__") == 4
        assert source.version == 3

    with_source(work, lazy_above=4)
    for most, large in ((5, False), (4, True)):

        async def is_large(source: RemoteTools) -> bool:
            return source.is_large

        assert with_source(is_large, lazy_above=most) is large
    with pytest.raises(ConfigError, match=r"the MCP server lib has 5 tools, .*shared = false, or with lazy_above = 5"):
        with_source(is_large, lazy_above=4, shared=True)


@pytest.mark.slow
def test_failed_calls_are_told_as_words_of_the_server_and_a_tool_that_went_away_is_not_called() -> None:
    async def work(source: RemoteTools) -> None:
        lend = next(each for each in source.tools if each.name == "lib__lend")
        refused = "MCP server lib refused the request (code -32602): no </untrusted> today"
        odd = next(each for each in source.tools if each.name == ODD)
        with pytest.raises(ToolError) as error:
            await odd({})
        assert str(error.value) == refused
        assert source.version == 1
        assert await said(source, "alpha") == "ToolError: alpha failed without a message"
        assert source.version == 2 and "lib__lend" not in [each.name for each in source.tools]
        assert source.connection.changed == {"resources"}, "the tools were read again, the resources were not"
        with pytest.raises(ToolError, match="MCP server lib does not offer 'lend' any more"):
            await lend({})
        silent = "ToolError: MCP server lib did not answer within 1 s"
        assert await said(source, "get_prompt") == silent and source.connection.calls == []
        connection = source.connection
        process = connection._process
        await source.close()
        assert process is not None and process.process.returncode is not None
        with pytest.raises(ToolError, match=r"MCP server lib (ended with exit code 0|was ended by signal 15)$"):
            _ = connection.client

    with_source(work, timeout_s=1.0)


# -- the connection --


@pytest.mark.slow
def test_there_is_no_client_before_a_connection_is_open_nor_after_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        unopened = McpConnection(library())
        with pytest.raises(ToolError, match="MCP server lib is not connected"):
            _ = unopened.client
        await unopened.close()
        with pytest.raises(ToolError, match="MCP server lib is not connected"):
            _ = RemoteTools(library()).connection
        mute = McpConnection(
            ServerDeclaration(
                "lib",
                command="sh",
                args=("-c", f"echo {'w' * 301} >&2; cat >/dev/null"),
                opening_s=1.0,
                timeout_s=600.0,
            )
        )
        with pytest.raises(ToolError) as error:
            async with asyncio.timeout(9):  # it is not waited for as one is that was open
                await mute.open()
        assert str(error.value) == "MCP server lib did not answer within 1 s; it wrote: " + "w" * 300
        assert mute._process is not None and mute._process.process.returncode is not None, "the process has ended"
        missing = McpConnection(ServerDeclaration("lib", command="no-such-program-here"))
        with pytest.raises(ToolError) as error:
            await missing.open()
        assert str(error.value) == (
            "the MCP server lib cannot be started: no-such-program-here: No such file or directory"
        )

    asyncio.run(main())


def test_a_program_is_started_with_the_values_of_the_variables_in_its_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OWN_KEY", "k-1234")
    args = ("-S", "-c", "import sys; sys.exit(f'got {sys.argv[1:]}')", "${OWN_KEY}", "--key=${OWN_KEY}")

    async def main() -> None:
        with pytest.raises(ToolError, match=r"got \['k-1234', '--key=k-1234'\]"):
            await McpConnection(ServerDeclaration("lib", command=sys.executable, args=args)).open()

    asyncio.run(main())


def test_each_attempt_has_a_connection_of_its_own_unless_it_is_shared(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[servers.a]\ncommand = "x"\n[servers.b]\ncommand = "y"\nshared = true\n')
    each, shared = mcp(str(file))
    assert isinstance(each, EachAttempt) and isinstance(shared, RemoteTools)
    assert (each.name, shared.name, shared.shared, shared.version, shared.tools) == ("mcp:a", "mcp:b", True, 0, ())
    assert each() is not each() and each().declaration is each.declaration


def guards(group: int) -> list[Path]:
    """The processes that watch over a group, where the system lists processes as files."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if file.read_bytes().endswith(f"firsthand-mcp-guard\0{group}\0".encode()):
                found.append(file)
    return found


def test_a_program_runs_in_its_folder_with_its_variables_and_is_ended_with_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.sh").write_text('#!/bin/sh\nsleep 20 &\necho "$PWD $A $1"\nexec sleep 600\n')
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "text").write_text("")

    async def main() -> None:
        env = {"A": "b", "PATH": os.environ["PATH"]}
        async with guarded_process("./run.sh", ("c d",), env=env, cwd=str(tmp_path), limit=65_536) as process:
            assert process.stdout is not None
            assert (await process.stdout.readline()).decode() == f"{tmp_path} b c d\n"
            assert os.getpgid(process.pid) == process.pid and process.returncode is None
            assert len(guards(process.pid)) == (sys.platform == "linux")
        async with asyncio.timeout(10):  # a child that lived on would hold the pipe open
            assert await process.stdout.read() == b""
        assert await process.wait() == -signal.SIGKILL
        assert not guards(process.pid), "nothing watches over what has ended"
        for command, cwd, number in (
            ("./text", str(tmp_path), errno.EACCES),
            ("./none", str(tmp_path), errno.ENOENT),
            ("./run.sh", "/", errno.ENOENT),
            ("no-such-program-here", "", errno.ENOENT),
        ):
            with pytest.raises(OSError) as error:
                async with guarded_process(command, (), env=env, cwd=cwd, limit=65_536):
                    pass
            assert (error.value.errno, error.value.filename) == (number, command)
        monkeypatch.chdir(tmp_path)
        for command, path in (("sh", "/nowhere"), ("text", env["PATH"])):  # looked for where the program would look
            with pytest.raises(FileNotFoundError):
                async with guarded_process(command, (), env={"PATH": path}, cwd="", limit=65_536):
                    pass
        own = {"A": "b", "PATH": f"{tmp_path}:{os.defpath}"}
        async with guarded_process("run.sh", ("c",), env=own, cwd="/", limit=65_536) as process:
            assert process.stdout is not None and (await process.stdout.readline()) == b"/ b c\n"
        async with asyncio.timeout(10):
            await process.stdout.read()
            await process.wait()

    asyncio.run(main())


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_line_of_a_guarded_program_is_as_long_as_it_was_told(stream: str) -> None:
    to = {"stdout": "1", "stderr": "2"}[stream]

    async def line(size: int, limit: int) -> str:
        code = f'head -c {size} /dev/zero | tr "\\0" x >&{to}; echo >&{to}'
        async with guarded_process(
            "sh", ("-c", code), env={"PATH": os.environ["PATH"]}, cwd="", limit=limit
        ) as process:
            try:
                return str((await getattr(process, stream).readline()).decode())
            except ValueError:
                return "too long"
            finally:
                process.kill()
                await process.communicate()

    for size, limit in ((200_000, 200_001), (100, 100), (100_000, 1 << 20)):
        assert asyncio.run(line(size, limit)) == "x" * size + "\n"
    for size, limit in ((101, 100), (70_000, 65_536)):
        assert asyncio.run(line(size, limit)) == "too long"


# -- frames --


def epitaph(script: str) -> str:
    async def main() -> str:
        process = await asyncio.create_subprocess_exec("sh", "-c", script, stderr=asyncio.subprocess.PIPE)
        server = ServerProcess(process)
        await _keep_stderr(server)
        await process.wait()
        return server.epitaph()

    return asyncio.run(main())


def test_the_end_of_a_server_is_told_with_its_last_words() -> None:
    assert epitaph("exit 0") == "ended with exit code 0"
    assert epitaph("echo one >&2; echo ' two  words ' >&2; exit 3") == (
        "ended with exit code 3; its last words were: two words"
    )
    assert epitaph("kill -9 $$") == "was ended by signal 9"
    running = ServerProcess(SimpleNamespace(returncode=None))  # type: ignore[arg-type]
    assert running.epitaph() == "closed its output"
    running.reason = "sent too much"
    running.stderr += b"x" * 400
    assert running.epitaph() == f"sent too much; its last words were: {'x' * 300}"


def reader(*pieces: bytes) -> Any:
    """The stream of a process that wrote these pieces, one after the other."""
    left = [*pieces, b""]

    async def read(most: int) -> bytes:
        return left.pop(0)

    return SimpleNamespace(read=read)


def test_messages_are_cut_at_line_ends_wherever_the_pieces_end() -> None:
    def note(n: int) -> bytes:
        return b'{"jsonrpc":"2.0","method":"n%d"}' % n

    async def main() -> None:
        whole = b"\n".join([note(1), note(2), b"", b"  ", b"no message", note(3), note(4), note(5)]) + b"\n" + note(6)
        for size in (1, 7, 40, 1_000):
            pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
            server = ServerProcess(SimpleNamespace(stdout=reader(*pieces)))  # type: ignore[arg-type]
            inbound, read = anyio.create_memory_object_stream[Any](64)
            await _read(server, inbound)
            methods = [each.message.method async for each in read]
            assert methods == ["n1", "n2", "n3", "n4", "n5"], "what has no line end is no message"
            assert server.noise == 1 and server.reason == ""

    asyncio.run(main())


def test_a_server_may_write_a_thousand_lines_that_are_no_messages() -> None:
    async def main() -> None:
        inbound, read = anyio.create_memory_object_stream[Any](4)
        with inbound, read:
            server = ServerProcess(SimpleNamespace())  # type: ignore[arg-type]
            for _ in range(MAX_NOISE):
                await _pass_on(server, b"no message", inbound)
            assert server.reason == ""
            server.awaited.add(7)
            left = server.flow._left
            await _pass_on(server, b'{"jsonrpc":"2.0","id":7,"result":{}}', inbound)
            assert server.awaited == set() and server.flow._left == left, "an awaited answer costs nothing"
            await _pass_on(server, b'{"jsonrpc":"2.0","id":7,"result":{}}', inbound)
            assert server.flow._left < left and server.reason == ""
            await _pass_on(server, b"no message", inbound)
            assert server.reason == "wrote more than 1,000 lines that are no messages of MCP"
            talkative = ServerProcess(SimpleNamespace(stderr=reader(b"a" * KEPT_STDERR, b"bc")))  # type: ignore[arg-type]
            await _keep_stderr(talkative)
            assert bytes(talkative.stderr) == b"a" * (KEPT_STDERR - 2) + b"bc"

    asyncio.run(main())
