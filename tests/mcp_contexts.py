"""The context of one request of an MCP client, and an exchange with it, which note what they are sent and give answers."""

from __future__ import annotations

from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from starlette.requests import Request

from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.mcp.server_tasks import EXTENSION

YES, NO = (types.ElicitResult(action="accept", content={"approve": each}) for each in (True, False))
MODERN, OLDER, OLDEST = "2026-07-28", "2025-11-25", "2025-06-18"
ASK = types.ElicitRequest(
    params=types.ElicitRequestFormParams(message="Which?", requested_schema={"type": "object", "properties": {}})
)


def chose(**content: Any) -> types.ElicitResult:
    """An answer of the user."""
    return types.ElicitResult(action="accept", content=content)


class Session:
    """A connection with a client that declared these capabilities, and answers requests in turn."""

    def __init__(self, declared: types.ClientCapabilities | None, answers: tuple[Any, ...]):
        self.client_capabilities, self.answers = declared, list(answers)
        self.sent: list[Any] = []
        self.told: list[Any] = []
        self.logged: list[Any] = []

    async def send_request(self, request: Any, kind: Any, metadata: Any = None) -> Any:
        self.sent.append((request, kind, metadata.related_request_id))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None:
        self.told.append((done, total, message))

    async def send_log_message(self, level: Any, text: Any, *, related_request_id: Any) -> None:
        self.logged.append((level, text, related_request_id))


def context(
    version: str = MODERN,
    *answers: Any,
    client: str | None = None,
    asks: bool = True,
    tasks: bool = False,
    name: str | None = None,
    method: str = "tools/call",
    params: Any = None,
) -> ServerRequestContext[Any, Any]:
    """A request with the id 7; `client` and `name`, the header Mcp-Name, make it one over HTTP."""
    declared = types.ClientCapabilities(
        elicitation=types.ElicitationCapability() if asks else None, extensions={EXTENSION: {}} if tasks else None
    )
    request = None
    if client is not None or name is not None:
        headers = [] if name is None else [(b"mcp-name", name.encode())]
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers}
        if client is not None:
            attach(scope, ActiveRequest("r", Client(client, ClientLimits()), "/mcp"))
        request = Request(scope)
    return ServerRequestContext(
        session=Session(declared, answers),  # type: ignore[arg-type]
        lifespan_context={},
        protocol_version=version,
        method=method,
        params=params,
        request_id=7,
        request=request,
    )


class Heard(ParkedExchange):
    """An exchange whose client gives these answers at once, and which notes what it is told."""

    is_cancelled = False

    def __init__(self, *answers: Any, client: str | None = None, asks: bool = True, task: str = ""):
        super().__init__(None, {"elicitation": {}} if asks else {}, {}, client=client)
        self.task, self.answers = task, list(answers)
        self.asked: list[tuple[str, Any]] = []
        self.told: list[Any] = []

    async def ask(self, key: str, request: Any) -> Any:
        self.asked.append((key, request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return await answer() if callable(answer) else answer

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        self.told.append((done, total, message))


def said(result: Any) -> str:
    """The text of a result."""
    (block,) = result.content
    return f"{'error: ' if result.is_error else ''}{block.text}"
