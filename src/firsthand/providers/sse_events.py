"""Parts a stream of server-sent events into the data of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator


async def sse_data(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Yields the data of each server-sent event, in time linear in the bytes."""
    pending: list[bytes] = []
    data: list[str] = []
    async for chunk in chunks:
        if b"\n" not in chunk:
            pending.append(chunk)
            continue
        *lines, rest = b"".join([*pending, chunk]).split(b"\n")
        pending = [rest]
        for line in lines:
            field, _, value = line.rstrip(b"\r").decode("utf-8", "replace").partition(":")
            if field == "data":
                data.append(value.removeprefix(" "))
            elif not field and not value and data:
                yield "\n".join(data)
                data = []
    last = b"".join(pending)
    if last.startswith(b"data:"):
        data.append(last[5:].decode("utf-8", "replace").strip())
    if data:  # the server closed without a blank line
        yield "\n".join(data)
