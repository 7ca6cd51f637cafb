"""Posts to a webhook: to a checked address alone, a few times if need be. Redirects are not followed, answers not read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpcore

from firsthand.errors import ToolError
from firsthand.tools.fetch import read_url, trusted
from firsthand.tools.web.addresses import Resolver, Rules, resolve
from firsthand.tools.web.pinned_backend import PinnedBackend

TRIES, FIRST_WAIT_S, TIMEOUT_S = 3, 0.2, 5.0


async def call_webhook(
    target: str,
    body: bytes,
    rules: Rules,
    resolver: Resolver = resolve,
    *,
    content_type: str = "application/json",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> str:
    """Post a body; returns an empty text once it was taken, or why it was given up."""
    why = ""
    for number in range(TRIES):
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await _post(target, body, rules, resolver, content_type, headers)
            if status < 300:
                return ""
            why = f"it answers with status {status}"
        except ToolError as error:  # it may not be called, now or later
            return str(error)
        except (
            TimeoutError,
            OSError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            why = f"{type(error).__name__}: {error}"[:200]
        if number + 1 < TRIES:
            await asyncio.sleep(FIRST_WAIT_S * 4**number)
    return why


async def _post(
    target: str,
    body: bytes,
    rules: Rules,
    resolver: Resolver,
    content_type: str,
    headers: Sequence[tuple[bytes, bytes]],
) -> int:
    url = read_url(target)
    sent = [
        (b"host", url.netloc),
        (b"user-agent", b"firsthand"),
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *headers,
    ]
    address = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    backend = PinnedBackend(rules, resolver)
    async with (
        httpcore.AsyncConnectionPool(ssl_context=trusted(), network_backend=backend) as pool,
        pool.stream("POST", address, headers=sent, content=body) as response,
    ):
        return int(response.status)
