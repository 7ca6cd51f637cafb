"""A connection with one MCP server, in a task of its own: opened and closed from anywhere, and its end is known.

The SDK's client lives in that task, so a server that breaks the connection ends the task and not the attempt. Requests of
the server are answered from the position of the call that is running (`server_requests.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError
from pydantic import ValidationError

from firsthand.errors import FirsthandError, OutcomeUnknown, StoreError, ToolError
from firsthand.loop.calling import CallPosition, caller
from firsthand.loop.concurrency import first_error
from firsthand.message import Json
from firsthand.system.terminal import one_line
from firsthand.tools.mcp.bounded_schema import ResultValidator
from firsthand.tools.mcp.failed_responses import McpHttpClient
from firsthand.tools.mcp.http_endpoint import http_client
from firsthand.tools.mcp.oauth_sign_in import BrowserSignIn, SignIn, is_signed_in, oauth
from firsthand.tools.mcp.remote_tasks import TasksOfServer
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.server_requests import RequestAnswers
from firsthand.tools.mcp.stdio_frames import ServerProcess, started

T = TypeVar("T")
CLOSING_S = 10.0
"""Seconds to close in; the task is cancelled after them, and the process killed."""
REFUSALS = frozenset({
    types.METHOD_NOT_FOUND, types.INVALID_PARAMS, types.HEADER_MISMATCH, types.MISSING_REQUIRED_CLIENT_CAPABILITY,
    types.UNSUPPORTED_PROTOCOL_VERSION, types.URL_ELICITATION_REQUIRED,
})  # fmt: skip
"""Codes of JSON-RPC errors by which a server says that it did not begin. The SDK gives some others, such as -32600 and
-32700, to answers that are none and to those that cannot be read."""
_LISTS = ("tools", "resources", "prompts")


_SDKS_OWN = ("Server returned an error response", "Not Found")
"""The SDK's words for a failed response without a JSON-RPC error."""


