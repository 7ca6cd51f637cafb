"""A2A 1.0 as an app: the card, JSON-RPC at /a2a and HTTP+JSON below /a2a/rest; gRPC has a port of its own.

The wire is the official SDK's. Around it are this server's keys, hosts, limits and log, stores that survive `kill -9`, and
address rules for webhooks.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

from a2a.extensions.common import HTTP_EXTENSION_HEADER, get_requested_extensions
from a2a.server.context import ServerCallContext
from a2a.server.jsonrpc_models import JSONParseError
from a2a.server.request_handlers.response_helpers import agent_card_to_dict, build_error_response
from a2a.server.routes.agent_card_routes import create_agent_card_routes
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.server.routes.jsonrpc_routes import create_jsonrpc_routes
from a2a.server.routes.rest_routes import create_rest_routes
from a2a.types.a2a_pb2 import AgentCard, TaskState
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import A2AError, ContentTypeNotSupportedError, InvalidParamsError, InvalidRequestError
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from firsthand.serve.a2a.a2a_handler import A2AHandler, ClientUser, go_on_all
from firsthand.serve.a2a.a2a_settings import MAX_VALUES
from firsthand.serve.a2a.agent_card import JSONRPC_PATH, REST_PATH
from firsthand.serve.a2a.event_stream import readable_events
from firsthand.serve.a2a.grpc_door import GrpcDoor
from firsthand.serve.admission.active_request import request_of
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.replies import Reply, reply
from firsthand.serve.http.request_body import MAX_DEPTH

CARD_AGE_S = 300
_READ_BYTES = 65_536
"""A request that reads tasks has no more than this."""
_JSON = ("application/json", "application/a2a+json")
_REST = re.compile(
    r"/a2a/rest(/message:(send|stream)|/extendedAgentCard|/tasks(/[^/]+(/pushNotificationConfigs(/[^/]+)?)?)?)"
)
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class _Contexts(ServerCallContextBuilder):
    """Makes the SDK's context of a request: its user is the server's client."""

    def build(self, request: Request) -> ServerCallContext:
        """The context of a request."""
        headers = request.headers
        return ServerCallContext(
            user=ClientUser(request_of(request.scope).client.name),
            state={"headers": dict(headers)},
            requested_extensions=get_requested_extensions(headers.getlist(HTTP_EXTENSION_HEADER)),
        )


def a2a_app(handler: A2AHandler, card: AgentCard, *, grpc: GrpcDoor | None = None) -> MountedApp:
    """The card, JSON-RPC and HTTP+JSON at the root of a server; gRPC runs as long as the server does."""
    modified = formatdate(usegmt=True)

    async def plain(card: AgentCard) -> AgentCard:
        return card

    routes = [
        *create_agent_card_routes(card, card_modifier=plain, cache_control=f"public, max-age={CARD_AGE_S}"),
        *create_jsonrpc_routes(handler, JSONRPC_PATH, context_builder=_Contexts()),
        *create_jsonrpc_routes(handler, f"{JSONRPC_PATH}/", context_builder=_Contexts()),
        *create_rest_routes(handler, context_builder=_Contexts(), path_prefix=REST_PATH),
    ]
    app = Starlette(routes=[route for route in routes if not _is_tenant(route)])
    app.router.redirect_slashes = False

    @asynccontextmanager
    async def alive() -> AsyncGenerator[None, None]:
        if grpc is not None:
            await grpc.start(handler)
        await go_on_all(handler)
        try:
            yield
        finally:
            if grpc is not None:
                await grpc.stop()
            await handler.close()

    return MountedApp(
        _Guarded(app, modified),
        route_of=_route_of,
        open_routes=frozenset((AGENT_CARD_WELL_KNOWN_PATH,)),
        work_methods=frozenset({"POST"}),
        most_values=MAX_VALUES,
        lifespan=alive,
    )


class _Guarded:
    """The app behind checks of the body that come before the SDK reads it, and with headers that it leaves out."""

    def __init__(self, app: Starlette, modified: str):
        self._app, self._modified = app, modified

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the SDK answer, unless the body is none that it should read."""
        path = scope["path"]
        if path != AGENT_CARD_WELL_KNOWN_PATH and scope["method"] == "POST":
            request = request_of(scope)
            kind = (request.content_type or "").split(";")[0].strip().lower()
            if kind not in _JSON and (request.body or kind):
                why = f"Content-Type is {kind[:60] or 'missing'!r}: send application/json"
                await _refused(path, ContentTypeNotSupportedError(why), 415)(scope, receive, send)
                return
            if not _is_utf8(request.body):
                await _refused(path, JSONParseError(message="the body is not valid UTF-8"), 400)(scope, receive, send)
                return
            if _is_deep(request.body):
                why = f"the body nests lists and objects more than {MAX_DEPTH} deep"
                await _refused(path, InvalidRequestError(why), 400)(scope, receive, send)
                return
        if (state := _odd_state(scope)) is not None:
            why = f"status is {state[:60]!r}, which is no state of a task: give one such as TASK_STATE_WORKING, or none"
            await _refused(path, InvalidParamsError(why), 400, _rpc_request(scope).get("id"))(scope, receive, send)
            return
        wants_a2a = b"application/a2a+json" in dict(scope["headers"]).get(b"accept", b"")

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                if path == AGENT_CARD_WELL_KNOWN_PATH:
                    message["headers"] = [*message["headers"], (b"last-modified", self._modified.encode())]
                elif not wants_a2a:  # section 11.1 says application/json, and the SDK sends the newer type
                    message["headers"] = [
                        (name, b"application/json" if value == b"application/a2a+json" else value)
                        for name, value in message["headers"]
                    ]
            await send(message)

        if not _reads(scope):
            async with readable_events(sent) as told_on:
                await self._app(scope, receive, told_on)
            return
        told: list[Message] = []  # in a thread: the SDK makes the JSON of a large task at one go
        await asyncio.to_thread(_run_apart, self._app, scope, told)
        for message in told:
            await sent(message)


