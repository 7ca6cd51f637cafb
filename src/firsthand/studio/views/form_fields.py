"""Reads the fields of a form that a page sends."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request

from firsthand.errors import ConfigError

MAX_BODY = 64 << 10
MAX_FIELDS = 40


async def form_of(request: Request, most: int = MAX_BODY) -> dict[str, str]:
    """The fields of an urlencoded form of at most `most` bytes; of a field that comes twice the last value."""
    return dict(await fields_of(request, most))


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
