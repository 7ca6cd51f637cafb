"""Facts of many rooms that drawn or planted changes showed to be untested: exact values, without models or servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand.errors import ToolError
from firsthand.tools.mcp.connection import McpConnection
from firsthand.tools.mcp.server_declaration import ServerDeclaration

# -- tools --


@pytest.mark.parametrize(
    "declared_s, asked_s, said", [(0.01, None, "0.01"), (30.0, 0.02, "0.02"), (0.01, 0.03, "0.03")]
)
def test_a_request_waits_for_its_own_time_or_else_the_declared_one(
    declared_s: float, asked_s: float | None, said: str
) -> None:
    async def silent(client: Any) -> None:
        await asyncio.sleep(20)

    async def asked() -> None:
        connection = McpConnection(ServerDeclaration("peer", command="x", timeout_s=declared_s))
        connection._client = object()  # type: ignore[assignment]
        await connection.request(silent, timeout_s=asked_s)

    with pytest.raises(ToolError, match=f"did not answer within {said} s"):
        asyncio.run(asked())