class McpConnection:
    """The open connection with a server."""

    def __init__(self, declaration: ServerDeclaration, sign_in: Callable[[], SignIn] | None = None):
        self.declaration = declaration
        self._sign_in = sign_in or (lambda: BrowserSignIn(declaration))
        self.calls: list[CallPosition] = []
        """The calls that are running, the oldest first."""
        self.changed: set[str] = set()
        """The lists, such as `tools`, that the server said had changed since they were read."""
        self._client: Client | None = None
        self._process: ServerProcess | None = None
        self._http: McpHttpClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._stop = asyncio.Event()
        self._dead = asyncio.Event()
        self._failure: BaseException | None = None
        self.answers = RequestAnswers(declaration, self._current)

    @property
    def client(self) -> Client:
        """The SDK's client. ToolError if the connection has ended."""
        if self._client is None or self._dead.is_set():
            raise ToolError(self.ending())
        return self._client

    @property
    def is_lost(self) -> bool:
        """True if the connection has ended, or its server has."""
        return self._dead.is_set() or (self._process is not None and self._process.process.returncode is not None)

    async def open(self) -> None:
        """Connect. ToolError if that fails or takes too long."""
        self._task = asyncio.create_task(self._keep(), name=f"firsthand-mcp-{self.declaration.name}")
        opened = asyncio.ensure_future(self._opened.wait())
        try:
            await asyncio.wait({self._task, opened}, timeout=self.declaration.opening_s, return_when="FIRST_COMPLETED")
        finally:
            opened.cancel()
        if self._opened.is_set() and not self._dead.is_set():
            return
        late = not self._task.done()
        await self.close()
        if late:
            raise ToolError(
                f"{self.declaration.origin} did not answer within {self.declaration.opening_s:g} s{self._words()}"
            )
        if isinstance(self._failure, ToolError | StoreError):
            raise self._failure
        raise ToolError(self.ending())

    async def close(self) -> None:
        """End the connection and the server's process. Nothing is left of either when this returns."""
        if self._task is None:
            return
        self._stop.set()
        await asyncio.wait({self._task}, timeout=CLOSING_S if self._opened.is_set() else 0.0)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSING_S)

    async def request(self, send: Callable[[Client], Awaitable[T]], *, timeout_s: float | None = None) -> T:
        """The reply to a request, or a ToolError that says what went wrong, the server's words in it as data.

        OutcomeUnknown if the request may have reached the server, unless its reply says that it was not carried out.
        """
        client = self.client
        at = caller()
        if at is not None:
            self.calls.append(at)
        sending = asyncio.ensure_future(send(client))
        dying = asyncio.ensure_future(self._dead.wait())
        try:
            async with asyncio.timeout(timeout_s or self.declaration.timeout_s):
                await asyncio.wait({sending, dying}, return_when="FIRST_COMPLETED")
            if not sending.done():
                raise OutcomeUnknown(self.ending())
            return sending.result()
        except TimeoutError:
            limit = timeout_s or self.declaration.timeout_s
            raise OutcomeUnknown(f"{self.declaration.origin} did not answer within {limit:g} s") from None
        except MCPError as error:
            told = await self._told(error)
            if self._http is not None and self._http.session_lost:
                self._failure = self._failure or ToolError(f"{self.declaration.origin} ended the session")
                self._dead.set()
            raise (ToolError if error.code in REFUSALS else OutcomeUnknown)(told) from None
        except FirsthandError:
            raise
        except Exception as error:
            unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise (ToolError if unsent else OutcomeUnknown)(self._reason(error)) from None
        finally:
            for each in (sending, dying):
                each.cancel()
            await asyncio.wait({sending, dying}, timeout=1.0)
            if at is not None:
                self.calls.remove(at)

    def ending(self) -> str:
        """The sentence on why there is no connection."""
        if self._process is not None and (self._process.reason or self._dead.is_set() or self._client is None):
            return f"{self.declaration.origin} {self._process.epitaph()}"
        if self._failure is not None:
            return self._reason(self._failure)
        return f"{self.declaration.origin} is not connected"

    def _words(self) -> str:
        said = b"" if self._process is None else bytes(self._process.stderr)
        text = one_line(said.decode("utf-8", "replace").strip().rpartition("\n")[2])[:300]
        return f"; it wrote: {text}" if text else ""

    async def _told(self, error: MCPError) -> str:
        """The message of a JSON-RPC error. The end of the connection comes as one too, and is told as that."""
        if error.code == types.CONNECTION_CLOSED and "closed" in str(error.message).lower():
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):  # the process is a moment later
                    while self._process is not None and self._process.process.returncode is None:
                        await asyncio.sleep(0.01)
            self._dead.set()
            return self.ending() if self._process is not None else f"{self.declaration.origin} closed the connection"
        verb = "refused the request" if error.code in REFUSALS else "failed the request"
        return f"{self.declaration.origin} {verb} (code {error.code}): {str(error.message)[:2_000]}"

    def _reason(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = first_error(error)
        if isinstance(error, FirsthandError):
            return str(error)
        said = one_line(str(error) or type(error).__name__)[:500]
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(each) for each in first["loc"])
            said = one_line(f"{where or 'the reply'}: {first['msg']}")[:500]
        if isinstance(error, httpx2.TransportError | OSError):
            return f"{self.declaration.origin} cannot be reached: {said}"
        if isinstance(error, MCPError) and self._http is not None and self._http.failed:
            return f"{self.declaration.origin} {self._refusal(self._http.failed, said)}"
        return f"{self.declaration.origin} broke the protocol: {said}"

    def _refusal(self, status: str, said: str) -> str:
        """The rest of the sentence on a server that answered with a status of HTTP, and what to do."""
        if said not in _SDKS_OWN and not status.startswith("HTTP 401"):  # the server's own words say why
            return f"answered {status}: {said}"
        if status.startswith(("HTTP 401", "HTTP 403")):
            if self.declaration.headers:
                return f"refused the key that its headers hold ({status}): give it one that it takes"
            return (
                f'wants a key ({status}): declare it as in headers = {{Authorization = "Bearer ${{TOKEN}}"}}, or sign in '
                "with firsthand mcp --sign-in"
            )
        if status.startswith(("HTTP 404", "HTTP 405")):
            return f"is not at its url ({status}): check the address"
        return f"answered {status}"

    def _current(self) -> CallPosition | None:
        """The call that a request of the server belongs to: our own task's, or the oldest of the one attempt that calls.

        None while several attempts are: another's user would be asked, and another's budget pay.
        """
        if (at := caller()) is not None:
            return at
        is_told = len({id(each.context.attempt) for each in self.calls}) == 1
        return self.calls[0] if is_told else None

    async def _keep(self) -> None:
        """Holds the connection open until it is to stop or ends on its own."""
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # what it logs is in our errors and traces
        logging.getLogger("client").setLevel(logging.CRITICAL)
        try:
            async with AsyncExitStack() as stack:
                client = self._make_client(await self._transport(stack))
                self._client = await stack.enter_async_context(client)
                if self.declaration.revision not in ("auto", "2025-11-25", client.protocol_version):
                    self._failure = ToolError(
                        f"{self.declaration.origin} speaks {client.protocol_version}, and revision is "
                        f"{self.declaration.revision!r}: set revision to 'auto'"
                    )
                    return
                # the SDK would check results against the server's own schema, its regular expressions too, without end
                self._client.session._output_schema_validator = _validator_of  # type: ignore[method-assign,assignment]
                self._opened.set()
                async with asyncio.TaskGroup() as tasks:
                    listening = tasks.create_task(self._listen(self._client))
                    stopping = tasks.create_task(self._stop.wait())
                    dying = tasks.create_task(self._dead.wait())
                    await asyncio.wait({stopping, dying}, return_when="FIRST_COMPLETED")
                    for task in (listening, stopping, dying):
                        task.cancel()
        except Exception as error:
            self._failure = self._failure or error
        finally:
            self._dead.set()

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if self.declaration.command:
            self._process, transport = await stack.enter_async_context(started(self.declaration))
            return transport
        auth = None
        if self.declaration.oauth or is_signed_in(self.declaration):
            sign_in = self._sign_in()
            stack.callback(sign_in.close)
            auth = oauth(self.declaration, sign_in)
        self._http = await stack.enter_async_context(http_client(self.declaration, auth))
        return streamable_http_client(self.declaration.url, http_client=self._http)

    def _make_client(self, transport: Any) -> Client:
        # a revision for a mode would be taken without asking the server what it offers
        wanted = "legacy" if self.declaration.revision == "2025-11-25" else "auto"
        from firsthand import __version__

        return Client(
            transport,
            mode=wanted,
            client_info=types.Implementation(name="firsthand", version=__version__),
            sampling_callback=self.answers.sample if self.declaration.sampling else None,
            elicitation_callback=self.answers.elicit if self.declaration.elicitation else None,
            list_roots_callback=self.answers.roots if self.declaration.roots else None,
            message_handler=self._heard,
            extensions=[TasksOfServer(self.answers)],
            cache=None,
        )

    async def _heard(self, message: Any) -> None:
        """Notes which lists the server says have changed."""
        kinds = (
            (types.ToolListChangedNotification, "tools"),
            (types.ResourceListChangedNotification, "resources"),
            (types.PromptListChangedNotification, "prompts"),
        )
        self.changed |= {name for kind, name in kinds if isinstance(message, kind)}

    async def _listen(self, client: Client) -> None:
        """Hears of changed lists from a server of 2026-07-28; an older one says so on its own."""
        capability = client.server_capabilities
        wanted = {f"{name}_list_changed": True for name in _LISTS if getattr(capability, name, None) is not None}
        with suppress(ListenNotSupportedError, MCPError, RuntimeError, TimeoutError, OSError, httpx2.HTTPError):
            async with client.listen(**wanted) as events:  # type: ignore[arg-type]
                async for event in events:
                    name = type(event).__name__.removesuffix("ListChanged").lower()
                    self.changed.add(name)


def _validator_of(tool: str, schema: Json) -> Any:
    """The check of a tool's results by the server's schema; RuntimeError, as the SDK's own has, for what is no schema."""
    from jsonschema import SchemaError

    try:
        return ResultValidator(schema)
    except SchemaError as error:
        raise RuntimeError(f"Invalid schema for tool {tool}: {str(error)[:200]}") from None
