"""Reads a request's body within bounds of size and time, and parses it as strict JSON.

Bodies that another parser could read differently are refused: invalid UTF-8, duplicate keys, NaN, endless numbers, and
nesting deeper than any request needs.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from firsthand.message import Json
from firsthand.serve.http.refusals import Refusal, bad

MAX_DEPTH = 64
MAX_VALUES = 500_000
"""Most values in one body; a list of token ids is long, but not that long."""
MAX_OBJECTS = 50_000
"""Most objects and lists in one body. Python's garbage collector looks at all that a server holds again and again while
many are made: 500,000 of them kept a server with a model busy for 7 s, in which nobody else was answered."""
MAX_KEYS = 10_000
"""Most keys of one object. Each unknown key of a request is a fault of its own, and all are found before one is reported."""
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""Strings, closed or not, and the brackets outside them."""
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def read_body(receive: Receive, most_bytes: int, most_s: float, declared: str | None) -> bytes:
    """The whole body; a Refusal with 413 if it is too large, with 408 if it does not arrive in time."""
    if declared is not None and (not declared.isascii() or not declared.isdigit()):
        raise bad(f"Content-Length is {declared[:40]!r}: a number was expected")
    if declared is not None and (len(declared) > 18 or int(declared) > most_bytes):
        raise _too_long(most_bytes)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(most_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > most_bytes:
                    raise _too_long(most_bytes)
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        raise Refusal(
            408, f"the body did not come within {most_s:g} s: send it faster", headers={"connection": "close"}
        ) from None


class ClientLeft(Exception):
    """The client closed its connection."""


def parse_object(raw: bytes, content_type: str | None) -> Json:
    """The JSON object of a body; a Refusal if it is not one."""
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, f"Content-Type is {(content_type or 'missing')[:60]!r}: send application/json")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad(f"the body is not valid UTF-8 (byte {error.start})") from None
    _check_brackets(text)
    try:
        body = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise bad(f"the body nests lists and objects more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise bad(f"the body is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(body, dict):
        raise bad(f"the body is a JSON {type(body).__name__}: an object was expected")
    return body


def _check_brackets(text: str) -> None:
    """Refuse more than MAX_VALUES values, more than MAX_OBJECTS objects and lists, and nesting beyond MAX_DEPTH."""
    if text.count(",") > MAX_VALUES:
        raise bad(f"the body holds more than {MAX_VALUES} values")
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = opened = 0
    for match in _BRACKETS.finditer(text):
        mark = match[0]
        if mark in "[{":
            depth += 1
            opened += 1
            if depth > MAX_DEPTH:
                raise bad(f"the body nests lists and objects more than {MAX_DEPTH} deep")
            if opened > MAX_OBJECTS:
                raise bad(f"the body holds more than {MAX_OBJECTS:,} objects and lists: send less at once")
        elif mark in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has {len(pairs)} keys, and at most {MAX_KEYS} are taken")
    body = dict(pairs)
    if len(body) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name[:60]!r} comes twice")
            seen.add(name)
    return body


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _too_long(most: int) -> Refusal:
    return Refusal(413, f"the body has more than {most} bytes: send less", headers={"connection": "close"})
