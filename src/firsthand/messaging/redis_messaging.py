"""A blackboard and a message bus in Redis, for agents on several machines (extra `redis`).

Each call is one Lua script, which Redis carries out whole or not at all. Messages and writes lie in two streams whose entry
ids are offsets (`7-0` is offset 7), so other clients can read them with XRANGE. How much survives a crash of the server is
what it was configured for: with `appendfsync always` every call that returned, with `everysec` all but the last second.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from firsthand.errors import ConfigError, MissingExtra, StoreError, UnknownName
from firsthand.messaging import redis_scripts
from firsthand.messaging.blackboard import BoardEntry, check_entry, conflict
from firsthand.messaging.message_bus import (
    BusFull,
    BusMessage,
    DeadLetter,
    Delivery,
    check_bounds,
    check_payloads,
    is_time,
)
from firsthand.messaging.topic_names import check_topic, topic_pattern
from firsthand.runs.database import plain
from firsthand.system.address_secrets import server_of
from firsthand.system.terminal import one_line

_SCAN = 1000


class RedisMessaging:
    """A Blackboard and a MessageBus in a Redis server, under a name of their own."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "firsthand",
        max_lag: int = 100_000,
        max_deliveries: int = 5,
        kept_versions: int = 1000,
        timeout_s: float = 10.0,
    ):
        """Connects.

        Args:
            url: As `redis://localhost:6379/0`; `rediss://` for TLS, with user and password as usual.
            name: The beginning of all keys; boards and buses of different names know nothing of each other.
            max_lag: Messages that a group may be behind before publishers of its topics are held back.
            max_deliveries: Deliveries after which a message that was not acknowledged is a dead letter.
            kept_versions: Versions of a key that its history keeps.
            timeout_s: Seconds to wait for an answer.

        Raises:
            ConfigError: A bound is below 1, or the address is none.
            MissingExtra: The package `redis` is not installed.
            StoreError: No server answers there.
        """
        check_bounds(max_lag=max_lag, max_deliveries=max_deliveries, kept_versions=kept_versions)
        try:
            import redis
        except ImportError:
            raise MissingExtra("redis", "redis", "shared state in Redis") from None
        self.max_lag, self.max_deliveries, self.kept_versions = max_lag, max_deliveries, kept_versions
        self._failure: type[Exception] = redis.exceptions.RedisError
        self._address = server_of(url)
        try:
            self._client: Any = redis.Redis.from_url(
                url,
                decode_responses=True,
                encoding_errors="replace",
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                **({"ssl_cert_reqs": "required", "ssl_check_hostname": True} if url.startswith("rediss:") else {}),
            )
        except ValueError:  # whose words may be a piece of a password
            raise ConfigError(
                f"{self._address!r} is no address of a Redis server: give redis://HOST:PORT/0, or rediss:// for TLS, and "
                "percent-encode the password"
            ) from None
        self._prefix = f"{{{check_topic(name)}}}:"  # in braces: a cluster keeps all keys at one place
        self._scripts = {script: self._client.register_script(text) for script, text in redis_scripts.SCRIPTS.items()}
        self._ask(self._client.ping)

    def __enter__(self) -> RedisMessaging:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- the blackboard --

    def write(
        self, key: str, value: str, *, writer: str, expected: int | None = None, once: str | None = None
    ) -> BoardEntry:
        """Keep a new version of a key; see `Blackboard.write`."""
        check_entry(key, value)
        said, fields = self._run(
            "write",
            plain(key),
            plain(value),
            plain(writer),
            repr(time.time()),
            "" if expected is None else expected,
            "" if once is None else f"={plain(once)}",
            self.kept_versions,
        )
        entry = _entry(fields)
        if said == "conflict":
            raise conflict(key, int(expected or 0), entry)
        assert entry is not None
        return entry

    def read(self, key: str) -> BoardEntry | None:
        """The key as it is; None if it was never written."""
        return _entry(self._run("read", plain(key)))

    def entries(self, prefix: str = "") -> list[BoardEntry]:
        """The latest entry of each key that begins so, by key."""
        return _entries(self._run("entries", plain(prefix)))

    def history(self, key: str) -> list[BoardEntry]:
        """All versions of a key that are kept, the first one first."""
        return _entries(self._run("history", plain(key)))

    def changes(self, after: int = 0, limit: int = 1000) -> list[BoardEntry]:
        """The writes after that place in the sequence, in order."""
        rows = self._ask(self._client.xrange, f"{self._prefix}changes", f"{after + 1}-0", "+", limit)
        return _entries([[offset, *(part for pair in fields.items() for part in pair)] for offset, fields in rows])

    # -- the bus --

    def publish(self, topic: str, payloads: Sequence[str], *, sender: str = "", once: str | None = None) -> list[int]:
        """Keep messages in order, all or none; returns their offsets; see `MessageBus.publish`."""
        check_topic(topic)
        check_payloads(payloads)
        name = "" if once is None else f"={plain(once)}"
        texts = [plain(each) for each in payloads]
        said, first, count = self._run("publish", topic, plain(sender), repr(time.time()), self.max_lag, name, *texts)
        if said == "full":
            raise BusFull(
                f"{topic} takes no more messages: the group {first!r} is {int(count):,} behind, and {self.max_lag:,} are "
                "allowed; let it read, or remove it"
            )
        return list(range(int(first), int(first) + int(count)))

    def subscribe(self, group: str, pattern: str, *, after: int | None = None) -> None:
        """Make a group for the topics of a pattern, or move it; see `MessageBus.subscribe`."""
        topic_pattern(pattern)
        check_topic(group)
        other = self._run(
            "subscribe", group, pattern, redis_scripts.lua_pattern(pattern), "" if after is None else max(after, 0)
        )
        if other:
            raise ConfigError(f"the group {group!r} subscribes to {other!r}: give another name for {pattern!r}")

    def unsubscribe(self, group: str) -> None:
        """Remove a group; its messages stay for others and for replays."""
        self._run("unsubscribe", plain(group))

    def fetch(self, group: str, limit: int = 100, *, lease_s: float = 30.0) -> list[Delivery]:
        """The next messages for a group, the oldest first: those whose lease ran out, and new ones."""
        if limit < 1:
            raise ConfigError(f"limit is {limit}: give 1 or more")
        rows = self._of(group, self._run("fetch", plain(group), limit, lease_s, self.max_deliveries))
        return [Delivery(_message(offset, fields), int(count)) for offset, count, fields in rows]

    def acknowledge(self, group: str, offsets: Sequence[int]) -> int:
        """Say that messages were handled; returns how many of them were still waiting for that."""
        return int(self._of(group, self._run("acknowledge", plain(group), *offsets)))

    def let_go(self, group: str, offset: int, reason: str = "") -> None:
        """Give a message back, to be delivered again at once, or to become a dead letter."""
        held = self._run(
            "let_go", plain(group), offset, plain((reason or "it was let go of")[:1000]), self.max_deliveries
        )
        if not self._of(group, held):
            raise UnknownName(f"the group {group!r} holds no message {offset}")

    def replay(self, pattern: str, after: int = 0, limit: int = 1000) -> list[BusMessage]:
        """The messages of a pattern behind an offset, in order, whatever any group has done."""
        wanted, found = topic_pattern(pattern), list[BusMessage]()
        while len(found) < limit:
            rows = self._ask(self._client.xrange, f"{self._prefix}messages", f"{after + 1}-0", "+", _SCAN)
            made = [_message(offset, [part for pair in fields.items() for part in pair]) for offset, fields in rows]
            found += [each for each in made if wanted.fullmatch(each.topic)]
            if len(rows) < _SCAN:
                break
            after = made[-1].offset
        return found[:limit]

    def dead_letters(self, group: str) -> list[DeadLetter]:
        """The messages that the group could not handle, the oldest first."""
        rows = self._run("dead_letters", plain(group))
        return [DeadLetter(_message(offset, fields), group, int(count), why) for offset, count, why, fields in rows]

    def lag(self, group: str) -> int:
        """The messages that the group has not acknowledged."""
        return int(self._of(group, self._run("lag", plain(group))))

    # -- inside --

    def _run(self, script: str, *arguments: object) -> Any:
        return self._ask(self._scripts[script], keys=[self._prefix], args=arguments)

    def _ask(self, ask: Any, *arguments: object, **options: object) -> Any:
        try:
            return ask(*arguments, **options)
        except UnicodeEncodeError:  # of what was to be sent
            raise
        except (self._failure, ValueError, RecursionError) as error:  # the client reads replies without bounds
            said = "a reply that is none" if isinstance(error, RecursionError | ValueError) else str(error)
            raise StoreError(f"the Redis server at {self._address} failed: {one_line(said)}") from None

    def _of(self, group: str, answer: Any) -> Any:
        if answer == "no group":
            raise UnknownName(f"no group {group[:80]!r}: subscribe it first")
        return answer


def _fields(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _entry(row: Sequence[Any] | None) -> BoardEntry | None:
    """A row of a script: the entry's id in the stream, and its fields after each other."""
    if not row:
        return None
    found = _fields(row[1:])
    sequence = int(row[0].split("-")[0])
    try:
        version, at = int(found["version"]), float(found["at"])
        made = BoardEntry(found["key"], found["value"], version, found["writer"], at, sequence)
        return made if version > 0 and is_time(at) else None
    except (KeyError, ValueError):  # another program wrote it
        return None


def _entries(rows: Sequence[Sequence[Any]]) -> list[BoardEntry]:
    return [entry for row in rows if (entry := _entry(row)) is not None]


def _message(offset: str, flat: Sequence[str]) -> BusMessage:
    """A message; of what another program wrote, the fields that it has."""
    found = _fields(flat)
    try:
        at = float(found["at"])
    except (KeyError, ValueError):
        at = 0.0
    topic, payload, sender = (found.get(name, "") for name in ("topic", "payload", "sender"))
    return BusMessage(int(offset.split("-")[0]), topic, payload, sender, at if is_time(at) else 0.0)
