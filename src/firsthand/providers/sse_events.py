"""Parts a stream of server-sent events into the data of each."""

from __future__ import annotations

import asyncio
import json
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterator

from firsthand.errors import ModelError

MAX_LINES, MAX_EVENT_LINES = 2_000_000, 100_000
"""Lines of a stream, of which an event has three, and lines of data in one event, which servers send as one line."""
_AT_ONCE = 512
"""Events after which other tasks have their turn, however many came in one piece."""


class Unended(str):
    """The data of an event in which the stream ended, before its blank line."""


def is_cut_short(data: str) -> bool:
    """True for what the stream ended in and begins as JSON, or as `[DONE]`, and is none: the rest of it did not come.

    Some servers close without the blank line after the last event, and some say in plain text why they close.
    """
    if not isinstance(data, Unended) or data.lstrip()[:1] not in ("", "{", "["):
        return False
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return True
    return False


async def sse_data(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Yields the data of each server-sent event, in time linear in the bytes. ModelError for a line too many."""
    left, events = MAX_LINES, 0
    pending: list[bytes] = []
    data: list[str] = []
    async for chunk in chunks:
        if b"\n" not in chunk:
            pending.append(chunk)
            continue
        *lines, rest = b"".join([*pending, chunk]).split(b"\n")
        pending = [rest]
        if left == MAX_LINES:
            lines[0] = lines[0].removeprefix(BOM_UTF8)
        left -= len(lines)
        if left < 0:
            raise ModelError(f"it sent a stream of more than {MAX_LINES:,} lines: ask for less")
        for line in lines:
            field, _, value = line.rstrip(b"\r").decode("utf-8", "replace").partition(":")
            if field == "data":
                data.append(value.removeprefix(" "))
                if len(data) > MAX_EVENT_LINES:
                    raise ModelError(f"it sent an event of more than {MAX_EVENT_LINES:,} lines: check its address")
            elif not field and not value and data:
                yield "\n".join(data)
                data = []
                events += 1
                if events % _AT_ONCE == 0:
                    await asyncio.sleep(0)
    last = b"".join(pending)
    if left == MAX_LINES:
        last = last.removeprefix(BOM_UTF8)
    if last.startswith(b"data:"):
        data.append(last[5:].decode("utf-8", "replace").strip())
    if data:  # the server closed without a blank line
        yield Unended("\n".join(data))
