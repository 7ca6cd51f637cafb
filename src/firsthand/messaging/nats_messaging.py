"""A blackboard and a message bus in NATS JetStream, for agents on several machines (extra `nats`).

Messages are a stream, a group is a durable pull consumer of it, the board is a key-value bucket; other NATS clients may read
them. JetStream acknowledges what is on its disk. Four things differ from the other stores, and are JetStream's own:

- Several messages in one `publish` are kept in order, but not all or none: a server that dies between them keeps the first.
  With `once` a second publication adds those that are missing (for a day).
- `acknowledge` counts the messages that this connection fetched. It acknowledges others too.
- A key keeps at most 64 versions.
- A group cannot begin behind an offset that no message has yet; `subscribe` refuses it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from firsthand.declaration import Readers
from firsthand.errors import ConfigError, MissingExtra, StoreError
from firsthand.messaging.blackboard import BoardEntry, check_entry
from firsthand.messaging.message_bus import BusMessage, DeadLetter, Delivery, check_bounds, check_fetch, check_payloads
from firsthand.messaging.nats_client import NatsClient
from firsthand.messaging.topic_names import check_topic, topic_pattern
from firsthand.runs.database import plain
from firsthand.system.address_secrets import server_of
from firsthand.system.terminal import one_line

MAX_VERSIONS = 64
T = TypeVar("T")


class NatsMessaging:
    """A Blackboard and a MessageBus in a NATS server with JetStream, under a name of their own."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "firsthand",
        max_lag: int = 100_000,
        max_deliveries: int = 5,
        kept_versions: int = MAX_VERSIONS,
        timeout_s: float = 10.0,
    ):
        """Connects, and makes the stream and the buckets that are not there.

        Args:
            url: As `nats://localhost:4222`, in clear text; `tls://` for TLS alone. With user and password as usual.
            name: Of the stream and the buckets; boards and buses of different names know nothing of each other.
            max_lag: Messages that a group may be behind before publishers of its topics are held back.
            max_deliveries: Deliveries after which a message that was not acknowledged is a dead letter.
            kept_versions: Versions of a key that its history keeps, at most 64.
            timeout_s: Seconds to wait for an answer.

        Raises:
            ConfigError: A bound cannot be kept, or the name has dots.
            MissingExtra: The package `nats-py` is not installed.
            StoreError: No server with JetStream answers there.
        """
        check_bounds(max_lag=max_lag, max_deliveries=max_deliveries, kept_versions=kept_versions)
        if kept_versions > MAX_VERSIONS:
            raise ConfigError(
                f"kept_versions is {kept_versions}: JetStream keeps at most {MAX_VERSIONS} versions of a key"
            )
        if "." in check_topic(name):
            raise ConfigError(f"the name is {name!r}: give one without dots")
        try:
            import nats
        except ImportError:
            raise MissingExtra("nats-py", "nats", "shared state in NATS") from None
        self._client = NatsClient(name, timeout_s, max_lag, max_deliveries, kept_versions)
        self._address = ",".join(map(server_of, url.split(",")))
        self._failures = (nats.errors.Error, TimeoutError, OSError)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="firsthand-nats", daemon=True)
        self._thread.start()
        try:
            self._wait(self._client.connect(url))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> NatsMessaging:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._loop.is_running():
            with suppress(StoreError):  # of a server that is gone there is nothing to close
                self._wait(self._client.close())
            self._stop()

    # -- the blackboard --

    def write(
        self,
        key: str,
        value: str,
        *,
        writer: str,
        expected: int | None = None,
        once: str | None = None,
        readers: Readers = "public",
    ) -> BoardEntry:
        """Keep a new version of a key; see `Blackboard.write`."""
        check_entry(key, value)
        name = once and plain(once)
        return self._call(self._client.write(plain(key), plain(value), plain(writer), expected, name, readers))

    def read(self, key: str) -> BoardEntry | None:
        """The key as it is; None if it was never written."""
        return self._call(self._client.read(plain(key)))

    def entries(self, prefix: str = "") -> list[BoardEntry]:
        """The latest entry of each key that begins so, by key."""
        return self._call(self._client.entries(plain(prefix)))

    def history(self, key: str) -> list[BoardEntry]:
        """All versions of a key that are kept, the first one first."""
        return [entry for entry, _ in self._call(self._client.history(plain(key)))]

    def changes(self, after: int = 0, limit: int = 1000) -> list[BoardEntry]:
        """The writes after that place in the sequence, in order."""
        check_bounds(limit=limit)
        return self._call(self._client.changes(after, limit))

    # -- the bus --

    def publish(self, topic: str, payloads: Sequence[str], *, sender: str = "", once: str | None = None) -> list[int]:
        """Keep messages in order; returns their offsets; see `MessageBus.publish`."""
        check_topic(topic)
        check_payloads(payloads)
        return self._call(
            self._client.publish(topic, [plain(each) for each in payloads], plain(sender), once and plain(once))
        )

    def subscribe(self, group: str, pattern: str, *, after: int | None = None) -> None:
        """Make a group for the topics of a pattern, or move it; see `MessageBus.subscribe`."""
        topic_pattern(pattern)
        check_topic(group)
        self._call(self._client.subscribe(group, pattern, after))

    def unsubscribe(self, group: str) -> None:
        """Remove a group; its messages stay for others and for replays."""
        self._call(self._client.unsubscribe(plain(group)))

    def fetch(self, group: str, limit: int = 100, *, lease_s: float = 30.0) -> list[Delivery]:
        """The next messages for a group, the oldest first: those whose lease ran out, and new ones."""
        check_fetch(limit, lease_s)
        return self._call(self._client.fetch(plain(group), limit, lease_s))

    def acknowledge(self, group: str, offsets: Sequence[int]) -> int:
        """Say that messages were handled; returns how many of them this connection had fetched."""
        return self._call(self._client.acknowledge(plain(group), offsets))

    def let_go(self, group: str, offset: int, reason: str = "") -> None:
        """Give a message back, to be delivered again at once, or to become a dead letter."""
        self._call(self._client.let_go(plain(group), offset, reason))

    def replay(self, pattern: str, after: int = 0, limit: int = 1000) -> list[BusMessage]:
        """The messages of a pattern behind an offset, in order, whatever any group has done."""
        topic_pattern(pattern)
        return self._call(self._client.replay(pattern, after, limit))

    def dead_letters(self, group: str) -> list[DeadLetter]:
        """The messages that the group could not handle, the oldest first."""
        return self._call(self._client.dead_letters(plain(group)))

    def lag(self, group: str) -> int:
        """The messages that the group has not acknowledged."""
        return self._call(self._client.lag(plain(group)))

    # -- inside --

    def _call(self, doing: Coroutine[Any, Any, T]) -> T:
        """Waits for a call over a connection that is opened anew if it was lost."""
        return self._wait(self._connected(doing))

    async def _connected(self, doing: Coroutine[Any, Any, T]) -> T:
        try:
            await self._client.ready()
        except BaseException:
            doing.close()
            raise
        return await doing

    def _wait(self, doing: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(doing, self._loop).result()
        except self._failures as error:
            told = one_line(str(error)) or type(error).__name__
            raise StoreError(f"the NATS server at {self._address} failed: {told}") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StoreError(
                f"the NATS server at {self._address} holds a record that firsthand did not write "
                f"({one_line(str(error))[:80]}): give another name"
            ) from None

    def _stop(self) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    """Ends what the connection left running."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
