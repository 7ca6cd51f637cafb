"""Bounds the connections of a server, and those of clients that have not shown who they are to half of them or fewer.

Beyond a bound the oldest such connection is closed, of the address that has most of them: a newcomer has always a moment to
send its head and its key, however many connections somebody else holds open.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from typing import Any

MOST_CONNECTIONS = 16_384
KEPT_FILES = 128
"""Open files of the process that are no connections: stores, logs, models."""


class ConnectionRoom:
    """The connections of one server.

    Args:
        most: The most connections; by default as many as the process may have files open, up to MOST_CONNECTIONS.
        most_strangers: The most whose clients have not shown who they are, if less than half of those.
    """

    def __init__(self, most: int | None = None, most_strangers: int = MOST_CONNECTIONS):
        self.most = max(2, min(MOST_CONNECTIONS, open_files() - KEPT_FILES)) if most is None else most
        self.most_strangers = min(most_strangers, self.most // 2)
        self._strangers: dict[str, dict[Any, Callable[[], None]]] = {}
        """Address -> its connections that have not shown who they are, the oldest first, with what closes each."""
        self._num_strangers = 0
        self._known: set[Any] = set()

    def opened(self, connection: Any, address: str, close: Callable[[], None]) -> None:
        """Count a connection as the newest, and close the oldest stranger if there are too many.

        Called again for one that is counted, as after its TLS handshake: it counts once, and `close` closes it from now on.
        """
        self.closed(connection, address)
        self._strangers.setdefault(address, {})[connection] = close
        self._num_strangers += 1
        while self._num_strangers > self.most_strangers or self._num_strangers + len(self._known) > self.most:
            if not self._num_strangers:
                return
            largest = max(self._strangers, key=lambda each: len(self._strangers[each]))
            oldest, close_oldest = next(iter(self._strangers[largest].items()))
            self._forget(oldest, largest)
            close_oldest()

    def recognised(self, connection: Any, address: str) -> None:
        """The client has shown a session or a key, or needs none: its connection stays."""
        if self._forget(connection, address):
            self._known.add(connection)

    def closed(self, connection: Any, address: str) -> None:
        """The connection is gone."""
        self._known.discard(connection)
        self._forget(connection, address)

    def _forget(self, connection: Any, address: str) -> bool:
        of_address = self._strangers.get(address, {})
        if of_address.pop(connection, None) is None:
            return False
        self._num_strangers -= 1
        if not of_address:
            del self._strangers[address]
        return True


def open_files() -> int:
    """The number of files that this process may have open, after its limit was raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = hard if hard != resource.RLIM_INFINITY else 1 << 16
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            return target
    return target if soft == resource.RLIM_INFINITY else soft
