"""Every request passes here first: who asks, whether there is room, how long it may take, and what is noted of it.

An ASGI application around another one. Checked before a byte of the body is read: the framing (no smuggling), the host, the
key, whether the server takes requests, and how many are under way. A client that leaves cancels its request; one that does
not read, or asks for too long, is cut.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from firsthand.serve.http.api_keys import Client
from firsthand.serve.http.refusals import Refusal, bad, refusal_of
from firsthand.serve.http.replies import note_bug, refused
from firsthand.serve.http.request_body import ClientLeft, read_body
from firsthand.serve.http.server_settings import is_loopback
from firsthand.serve.models.served_model import Asked, Door

OPEN = ("/health", "/health/live")
"""What needs no key: they tell nothing but whether the server answers."""
_ONCE = (b"host", b"authorization", b"content-length", b"content-type", b"transfer-encoding", b"x-request-id")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Gate:
    """Wraps an application whose `routes` are known by path; others are counted as one."""

    def __init__(self, app: ASGIApp, door: Door, routes: frozenset[str]):
        self._app, self._door, self._routes = app, door, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        id = given if _ID.fullmatch(given) else secrets.token_hex(12)
        route = scope["path"] if scope["path"] in self._routes else "other"
        if re.fullmatch("/v1/responses/[^/]+", scope["path"]):
            route = "/v1/responses/{id}"
        asked = Asked(id, self._door.keys.anyone, route)
        await _Visit(self._app, self._door, asked, scope, receive, send).run()


class _Visit:
    """One request on its way."""

    def __init__(self, app: ASGIApp, door: Door, asked: Asked, scope: Scope, receive: Receive, send: Send):
        self._app, self._door, self._asked = app, door, asked
        self._scope, self._receive, self._to_client = scope, receive, send
        self._status = 0
        self._is_whole = False

    async def run(self) -> None:
        """Serve it, and note how it went."""
        door, asked = self._door, self._asked
        if door.spans is not None:
            told = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._scope["headers"]}
            asked.span = door.spans.begin(asked, self._scope["method"], told)
        work = asked.task = asyncio.create_task(self._work())
        door.asked.add(asked)
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:  # the server cannot wait any longer
            asked.cut(Refusal(503, "the server is stopping: ask another one", headers={"connection": "close"}))
            await asyncio.wait({work}, timeout=1)
        finally:
            door.asked.discard(asked)
            seconds = time.monotonic() - asked.started_s
            left = not self._is_whole and asked.refusal is None
            status = 499 if left else self._status
            door.metrics.disconnects += left
            if asked.span is not None:
                asked.span.close(status)
            door.metrics.count_request(asked.route, asked.notes.get("code", status), seconds)
            if asked.route not in OPEN:
                door.log.write(
                    "request",
                    id=asked.id,
                    client=asked.client.name,
                    method=self._scope["method"],
                    route=asked.route,
                    status=status,
                    seconds=round(seconds, 4),
                    **asked.notes,
                )
        if not work.cancelled() and (error := work.exception()) is not None and not isinstance(error, ConnectionError):
            raise error

    async def _work(self) -> None:
        asked = self._asked
        try:
            await self._admitted()
        except ClientLeft:
            pass
        except asyncio.CancelledError:
            if asked.refusal is None or asked.task is None:
                return
            asked.task.uncancel()
            if self._status == 0:
                with suppress(TimeoutError, OSError):
                    async with asyncio.timeout(2):
                        await refused(asked.refusal)(self._scope, self._receive, self._send)
        except TimeoutError:
            pass
        except Refusal as refusal:
            asked.notes.setdefault("error", refusal.message)
            await refused(refusal)(self._scope, self._receive, self._send)
        except Exception as error:
            if self._status:
                raise
            note_bug(asked, error)
            await refused(refusal_of(error))(self._scope, self._receive, self._send)

    async def _admitted(self) -> None:
        """Check, read the body, and let the application answer."""
        door, asked, scope = self._door, self._asked, self._scope
        if scope["http_version"] not in ("1.0", "1.1"):
            raise _close(Refusal(505, "this server speaks HTTP/1.1"))
        headers = _headers(scope)
        self._check_host(headers.get("host"))
        if scope["path"] in OPEN:
            await self._app(scope, self._receive, self._send)
            return
        client = door.keys.find(headers.get("authorization"))
        if client is None:
            said = "the API key is wrong" if "authorization" in headers else "an API key is needed"
            raise Refusal(
                401, f"{said}: send the header Authorization: Bearer KEY", code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        asked.client = client
        scope["firsthand"] = asked
        if scope["method"] != "POST":
            await self._watched()
            return
        with _Place(door, client):
            if "content-encoding" in headers:
                raise Refusal(415, "Content-Encoding is not taken: send the JSON as it is")
            limits, settings = client.limits, door.settings
            asked.content_type = headers.get("content-type")
            asked.raw = await read_body(
                self._receive, limits.body_bytes, settings.body_s, headers.get("content-length")
            )
            late = Refusal(504, f"the answer took more than {limits.request_s:g} s", code="timeout")
            timer = asyncio.get_running_loop().call_later(limits.request_s, asked.cut, late)
            try:
                await self._watched()
            finally:
                timer.cancel()

    def _check_host(self, host: str | None) -> None:
        """Refuse names that a browser was talked into (DNS rebinding)."""
        door = self._door
        name = (host or "").rpartition(":")[0] if re.search(r":\d+$", host or "") else (host or "")
        if door.settings.hosts:
            if name not in door.settings.hosts:
                raise Refusal(421, f"this server is not {name[:80]!r}", headers={"connection": "close"})
        elif not door.keys.clients and name and not is_loopback(name):
            raise Refusal(421, f"without API keys only this machine is served, not {name[:80]!r}")

    async def _watched(self) -> None:
        """The application's answer; cancelled when the client leaves."""
        task = self._asked.task
        assert task is not None
        watch = asyncio.create_task(self._wait_for_end())
        watch.add_done_callback(lambda done: None if done.cancelled() or self._is_whole else task.cancel())
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            watch.cancel()

    async def _wait_for_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _send(self, message: Message) -> None:
        """Pass a message on. A client that does not read is given up."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._asked.id.encode())]
        whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        if whole:
            self._is_whole = True
        stall_s = self._door.settings.stall_s
        timer = asyncio.get_running_loop().call_later(stall_s, self._stalled)
        try:
            await self._to_client(message)
        except OSError:
            raise ClientLeft from None
        finally:
            timer.cancel()

    def _stalled(self) -> None:
        """Drop a client that reads nothing."""
        self._is_whole = False
        self._asked.notes["error"] = f"the client read nothing for {self._door.settings.stall_s:g} s"
        if (abort := self._scope.get("extensions", {}).get("firsthand.abort")) is not None:
            abort()
        if self._asked.task is not None:
            self._asked.task.cancel()


class _Place:
    """A request's place among those under way; refused if there is none."""

    def __init__(self, door: Door, client: Client):
        self._door, self._client = door, client

    def __enter__(self) -> None:
        door, client = self._door, self._client
        door.refuse_unready()
        if door.metrics.in_flight >= door.settings.max_requests:
            raise Refusal(
                429, f"{door.metrics.in_flight} requests are under way: try again later", code="overloaded",
                headers={"retry-after": str(_patience_s(door))},
            )  # fmt: skip
        mine = door.by_client.get(client.name, 0)
        if mine >= client.limits.concurrency:
            raise Refusal(
                429, f"{mine} requests of {client.name} are under way, as many as it may have: wait for one to end",
                code="rate_limit_exceeded", headers={"retry-after": str(_patience_s(door))},
            )  # fmt: skip
        if (wait_s := door.wait_for_tokens_s(client)) > 0:
            raise Refusal(
                429, f"{client.name} has had its {client.limits.tokens_per_minute} tokens of this minute: wait",
                code="rate_limit_exceeded", headers={"retry-after": str(math.ceil(wait_s))},
            )  # fmt: skip
        door.by_client[client.name] = mine + 1
        door.metrics.in_flight += 1

    def __exit__(self, *details: object) -> None:
        self._door.metrics.in_flight -= 1
        left = self._door.by_client[self._client.name] - 1
        if left:
            self._door.by_client[self._client.name] = left
        else:
            del self._door.by_client[self._client.name]


def _patience_s(door: Door) -> int:
    """How long an answer takes on average here, from 1 to 60 s: by then there is room."""
    counts = sum(door.metrics.whole.counts)
    mean = door.metrics.whole.total / counts if counts else 1.0
    return min(60, max(1, round(mean)))


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """The headers by name. Refused where two readers could disagree on where the request ends or who asks."""
    names = [name for name, _ in scope["headers"]]
    if b"content-length" in names and b"transfer-encoding" in names:
        raise _close(bad("a request has either Content-Length or Transfer-Encoding, not both"))
    for name in _ONCE:
        if names.count(name) > 1:
            raise _close(bad(f"the header {name.decode()} comes twice"))
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _close(refusal: Refusal) -> Refusal:
    refusal.headers["connection"] = "close"
    return refusal