def _odd_state(scope: Scope) -> str | None:
    """The state that a list of tasks is asked for and there is none of; the SDK would pass over it and list all tasks."""
    state: object = None
    if scope["method"] == "GET" and scope["path"] == f"{REST_PATH}/tasks":
        state = QueryParams(scope.get("query_string", b"")).get("status")
    elif (asked := _rpc_request(scope)).get("method") == "ListTasks" and isinstance(given := asked.get("params"), dict):
        state = given.get("status")
    known = {"", *TaskState.keys(), *map(str, TaskState.values())}
    return state if isinstance(state, str) and state not in known else None


def _reads(scope: Scope) -> bool:
    """True for a request that reads tasks, and waits for nothing."""
    if scope["method"] == "GET":
        return re.fullmatch(rf"{REST_PATH}/tasks(/[^/]+)?", scope["path"]) is not None and ":" not in scope["path"]
    return _rpc_request(scope).get("method") in ("GetTask", "ListTasks")


def _rpc_request(scope: Scope) -> dict[str, Any]:
    """The request of JSON-RPC in a body of the size of one that reads tasks; nothing in any other."""
    if scope["path"].rstrip("/") != JSONRPC_PATH or len(body := request_of(scope).body) > _READ_BYTES:
        return {}
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}


def _run_apart(app: ASGIApp, scope: Scope, told: list[Message]) -> None:
    """Let an app answer in an event loop of its own, and keep what it sends."""
    body = request_of(scope).body

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def keep(message: Message) -> None:
        told.append(message)

    asyncio.run(app(scope, receive, keep))  # type: ignore[arg-type]


def _refused(path: str, error: A2AError | JSONParseError, status: int, id: object = None) -> Reply:
    """The refusal in the form of the binding that the path belongs to; `id` is that of a JSON-RPC request that was read."""
    if path.startswith(REST_PATH):
        body = build_rest_error_payload(error if isinstance(error, A2AError) else InvalidRequestError(error.message))
        body["error"]["code"] = status
        return reply(body, status=status)
    told = build_error_response(id if isinstance(id, str | int) else None, error)
    return reply(told, status=200 if status == 400 else status)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_deep(body: bytes) -> bool:
    depth = 0
    for found in _BRACKETS.finditer(body):
        mark = found[0][:1]
        depth += 1 if mark in b"[{" else -1 if mark in b"]}" else 0
        if depth > MAX_DEPTH:
            return True
    return False


def _is_tenant(route: object) -> bool:
    """True for the SDK's mount of tenants, which would take every path of two parts."""
    return getattr(route, "path", "") == "/{tenant}"


def _route_of(path: str) -> str | None:
    """The pattern of a path, as few as there are routes."""
    if path in (AGENT_CARD_WELL_KNOWN_PATH, JSONRPC_PATH, f"{JSONRPC_PATH}/"):
        return path.rstrip("/")
    if (found := _REST.fullmatch(path)) is None:
        return None
    if found[3] is None:
        return path
    verb = re.search(r":(cancel|subscribe)$", path)
    tail = "" if found[4] is None else "/pushNotificationConfigs" + ("" if found[5] is None else "/{config}")
    return f"{REST_PATH}/tasks/{{id}}{':' + verb[1] if verb and found[4] is None else ''}{tail}"


def card_json(card: AgentCard) -> str:
    """The card as the JSON that is served."""
    return json.dumps(agent_card_to_dict(card), indent=2, ensure_ascii=False)
