"""The tools, resources and prompts of MCP servers: `mcp:COMMAND`, `mcp:URL`, or `mcp:FILE.toml` with declared effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firsthand.errors import MissingExtra
from firsthand.tools.mcp.server_declaration import declarations

if TYPE_CHECKING:
    from firsthand.tools.mcp.remote_tools import EachAttempt, RemoteTools


def mcp(server: str) -> tuple[EachAttempt | RemoteTools, ...]:
    """The servers that a text names, as sources of tools; a source is opened for each attempt unless declared shared."""
    declared = declarations(server)
    try:
        from firsthand.tools.mcp.remote_tools import EachAttempt, RemoteTools
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "mcp_types"):
            raise
        raise MissingExtra("mcp", "mcp", "a client of MCP servers") from None
    return tuple(RemoteTools(each) if each.shared else EachAttempt(each) for each in declared)
