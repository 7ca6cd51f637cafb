"""What is sent back: JSON at once, or a stream of server-sent events that tells of an error even in its middle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from firsthand.message import Json
from firsthand.serve.http.refusals import Refusal, refusal_of
from firsthand.serve.models.served_model import Asked, Door

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_GOODBYE_S = 2.0
"""A client that is told why its answer was cut may take so long to read it."""


class Reply:
    """A whole answer: an ASGI application that sends it."""

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

    def __init__(
        self, door: Door, asked: Asked, events: AsyncGenerator[bytes, None], first: bytes, *, done: bool = True
    ):
        self._door, self._asked, self._events, self._first = door, asked, events, first
        self._done = done

    @staticmethod
    async def begin(door: Door, asked: Asked, events: AsyncGenerator[bytes, None], *, done: bool = True) -> Events:
        """The stream, once it has its first event; raises what the first event raises."""
        try:
            return Events(door, asked, events, await anext(events), done=done)
        except BaseException:
            await events.aclose()
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every event, and at the end, or in place of the rest, what there is to say of it."""
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
                if self._asked.refusal is None or self._asked.task is None:
                    raise
                self._asked.task.uncancel()
                last = self._failed(self._asked.refusal) + last
            except ConnectionError:
                raise
            except Exception as error:
                last = self._failed(error) + last
        async with asyncio.timeout(_GOODBYE_S if self._asked.refusal else None):
            await send({"type": "http.response.body", "body": last})

    def _failed(self, error: Exception) -> bytes:
        refusal = refusal_of(error)
        if refusal.code == "internal_error":
            note_bug(self._asked, error)
        self._asked.notes["error"] = refusal.message
        self._asked.notes["code"] = refusal.status
        return event(refusal.to_json())


def reply(body: Json, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON object as an answer."""
    return Reply(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"), status=status, headers=headers)


def refused(refusal: Refusal) -> Reply:
    """A refusal as an answer."""
    return Reply(refusal.body(), status=refusal.status, headers=refusal.headers)


def event(body: Json, name: str | None = None) -> bytes:
    """A JSON object as an event."""
    data = _JSON.encode(body).encode("utf-8", "replace")
    return (b"" if name is None else b"event: " + name.encode() + b"\n") + b"data: " + data + b"\n\n"


class EventForm:
    """Events that differ in one text only, which is `GAP` in `body`: the rest is encoded once."""

    GAP = "\0"

    def __init__(self, body: Json):
        self._before, self._after = event(body).split(_JSON.encode(self.GAP).encode())

    def event(self, text: str) -> bytes:
        """The event with this text."""
        return self._before + _JSON.encode(text).encode("utf-8", "replace") + self._after


def encoded(fields: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in fields.items()]


def note_bug(asked: Asked, error: Exception) -> None:
    """Keep a bug's traceback for the log; it is not shown to the client."""
    import traceback

    asked.notes["traceback"] = "".join(traceback.format_exception(error))[-8000:]


def _write_nothing(content: bytes) -> bool:
    """Stands where the server cannot send without waiting."""
    return False


def _body(content: bytes) -> MutableMapping[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": True}
