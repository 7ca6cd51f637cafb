"""An Exchange: the connection of a running tool with the client that called it.

A tool reports progress, and may ask the client for an answer of its user, a completion of its model, or its roots. By which
of three ways that travels depends on the revision, and no tool knows it: as a request of the server (2025-11-25), as an
`input_required` result that the client answers by calling again (2026-07-28), or as input that a task waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.shared.message import ServerMessageMetadata

from firsthand.message import Json
from firsthand.serve.admission.active_request import request_of
from firsthand.serve.mcp.whole_texts import whole

ClientRequest = types.ElicitRequest | types.CreateMessageRequest | types.ListRootsRequest
"""The requests that a tool may make of the client."""
_RESULTS: dict[type[Any], type[Any]] = {
    types.ElicitRequest: types.ElicitResult,
    types.CreateMessageRequest: types.CreateMessageResult,
    types.ListRootsRequest: types.ListRootsResult,
}
MODERN = "2026-07-28"
"""The first revision that has the extension of tasks, and in which a client cancels by closing its stream."""
_NEEDED = {types.ElicitRequest: "elicitation", types.CreateMessageRequest: "sampling", types.ListRootsRequest: "roots"}


class Exchange(Protocol):
    """The connection of a running tool with its client."""

    @property
    def client(self) -> str | None:
        """The name of the client whose key the call carried; None over standard input, and without keys."""

    @property
    def task(self) -> str:
        """The id of the task that the call became, by which a durable one is found again; empty for any other call."""

    @property
    def note(self) -> str:
        """The note that an interrupted try of the task kept; empty for a first one."""

    @property
    def is_cancelled(self) -> bool:
        """True if the client cancelled the call, or its task: one that is ended for another reason may go on later."""

    def keep(self, note: str) -> None:
        """Keep a note for the try that goes on with the task after a restart."""

    def can(self, capability: str) -> bool:
        """True if the client answers `elicitation`, `sampling` or `roots`."""

    async def ask(self, key: str, request: ClientRequest) -> Any:
        """The client's result. `key` names the request within the call. MCPError if the client does not answer such."""

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Report how far the call has come."""

    async def log(self, level: Any, text: str) -> None:
        """Send a message for the client's log."""


def result_type(request: ClientRequest) -> type[Any]:
    """The type of the result of a request."""
    return _RESULTS[type(request)]


_exchange: ContextVar[Exchange] = ContextVar("firsthand_exchange")


@contextmanager
def exchanging(exchange: Exchange) -> Iterator[None]:
    """Makes an exchange the current one inside the block."""
    mark = _exchange.set(exchange)
    try:
        yield
    finally:
        _exchange.reset(mark)


def current_exchange() -> Exchange:
    """The exchange of the call that is running."""
    return _exchange.get()


def capabilities_of(ctx: ServerRequestContext[Any, Any]) -> Json:
    """The capabilities that the client declared, as they stand on the wire."""
    declared = ctx.session.client_capabilities
    return {} if declared is None else declared.model_dump(by_alias=True, mode="json", exclude_none=True)


def expect_capability(declared: Mapping[str, Any], request: ClientRequest) -> None:
    """MCPError if the client did not declare that it answers such a request."""
    needed = _NEEDED[type(request)]
    if needed not in declared:
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"this tool needs a client with the capability {needed}",
            {"requiredCapabilities": {needed: {}}},
        )


