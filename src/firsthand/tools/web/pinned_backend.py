"""Opens httpcore's connections, each to an address that was checked in the same step (see `addresses`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httpcore

from firsthand.errors import ToolError
from firsthand.tools.web.addresses import Resolver, Rules, checked_addresses


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections for httpx, each to an address that was checked in the same step."""

    def __init__(self, rules: Rules, resolver: Resolver, inner: httpcore.AsyncNetworkBackend | None = None):
        self.rules = rules
        self.resolver = resolver
        self.inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to one of the checked addresses of `host`, the first that answers."""
        addresses = await checked_addresses(host, port, self.rules, self.resolver)
        failure: Exception | None = None
        for address in addresses[:4]:
            try:
                return await self.inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        """Always a ToolError."""
        raise ToolError("a socket file may not be reached")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
