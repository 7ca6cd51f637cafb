"""ASGI middleware around all apps of a server: admission before, telemetry after, cancellation meanwhile.

Checked before a byte of the body is read: the framing (no smuggling), the host, the key, whether the server takes requests,
and how many are under way. A client that leaves cancels its request; one that does not read, or whose answer takes too long,
is cut off.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.mounted_app import MountedApp, Target, find_app
from firsthand.serve.http.refusals import Refusal, bad, refusal_of
from firsthand.serve.http.replies import note_bug, refused
from firsthand.serve.http.request_body import ClientLeft, read_body
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.system import conversation_owner, request_owner
from firsthand.system.json_values import has_id_of_no_text, values_in
from firsthand.system.recognised import recognise

_ONCE = (
    b"host",
    b"origin",
    b"sec-fetch-site",
    b"authorization",
    b"x-api-key",
    b"content-length",
    b"content-type",
    b"transfer-encoding",
    b"x-request-id",
)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PIECE_BYTES = 65_536


class AdmissionMiddleware:
    """Admits requests and passes each to its app, or to `fallback` if no app has its path."""

    def __init__(
        self, apps: Sequence[MountedApp], fallback: MountedApp, admission: Admission, telemetry: ServerTelemetry
    ):
        self._apps, self._fallback, self._admission, self._telemetry = apps, fallback, admission, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        target = find_app(self._apps, scope["path"], self._fallback)
        header = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request = ActiveRequest(secrets.token_hex(12), self._admission.keys.anyone, target.route)
        request.named = header if _ID.fullmatch(header) else request.id
        request.error_json = target.app.error_jsons.get(target.route, request.error_json)
        await _Exchange(target, self._admission, self._telemetry, request, scope, receive, send).run()


class _Exchange:
    """One request and its response."""

    def __init__(self, target: Target, admission: Admission, telemetry: ServerTelemetry, request: ActiveRequest,
                 scope: Scope, receive: Receive, send: Send):  # fmt: skip
        self._mounted, self._admission, self._telemetry, self._request = target.app, admission, telemetry, request
        self._scope, self._receive, self._to_client = scope, receive, send
        self._is_open = request.route in target.app.open_routes
        self._status = 0
        self._is_whole = False

    async def run(self) -> None:
        """Serve it, and record how it went."""
        request = self._request
        self._start_span()
        work = request.task = asyncio.create_task(self._work())
        self._admission.active.add(request)
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:  # the server cannot wait any longer
            request.cancel(Refusal(503, "the server is stopping: ask another one", headers={"connection": "close"}))
            await asyncio.wait({work}, timeout=1)
        finally:
            self._admission.active.discard(request)
            self._record()
        error = None if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, ConnectionError | ClientLeft):
            raise error

    def _start_span(self) -> None:
        request, spans = self._request, self._telemetry.spans
        if spans is None or request.route in self._mounted.untraced_routes:
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._scope["headers"]}
        operation = self._mounted.operations.get(request.route)
        request.span = spans.start(request.id, self._scope["method"], request.route, headers, request.notes, operation)

    def _record(self) -> None:
        """Tell the metrics, the span and the log of the end."""
        request, metrics = self._request, self._telemetry.metrics
        seconds = time.monotonic() - request.started_s
        left = not self._is_whole and request.cancelled is None
        status = 499 if left else self._status
        metrics.disconnects += left
        if request.span is not None:
            request.span.close(status, request.client.name)
        metrics.count_request(request.route, request.notes.get("code", status), seconds)
        if not self._is_open:
            self._telemetry.log.write(
                "request",
                id=request.named,
                **({} if request.named == request.id else {"own_id": request.id}),
                client=request.client.name,
                method=self._scope["method"],
                route=request.route,
                status=status,
                seconds=round(seconds, 4),
                **request.notes,
            )

    async def _work(self) -> None:
        request = self._request
        try:
            await self._admit()
        except ClientLeft:
            pass
        except asyncio.CancelledError:
            if request.cancelled is None or request.task is None:
                return
            request.task.uncancel()
            if self._status == 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        await refused(request.cancelled, request)(self._scope, self._receive, self._send)
        except TimeoutError:
            pass
        except Refusal as refusal:
            request.notes.setdefault("error", refusal.message)
            await refused(refusal, request)(self._scope, self._receive, self._send)
        except Exception as error:
            if not isinstance(error, ConnectionError):
                note_bug(request, error)
            if self._status:
                raise
            await refused(refusal_of(error), request)(self._scope, self._receive, self._send)

    async def _admit(self) -> None:
        """Check the request, read its body, and let the app answer."""
        admission, request, scope = self._admission, self._request, self._scope
        if scope["http_version"] not in ("1.0", "1.1"):
            raise _closing(Refusal(505, "this server speaks HTTP/1.1"))
        headers = _headers(scope)
        admission.check_host(headers.get("host"))
        if self._is_open:
            await self._call_app(self._receive)
            return
        admission.check_origin(headers.get("origin"), headers.get("sec-fetch-site"))
        request.client = admission.client(headers.get("authorization"), headers.get("x-api-key"))
        conversation_owner.enter(f"client/{request.client.name}")
        request_owner.enter(request.client.name)
        recognise(scope)
        if f"{scope['method']} {request.route}" in self._mounted.free_requests:
            await self._call_watched()
            return
        works = self._mounted.work_methods is None or scope["method"] in self._mounted.work_methods
        if works:
            admission.check_open()
            self._mounted.check_ready()
        with admission.slot(request.client, works=works):
            if "content-encoding" in headers:
                raise Refusal(415, "Content-Encoding is not taken: send the JSON as it is")
            limits = request.client.limits
            request.content_type = headers.get("content-type")
            request.body = await read_body(
                self._receive, limits.body_bytes, admission.settings.body_s, headers.get("content-length")
            )
            most = self._mounted.most_values
            if most is not None and values_in(request.body, most) > most:
                raise Refusal(413, f"the body holds more than {most:,} JSON values: send less at once")
            if most is not None and has_id_of_no_text(request.body):
                raise bad("the id of the request holds half a character: send text in Unicode, or a number")
            late = Refusal(504, f"the answer took more than {limits.request_s:g} s", code="timeout")
            timer = asyncio.get_running_loop().call_later(limits.request_s, request.cancel, late)
            try:
                await self._call_watched()
            finally:
                timer.cancel()

    async def _call_watched(self) -> None:
        """Let the app answer; cancel it when the client leaves."""
        task = self._request.task
        assert task is not None
        watch = asyncio.create_task(self._wait_for_disconnect())

        def left(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and not self._is_whole:
                self._request.client_left = True  # before the app is told, which may ask why it ends
                task.cancel()

        watch.add_done_callback(left)
        messages = [{"type": "http.request", "body": self._request.body, "more_body": False}]

        async def receive() -> Message:
            """The body that was read, once; then nothing, since the app is cancelled when the client leaves."""
            if messages:
                return messages.pop()
            await asyncio.shield(watch)
            return {"type": "http.disconnect"}

        try:
            await self._call_app(receive)
        finally:
            watch.cancel()

    async def _call_app(self, receive: Receive) -> None:
        scope, prefix = self._scope, self._mounted.prefix
        if prefix:
            scope = {**scope, "root_path": scope.get("root_path", "") + prefix}
        attach(scope, self._request)
        await self._mounted.app(scope, receive, self._send)

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _send(self, message: Message) -> None:
        """Pass a message on, a body in pieces, so that the slot is held until the client has taken it."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request.named.encode())]
        if message["type"] != "http.response.body":
            await self._in_time(self._to_client(message))
            return
        body, more = memoryview(message.get("body", b"")), message.get("more_body", False)
        for at in range(0, max(1, len(body)), _PIECE_BYTES):
            is_last = at + _PIECE_BYTES >= len(body)
            self._is_whole = self._is_whole or (is_last and not more)
            piece = {**message, "body": bytes(body[at : at + _PIECE_BYTES]), "more_body": more or not is_last}
            await self._in_time(self._to_client(piece))
        taken: Callable[[], Awaitable[None]] | None = self._scope.get("extensions", {}).get("firsthand.taken")
        if not more and taken is not None:
            await self._in_time(taken())

    async def _in_time(self, sending: Awaitable[None]) -> None:
        """Wait until the client has taken what was sent before. A client that does not read is given up."""
        timer = asyncio.get_running_loop().call_later(self._admission.settings.stall_s, self._stalled)
        try:
            await sending
        except OSError:
            raise ClientLeft from None
        finally:
            timer.cancel()

    def _stalled(self) -> None:
        """Drop a client that reads nothing."""
        self._is_whole = False
        self._request.notes["error"] = f"the client read nothing for {self._admission.settings.stall_s:g} s"
        if (abort := self._scope.get("extensions", {}).get("firsthand.abort")) is not None:
            abort()
        if self._request.task is not None:
            self._request.task.cancel()


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """The headers by name. Refused where two readers could disagree on where the request ends or who sent it."""
    names = [name for name, _ in scope["headers"]]
    if b"content-length" in names and b"transfer-encoding" in names:
        raise _closing(bad("a request has either Content-Length or Transfer-Encoding, not both"))
    for name in _ONCE:
        if names.count(name) > 1:
            raise _closing(bad(f"the header {name.decode()} comes twice"))
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _closing(refusal: Refusal) -> Refusal:
    refusal.headers["connection"] = "close"
    return refusal
