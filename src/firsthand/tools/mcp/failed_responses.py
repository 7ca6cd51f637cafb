"""Tells a tool call that ended with a status of HTTP from one that the MCP server refused.

The SDK makes a JSON-RPC error of every such status, for 404 with the code that servers refuse unknown methods with. A proxy
that gave up, or a server that broke, says nothing on whether the call was carried out.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import mcp_types as types


class McpHttpClient(httpx2.AsyncClient):
    """The client of one endpoint. The reply to a tool call that failed without a JSON-RPC error gets one with its status."""

    session_lost = False
    """True once the server answered that it does not know the session: MCP wants a new one then."""
    failed = ""
    """The status of the last message that was posted, such as `HTTP 401 Unauthorized`; empty unless it failed."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The response, after the sign-in of the endpoint if it wants one."""
        response = await super().send(request, **options)
        said = f"HTTP {response.status_code} {response.reason_phrase}".strip()
        if request.method == "POST":
            self.failed = said if response.status_code >= 400 else ""
        if response.status_code < 400:
            return response
        # to GET and DELETE, servers without them say 404 as well
        is_message = request.method == "POST" and "mcp-session-id" in request.headers
        self.session_lost |= response.status_code == 404 and is_message
        if (call := _call_id(request)) is None or await _is_refusal(response):
            return response
        await response.aclose()
        error = {"code": types.INTERNAL_ERROR, "message": f"{said}, without an answer to the call"}
        return httpx2.Response(
            response.status_code, json={"jsonrpc": "2.0", "id": call, "error": error}, request=request
        )


def _call_id(request: httpx2.Request) -> object:
    """The id of a tool call; None for any other request."""
    if request.method != "POST" or b"tools/call" not in request.content:
        return None
    body = json.loads(request.content)  # our own
    return body.get("id") if body.get("method") == "tools/call" else None


async def _is_refusal(response: httpx2.Response) -> bool:
    """True if the body is a JSON-RPC error; it has been read then."""
    if not response.headers.get("content-type", "").lower().startswith("application/json"):
        return False
    try:
        read = types.jsonrpc_message_adapter.validate_json(await response.aread(), by_name=False)
    except (httpx2.HTTPError, httpx2.StreamError, ValueError, RecursionError):
        return False
    return isinstance(read, types.JSONRPCError)
