"""Receives spans by OTLP over HTTP, in front of the Studio's pages: protobuf or JSON, gzip, bounded in size and time.

On the loopback address any program of this machine may send spans, unless there is a key; it can read nothing. A
browser may not: requests with a foreign Host, or with an Origin of any site, are refused before their body is read.
The paths are those of OTLP, and those under which the SDKs of Langfuse and LangSmith send.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
from collections.abc import Callable
from typing import Literal, cast

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from firsthand.ingest.span_writer import MAX_REQUEST_BYTES, MAX_WAITING_BYTES, Encoding, SpanWriter, WriteOutcome
from firsthand.system.recognised import recognise

PATHS = ("/v1/traces", "/otel/v1/traces", "/api/public/otel/v1/traces")
BODY_WITHIN_S = 30.0
_KINDS: dict[str, Literal["protobuf", "json"]] = {"application/x-protobuf": "protobuf", "application/json": "json"}
_ENCODINGS = ("", "identity", "gzip", "deflate")


class OtlpDoor:
    """ASGI middleware that answers the paths of OTLP itself and passes on all others.

    Args:
        is_own_host: True for a Host header that names this server.
        key: What senders must show, as a bearer token, as `x-api-key`, or as the password of basic authentication; without
            one, whoever reaches the address may send.
    """

    def __init__(
        self, app: ASGIApp, writer: SpanWriter, is_own_host: Callable[[str | None], bool], key: str | None = None
    ):
        self.app, self.writer, self.is_own_host, self.key = app, writer, is_own_host, key
        self._arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in PATHS:
            await self.app(scope, receive, send)
            return
        answer = await self._answer(scope, receive)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        headers = Headers(scope=scope)
        kind = _KINDS.get(headers.get("content-type", "").partition(";")[0].strip().lower())
        refusal = self._refusal(scope, headers, kind)
        if refusal is not None:
            return refused(kind, *refusal)
        if self.key is not None:
            recognise(scope)
        assert kind is not None
        size = 0
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return refused(kind, 400, "the connection was closed")
                    piece = message.get("body", b"")
                    size += len(piece)
                    self._arriving += len(piece)
                    if size > MAX_REQUEST_BYTES:
                        return refused(
                            kind, 413, f"the request is larger than {MAX_REQUEST_BYTES >> 20} MiB: send less at once"
                        )
                    if self._arriving > MAX_WAITING_BYTES:
                        return refused(kind, 503, "too much arrives at once: send it again later")
                    pieces.append(piece)
                    if not message.get("more_body", False):
                        break
            encoding = cast(Encoding, headers.get("content-encoding", "").strip().lower())
            return await self._kept(b"".join(pieces), kind, encoding)
        except TimeoutError:
            return refused(kind, 408, f"the body did not come within {BODY_WITHIN_S:g} s")
        finally:
            self._arriving -= size

    async def _kept(self, raw: bytes, kind: Literal["protobuf", "json"], encoding: Encoding) -> Response:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[WriteOutcome] = loop.create_future()

        def told(outcome: WriteOutcome) -> None:
            if not future.done():  # the client may have left
                future.set_result(outcome)

        def done(outcome: WriteOutcome) -> None:
            loop.call_soon_threadsafe(told, outcome)

        if not self.writer.submit(raw, kind, encoding, done):
            return refused(kind, 503, "too many requests wait: send it again later")
        outcome = await future
        if outcome.problem:
            return refused(kind, 503 if outcome.retry else 400, outcome.problem)
        return accepted(kind, outcome)

    def _refusal(self, scope: Scope, headers: Headers, kind: str | None) -> tuple[int, str] | None:
        """The status and the sentence for a request whose body is not read."""
        if not self.is_own_host(headers.get("host")):
            return 421, "this is not the address of the Studio"
        if headers.get("origin") is not None or headers.get("sec-fetch-site") not in (None, "none"):
            return 403, "pages of the web may not send spans"
        if scope["method"] != "POST":
            return 405, "spans are sent with POST"
        if self.key is not None and not shows_key(headers, self.key):
            return 401, "send the key that the Studio was started with, as `Authorization: Bearer KEY`"
        if kind is None:
            return 415, "Content-Type is application/x-protobuf or application/json"
        if headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
            return 415, "Content-Encoding is gzip, deflate or none"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 15 or int(length) > MAX_REQUEST_BYTES:
            return 413, f"the request is larger than {MAX_REQUEST_BYTES >> 20} MiB: send less at once"
        return None


_CODES = {400: 3, 401: 16, 403: 7, 405: 12, 408: 4, 413: 8, 415: 3, 421: 5, 503: 14}
"""The gRPC codes of HTTP statuses, which OTLP's errors carry."""


def shows_key(headers: Headers, key: str) -> bool:
    """True if a request shows the key in one of the ways in which SDKs send one."""
    shown = [headers.get("x-api-key", ""), headers.get("api_key", "")]
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        shown.append(rest.strip())
    elif scheme.lower() == "basic":
        try:
            shown.append(base64.b64decode(rest.strip(), validate=True).decode("utf-8", "replace").partition(":")[2])
        except (binascii.Error, ValueError):
            return False
    return any(
        hmac.compare_digest(each.encode("utf-8", "replace"), key.encode("utf-8", "replace")) for each in shown if each
    )


def accepted(kind: Literal["protobuf", "json"], outcome: WriteOutcome) -> Response:
    """The answer after spans are on disk; spans that were left out are told as OTLP's partial success."""
    why = "spans without valid ids were left out" if outcome.rejected else ""
    if kind == "json":
        partial = {"rejectedSpans": str(outcome.rejected), "errorMessage": why} if outcome.rejected else {}
        return Response(json.dumps({"partialSuccess": partial}), media_type="application/json")
    partial_success = _number(1, outcome.rejected) + _text(2, why) if outcome.rejected else b""
    body = b"\x0a" + _varint(len(partial_success)) + partial_success if partial_success else b""
    return Response(body, media_type="application/x-protobuf")


def refused(kind: str | None, status: int, why: str) -> Response:
    """The answer to a request of which nothing was kept, in the encoding of the request."""
    code = _CODES.get(status, 2)
    headers = {"connection": "close"} if status in (403, 408, 413, 421) else {}
    if status == 503:
        headers["retry-after"] = "2"
    if status == 405:
        headers["allow"] = "POST"
    if kind == "protobuf":
        body = _number(1, code) + _text(2, why)
        return Response(body, status, headers, media_type="application/x-protobuf")
    return Response(json.dumps({"code": code, "message": why}), status, headers, media_type="application/json")


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