class DirectExchange:
    """Asks by requests of the server, on the stream of the call: 2025-11-25 and before."""

    task = note = ""

    def __init__(self, ctx: ServerRequestContext[Any, Any]):
        self._ctx = ctx
        self._declared = capabilities_of(ctx)
        self.client = client_of(ctx)

    @property
    def is_cancelled(self) -> bool:
        """True if the client cancelled the call."""
        return is_given_up(self._ctx)

    def keep(self, note: str) -> None:
        """Nothing is kept of a call that is no task."""

    def can(self, capability: str) -> bool:
        """True if the client declared it."""
        return capability in self._declared

    async def ask(self, key: str, request: ClientRequest) -> Any:
        """The client's result."""
        expect_capability(self._declared, request)
        meta = ServerMessageMetadata(related_request_id=self._ctx.request_id)
        return await self._ctx.session.send_request(whole(request), _RESULTS[type(request)], metadata=meta)

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Report to the client, if it asked for that."""
        await self._ctx.session.report_progress(done, total, whole(message) or None)

    async def log(self, level: Any, text: str) -> None:
        """Send it on the stream of the call."""
        await send_log(self._ctx, level, text)


def client_of(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """The name of the client whose key a request carries; None over standard input, and without keys."""
    request = getattr(ctx.request, "scope", None)
    try:
        return None if request is None else request_of(request).client.name
    except KeyError:
        return None


def is_given_up(ctx: ServerRequestContext[Any, Any]) -> bool:
    """True if the client cancelled a request: by a notification, or from 2026-07-28 over HTTP by closing its stream.

    Before that revision a stream may break off, and the request goes on.
    """
    channel = getattr(ctx.session, "_request_outbound", None)  # the SDK tells a handler of it nowhere else
    told = getattr(channel, "cancel_requested", None)
    if told is not None and told.is_set():
        return True
    scope = getattr(ctx.request, "scope", None)
    try:
        return scope is not None and ctx.protocol_version >= MODERN and request_of(scope).client_left
    except KeyError:
        return False


async def send_log(ctx: ServerRequestContext[Any, Any], level: Any, text: str) -> None:
    """Sends a log message on the stream of a call; from 2026-07-28 only if the call asked for it."""
    session: Any = ctx.session  # its method is marked as deprecated, and has no successor on the older wire
    await session.send_log_message(level, whole(text), related_request_id=ctx.request_id)


@dataclass
class _Asked:
    request: ClientRequest
    answer: asyncio.Future[Any]


class ParkedExchange:
    """Asks by waiting: the requests stand in `pending` until somebody brings the answers.

    `ctx` is the request that is being answered now; None where the call goes on as a task.
    """

    def __init__(
        self,
        ctx: ServerRequestContext[Any, Any] | None,
        declared: Json,
        seeds: Mapping[str, Any],
        *,
        client: str | None = None,
    ):
        self.ctx = ctx
        self.client = client if ctx is None else client_of(ctx)
        self.task = self.note = ""
        self.is_ended = False
        """True if the client cancelled the task that the call became."""
        self.on_note: Callable[[str], None] = lambda note: None
        """Told what is to be kept of the call."""
        self.status = ""
        """The last message about the progress."""
        self.pending: dict[str, _Asked] = {}
        self.moved = asyncio.Event()
        """Set whenever something changed."""
        self.declared = declared
        self._seeds = dict(seeds)
        self._used: set[str] = set()

    @property
    def is_cancelled(self) -> bool:
        """True if the client cancelled the task, or the request that is under way."""
        return self.is_ended or (self.ctx is not None and is_given_up(self.ctx))

    def keep(self, note: str) -> None:
        """Keep a note with the task, if the call is one."""
        self.note = note
        self.on_note(note)

    def can(self, capability: str) -> bool:
        """True if the client declared it."""
        return capability in self.declared

    async def ask(self, key: str, request: ClientRequest) -> Any:
        """The client's result, which may have come with the call itself, or before a restart."""
        expect_capability(self.declared, request)
        while key in self._used:  # a key stands for one request of a call
            key += "+"
        self._used.add(key)
        seed = self._seeds.pop(key, None)
        if isinstance(seed, _RESULTS[type(request)]):
            return seed
        asked = self.pending[key] = _Asked(request, asyncio.get_running_loop().create_future())
        self.moved.set()
        try:
            return await asked.answer
        finally:
            self.pending.pop(key, None)
            self.moved.set()

    def bring(self, answers: Mapping[str, Any]) -> None:
        """Hand over the answers that fit a pending request; others are ignored."""
        for key, answer in answers.items():
            asked = self.pending.get(key)
            if asked is not None and not asked.answer.done() and isinstance(answer, _RESULTS[type(asked.request)]):
                asked.answer.set_result(answer)
                self.pending.pop(key)

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Report to the client whose request is under way; a task keeps the message as its status."""
        share = f"{done:g}" if total is None else f"{done:g}/{total:g}"
        self.status = f"{share} {message}".strip()
        self.moved.set()
        if self.ctx is not None:
            await self.ctx.session.report_progress(done, total, whole(message) or None)

    async def log(self, level: Any, text: str) -> None:
        """Send it with the request that is under way, if there is one."""
        if self.ctx is not None:
            await send_log(self.ctx, level, text)
