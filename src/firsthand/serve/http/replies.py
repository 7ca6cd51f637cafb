"""Responses: JSON at once, or a stream of server-sent events, whose last event reports an error that came in its middle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, MutableMapping
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from firsthand.message import Json
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.http.refusals import Refusal, refusal_of
from firsthand.system.line_separators import escape_separators

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_PIECE = 1024
_LAST_EVENT_S = 2.0
"""Seconds that a client may take to read why its answer was cut off."""


class Reply:
    """A whole response: an ASGI application that sends it."""

    def __init__(self, content: bytes, *, status: int = 200, kind: str = "application/json",
                 headers: Mapping[str, str] | None = None):  # fmt: skip
        self.content, self.status, self.kind, self.headers = content, status, kind, dict(headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        fields = {"content-type": self.kind, "content-length": str(len(self.content)), **self.headers}
        await send({"type": "http.response.start", "status": self.status, "headers": encoded(fields)})
        await send({"type": "http.response.body", "body": self.content})


class Events:
    """A stream of events. Nothing is sent before the first one has come, so that a refusal still has its own status."""

    def __init__(self, request: ActiveRequest, events: AsyncGenerator[bytes, None], first: bytes, *, done: bool = True):
        self._request, self._events, self._first = request, events, first
        self._done = done

    @staticmethod
    async def begin(request: ActiveRequest, events: AsyncGenerator[bytes, None], *, done: bool = True) -> Events:
        """The stream, once it has its first event; raises what the first event raises. `done` ends it with `[DONE]`."""
        try:
            return Events(request, events, await anext(events), done=done)
        except BaseException:
            await events.aclose()
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every event; an error takes the place of the rest."""
        fields = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
        }
        last = b"data: [DONE]\n\n" if self._done else b""
        async with aclosing(self._events):
            await send({"type": "http.response.start", "status": 200, "headers": encoded(fields)})
            write: Callable[[bytes], bool] = scope.get("extensions", {}).get("firsthand.write", _write_nothing)
            try:
                await send(_body(self._first))
                async for event in self._events:
                    if not write(event):
                        await send(_body(event))
            except asyncio.CancelledError:
                if self._request.cancelled is None or self._request.task is None:
                    raise
                self._request.task.uncancel()
                last = self._failed(self._request.cancelled) + last
            except ConnectionError:
                raise
            except Exception as error:
                last = self._failed(error) + last
        async with asyncio.timeout(_LAST_EVENT_S if self._request.cancelled else None):
            await send({"type": "http.response.body", "body": last})

    def _failed(self, error: Exception) -> bytes:
        refusal = refusal_of(error)
        if refusal.code == "internal_error":
            note_bug(self._request, error)
        self._request.notes["error"] = refusal.message
        self._request.notes["code"] = refusal.status
        body = self._request.error_json(refusal)
        return event(body, body.get("type"))


def reply(body: Json, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A response with a JSON object."""
    return Reply(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"), status=status, headers=headers)


async def long_reply(body: Json) -> Reply:
    """A response with an object that may be large: it is encoded piece by piece in a thread, so that others are answered."""
    content = await asyncio.to_thread(lambda: b"".join(each.encode("utf-8", "replace") for each in pieces(body)))
    return Reply(content)


async def long_event(body: Json) -> bytes:
    """An object that may be large as an event, encoded as in `long_reply`."""
    content = await asyncio.to_thread(lambda: b"".join(each.encode("utf-8", "replace") for each in pieces(body)))
    return b"data: " + escape_separators(content) + b"\n\n"


def pieces(value: Any) -> Iterator[str]:
    """The JSON of plain data as `reply` writes it, in pieces of at most _PIECE values: encoding one lets no thread run."""
    match value:
        case dict() if _left(value, _PIECE) < 0:
            for at, (key, inner) in enumerate(value.items()):
                yield ("{", ", ")[at > 0] + json.dumps(key, ensure_ascii=False) + ": "
                yield from pieces(inner)
            yield "}"
        case list() if _left(value, _PIECE) < 0:
            for at, inner in enumerate(value):
                yield ("[", ", ")[at > 0]
                yield from pieces(inner)
            yield "]"
        case _:
            yield json.dumps(value, ensure_ascii=False)


def _left(value: Any, left: int) -> int:
    """Return `left` less the number of values in plain data; negative once there are more."""
    left -= 1
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if left < 0:
            break
        left = _left(inner, left)
    return left


def refused(refusal: Refusal, request: ActiveRequest | None = None) -> Reply:
    """The response to a refused request, in the shape of its route; without a request in OpenAI's."""
    body = refusal.to_json() if request is None else request.error_json(refusal)
    return Reply(json.dumps(body).encode(), status=refusal.status, headers=refusal.headers)


def event(body: Json, name: str | None = None) -> bytes:
    """A JSON object as an event."""
    data = escape_separators(_JSON.encode(body).encode("utf-8", "replace"))
    return (b"" if name is None else b"event: " + name.encode() + b"\n") + b"data: " + data + b"\n\n"


class EventForm:
    """Events that differ in one string only, which is `GAP` in `body`: the rest is encoded once."""

    GAP = "\0"

    def __init__(self, body: Json):
        self._before, self._after = event(body).split(_JSON.encode(self.GAP).encode())

    def event(self, text: str) -> bytes:
        """The event with this text."""
        return self._before + escape_separators(_JSON.encode(text).encode("utf-8", "replace")) + self._after


def encoded(fields: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers in ASGI's form."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in fields.items()]


def note_bug(request: ActiveRequest, error: Exception) -> None:
    """Put the traceback of a bug into the request log; the client does not see it."""
    import traceback

    request.notes["traceback"] = "".join(traceback.format_exception(error))[-8000:]


def _write_nothing(content: bytes) -> bool:
    """The default of a server that cannot send without waiting."""
    return False


def _body(content: bytes) -> MutableMapping[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": True}
