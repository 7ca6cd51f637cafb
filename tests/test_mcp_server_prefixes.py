"""Names of MCP servers that an agent may have together: no server gives a tool the name of another's."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.tools.mcp.definitions import tool_name
from firsthand.tools.mcp.remote_tools import EachAttempt, RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration


def agent(*names: str, shared: bool = False) -> Agent:
    kind: Any = RemoteTools if shared else EachAttempt
    return Agent("a", Scripted([]), react, tools=tuple(kind(ServerDeclaration(each, command="x")) for each in names))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("names", [("a", "a__b"), ("a__b", "a"), ("mail", "a", "a_"), ("a__b__c", "a__b")])
def test_servers_whose_tools_could_have_one_name_are_refused_together(names: tuple[str, ...], shared: bool) -> None:
    with pytest.raises(ConfigError, match=r"^the MCP servers 'a.*' and 'a.*_.*' begin names of tools alike \(a.*__\)"):
        agent(*names, shared=shared)


def test_servers_whose_names_merely_begin_alike_go_together() -> None:
    assert tool_name("a", "b__c") == tool_name("a__b", "c")
    assert len(agent("a", "ab", "a_b", "a-b", "b__a", "_a").tools) == 6
    assert len(agent("files__old", "mail").tools) == 2
