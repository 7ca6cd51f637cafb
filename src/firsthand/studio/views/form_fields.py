"""Reads the fields of a form that a page sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from firsthand.errors import ConfigError

MAX_BODY = 64 << 10
MAX_FIELDS = 40


def posted(
    handle: Callable[[Request, dict[str, str]], Response], most: int = MAX_BODY
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that reads a form of at most `most` bytes and calls `handle` with it in a thread.

    On the event loop, where a form is read, everybody's pages would wait while `handle` reads a run or waits for a lock.
    """

    async def endpoint(request: Request) -> Response:
        form = await form_of(request, most)
        return await run_in_threadpool(handle, request, form)

    return endpoint


async def form_of(request: Request, most: int = MAX_BODY) -> dict[str, str]:
    """The fields of an urlencoded form of at most `most` bytes; of a field that comes twice the last value."""
    return dict(await fields_of(request, most))


def version_of(form: dict[str, str], default: str = "") -> int:
    """The version of a document that the field `version` of a form says was read; ConfigError if it is no whole number."""
    text = form.get("version", default)
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ConfigError(f"version is {text[:40]!r}: a whole number was expected")
    return int(text)


async def fields_of(request: Request, most: int = MAX_BODY) -> list[tuple[str, str]]:
    """The fields of an urlencoded form, in their order; ConfigError if it is no form, or a larger one."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise ConfigError("the Studio expects the fields of a form")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise ConfigError(f"the form has more than {most >> 10} KiB")
    try:
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise ConfigError(f"the form has more than {MAX_FIELDS} fields") from None
