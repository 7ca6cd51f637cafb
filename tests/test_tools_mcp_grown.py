"""Lists of tools that grow while their server is in use, past what is offered at once or into names of other tools."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.errors import ConfigError, ToolError
from firsthand.tool_source import tools_at_hand
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from test_tools_mcp_listed import CHANGES, LISTS, Told, home, source

__all__ = ["home"]
BOTH = ["list_resources", "read_resource"]


def listed(names: Sequence[str]) -> list[Any]:
    schema: Any = {"type": "object", "properties": {}}
    return [tuple(types.Tool(name=name, description=f"Does {name}.", input_schema=schema) for name in names)]


def offered(found: RemoteTools) -> list[str]:
    return [name.removeprefix("s__") for name in tools_at_hand({}, None, [found])]


async def opened(*names: str, **settings: Any) -> tuple[RemoteTools, Any]:
    """A source whose server lists these tools, and a function by which it lists others."""
    made = Told({"tools": CHANGES, "resources": CHANGES}, tools=listed(names))
    found = source(made, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("firsthand.tools.mcp.remote_tools.McpConnection", lambda *_: made)
        await found.open()

    async def lists(*names: str) -> list[str]:
        made.pages["tools"] = listed(names)
        made.changed.add("tools")
        await found.refresh()
        return offered(found)

    return found, lists


def test_what_was_offered_stays_and_the_rest_is_searched_once_a_list_has_grown_large() -> None:
    async def grown() -> None:
        found, lists = await opened("a", "b", lazy_above=3)
        assert offered(found) == ["a", "b", *BOTH] and not found.is_large
        assert await lists("a", "b", "c") == ["a", "b", "c", *BOTH] and not found.is_large
        assert await lists("a", "b", "d", "e") == ["a", "b", "search_tools", *BOTH] and found.is_large
        version = found.version
        await found._search_tools("does e")
        assert offered(found) == ["a", "b", "d", "e", "search_tools", *BOTH] and found.version > version
        for more in ("f", "fg"):
            assert await lists(*"abde", *more) == ["a", "b", "d", "e", "search_tools", *BOTH], "found, and no others"
        assert await lists("x") == ["x", *BOTH]
        assert await lists("a", "b", "d", "x") == ["x", "search_tools", *BOTH], "what was offered last"
        assert found.left_out == {}

    asyncio.run(grown())


def test_a_shared_server_that_grows_goes_on_with_its_tools_and_leaves_the_surplus_out() -> None:
    async def grown() -> None:
        found, lists = await opened("m", "n", lazy_above=3, shared=True)
        assert await lists("b", "a", "m", "n") == ["a", "m", "n", *BOTH] and not found.is_large
        assert found.left_out == {"b": "a shared server offers at most lazy_above = 3 tools once it is open"}
        assert sorted(found.definitions) == ["a", "m", "n"]
        assert await lists("b", "m", "n") == ["b", "m", "n", *BOTH] and found.left_out == {}

    asyncio.run(grown())


def test_a_shared_server_that_is_large_from_the_start_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        """
import json, sys
kept = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": True}},
                       "serverInfo": {"name": "x", "version": "1"}},
        "tools/list": {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in "abc"]}}
for line in sys.stdin:
    asked = json.loads(line)
    if (found := kept.get(asked["method"])) is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": found}), flush=True)
    elif "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
"""
    )

    async def begun(**settings: Any) -> list[str]:
        found = RemoteTools(ServerDeclaration("s", command=sys.executable, args=(str(script),), **settings))
        try:
            await found.open()
            return offered(found)
        finally:
            await found.close()

    with pytest.raises(ConfigError, match="has 3 tools, and what a search finds belongs to one attempt"):
        asyncio.run(begun(shared=True, lazy_above=2))
    assert asyncio.run(begun(shared=True, lazy_above=3)) == ["a", "b", "c"]
    newest = script.read_text()
    for spoken in ("2025-11-25", "2025-06-18"):
        script.write_text(newest.replace("2025-11-25", spoken))
        for revision in ("auto", "2025-11-25"):  # the handshake of 2025-11-25 agrees on older ones too
            assert asyncio.run(begun(revision=revision)) == ["a", "b", "c"]
        with pytest.raises(ToolError, match=f"speaks {spoken}, and revision is '2026-07-28': set revision to 'auto'$"):
            asyncio.run(begun(revision="2026-07-28"))


def test_a_later_tool_cannot_take_the_name_of_one_that_is_offered_for_resources() -> None:
    async def named() -> None:
        found, lists = await opened("a")
        ours = found._extra
        assert await lists("a", "read_resource", "b") == ["a", "b", *BOTH] and found.tools[2:] == ours
        assert found.left_out.keys() == {"read_resource"} and "read_resource" not in found.definitions
        theirs, _ = await opened("read_resource")
        assert offered(theirs) == ["read_resource", "list_resources"], "at the start the server's own stands"
        assert theirs.left_out == {}

    asyncio.run(named())


def test_a_server_with_a_tool_named_as_the_search_is_searched_by_ours_while_it_is_large_and_after() -> None:
    async def named() -> None:
        found, lists = await opened("a", "b", "search_tools", lazy_above=3)
        assert offered(found) == ["a", "b", "search_tools", *BOTH] and found._search not in found.tools
        assert await lists("a", "b", "c", "search_tools") == ["a", "b", "search_tools", *BOTH]
        assert found._search in found.tools and found.left_out.keys() == {"search_tools"}
        assert await lists("a", "search_tools") == ["a", *BOTH], "a rule for one never counts for the other"
        large, _ = await opened("a", "search_tools", lazy_above=1)
        assert offered(large) == ["search_tools", *BOTH] and large._search in large.tools

    asyncio.run(named())


def test_the_record_of_a_server_is_made_again_when_other_tools_of_it_are_left_out() -> None:
    async def noted() -> None:
        found, lists = await opened("a")
        found._noted.add(1)
        await lists("a", "b")
        assert found._noted == {1}
        await lists("a", "read_resource")
        assert found._noted == set()

    asyncio.run(noted())


def test_a_server_without_changing_lists_has_the_same_names() -> None:
    made = Told({"tools": LISTS}, tools=listed(["a"]))
    found = source(made)
    asyncio.run(found._read_tools())
    assert offered(found) == ["a"]
