"""A blackboard and a message bus in Redis, for agents on several machines (extra `redis`).

Each call is one Lua script, which Redis carries out whole or not at all. Messages and writes lie in two streams whose entry
ids are offsets (`7-0` is offset 7), so other clients can read them with XRANGE. How much survives a crash of the server is
what it was configured for: with `appendfsync always` every call that returned, with `everysec` all but the last second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from firsthand.declaration import Readers
from firsthand.errors import ConfigError, MissingExtra, StoreError, UnknownName
from firsthand.messaging import redis_scripts
from firsthand.messaging.blackboard import BoardEntry, check_entry, conflict
from firsthand.messaging.message_bus import (
    BusFull,
    BusMessage,
    DeadLetter,
    Delivery,
    check_bounds,
    check_fetch,
    check_payloads,
    is_time,
)
from firsthand.messaging.topic_names import check_topic, topic_pattern
from firsthand.runs.database import plain
from firsthand.system.address_secrets import server_of
from firsthand.system.terminal import one_line

_SCAN = 1000
_OTHER_FORM = (TypeError, ValueError, LookupError, AttributeError, OverflowError)
"""Errors that reading a malformed reply raises."""
T = TypeVar("T")


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
        said, entry = self._run(
            "write",
            plain(key),
            plain(value),
            plain(writer),
            repr(time.time()),
            "" if expected is None else int(expected),
            "" if once is None else f"={plain(once)}",
            self.kept_versions,
            *(() if readers == "public" else (readers,)),
            read=_written,
        )
        if said == "conflict":
            raise conflict(key, int(expected or 0), entry)
        assert entry is not None  # `_written` has seen to it
        return entry

    def read(self, key: str) -> BoardEntry | None:
        """The key as it is; None if it was never written."""
        return self._run("read", plain(key), read=_entry)

    def entries(self, prefix: str = "") -> list[BoardEntry]:
        """The latest entry of each key that begins so, by key."""
        return self._run("entries", plain(prefix), read=_entries)

    def history(self, key: str) -> list[BoardEntry]:
        """All versions of a key that are kept, the first one first."""
        return self._run("history", plain(key), read=_entries)

    def changes(self, after: int = 0, limit: int = 1000) -> list[BoardEntry]:
        """The writes after that place in the sequence, in order."""
        check_bounds(limit=limit)
        return self._range("changes", after, limit, lambda rows: _entries([[id, *flat] for id, flat in rows]))

    # -- the bus --

    def publish(self, topic: str, payloads: Sequence[str], *, sender: str = "", once: str | None = None) -> list[int]:
        """Keep messages in order, all or none; returns their offsets; see `MessageBus.publish`."""
        check_topic(topic)
        check_payloads(payloads)
        name = "" if once is None else f"={plain(once)}"
        texts = [plain(each) for each in payloads]
        given = (topic, plain(sender), repr(time.time()), self.max_lag, name, *texts)
        first, count = self._run("publish", *given, read=_published)
        if isinstance(first, str):
            raise BusFull(
                f"{topic} takes no more messages: the group {first!r} is {count:,} behind, and {self.max_lag:,} are "
                "allowed; let it read, or remove it"
            )
        return list(range(first, first + count))

    def subscribe(self, group: str, pattern: str, *, after: int | None = None) -> None:
        """Make a group for the topics of a pattern, or move it; see `MessageBus.subscribe`."""
        topic_pattern(pattern)
        check_topic(group)
        other = self._run(
            "subscribe",
            group,
            pattern,
            redis_scripts.lua_pattern(pattern),
            "" if after is None else max(after, 0),
            read=_text,
        )
        if other:
            raise ConfigError(f"the group {group!r} subscribes to {other!r}: give another name for {pattern!r}")

    def unsubscribe(self, group: str) -> None:
        """Remove a group; its messages stay for others and for replays."""
        self._run("unsubscribe", plain(group), read=bool)

    def fetch(self, group: str, limit: int = 100, *, lease_s: float = 30.0) -> list[Delivery]:
        """The next messages for a group, the oldest first: those whose lease ran out, and new ones."""
        check_fetch(limit, lease_s)
        return self._of(group, "fetch", limit, lease_s, self.max_deliveries, read=_deliveries)

    def acknowledge(self, group: str, offsets: Sequence[int]) -> int:
        """Say that messages were handled; returns how many of them were still waiting for that."""
        return self._of(group, "acknowledge", *offsets, read=_number)

    def let_go(self, group: str, offset: int, reason: str = "") -> None:
        """Give a message back, to be delivered again at once, or to become a dead letter."""
        why = plain((reason or "it was let go of")[:1000])
        if not self._of(group, "let_go", offset, why, self.max_deliveries, read=_number):
            raise UnknownName(f"the group {group!r} holds no message {offset}")

    def replay(self, pattern: str, after: int = 0, limit: int = 1000) -> list[BusMessage]:
        """The messages of a pattern behind an offset, in order, whatever any group has done."""
        wanted, found = topic_pattern(pattern), list[BusMessage]()
        while len(found) < limit:
            made = self._range("messages", after, _SCAN, lambda rows: [_message(id, flat) for id, flat in rows])
            found += [each for each in made if wanted.fullmatch(each.topic)]
            if len(made) < _SCAN:
                break
            if made[-1].offset <= after:  # it would be asked for the same again, without end
                raise self._other_form()
            after = made[-1].offset
        return found[:limit]

    def dead_letters(self, group: str) -> list[DeadLetter]:
        """The messages that the group could not handle, the oldest first."""
        letters = self._run("dead_letters", plain(group), read=_letters)
        return [DeadLetter(message, group, count, why) for message, count, why in letters]

    def lag(self, group: str) -> int:
        """The messages that the group has not acknowledged."""
        return self._of(group, "lag", read=_number)

    # -- inside --

    def _run(self, script: str, *arguments: object, read: Callable[[Any], T]) -> T:
        return self._read(self._ask(self._scripts[script], keys=[self._prefix], args=arguments), read)

    def _of(self, group: str, script: str, *arguments: object, read: Callable[[Any], T]) -> T:
        """Returns the reply of a script about a group. UnknownName if the group does not exist."""

        def of_group(said: Any) -> T:
            if said == "no group":
                raise UnknownName(f"no group {group[:80]!r}: subscribe it first")
            return read(said)

        return self._run(script, plain(group), *arguments, read=of_group)

    def _range(self, stream: str, after: int, limit: int, read: Callable[[list[Any]], T]) -> T:
        """Reads id and fields, after each other, of a stream's entries behind an offset."""

        def flat(rows: Any) -> T:
            return read([(id, [part for pair in fields.items() for part in pair]) for id, fields in rows])

        return self._read(
            self._ask(self._client.xrange, f"{self._prefix}{stream}", f"{max(after, 0) + 1}-0", "+", limit), flat
        )

    def _read(self, reply: Any, read: Callable[[Any], T]) -> T:
        try:
            return read(reply)
        except _OTHER_FORM:
            raise self._other_form() from None

    def _other_form(self) -> StoreError:
        return StoreError(
            f"the Redis server at {self._address} failed: a reply of another form than Redis gives; check the address, and "
            "any proxy before it"
        )

    def _ask(self, ask: Any, *arguments: object, **options: object) -> Any:
        try:
            return ask(*arguments, **options)
        except UnicodeEncodeError:  # of what was to be sent
            raise
        except (self._failure, RecursionError, *_OTHER_FORM) as error:  # the client reads replies without bounds
            said = str(error) if isinstance(error, self._failure) else "a reply that is none"
            raise StoreError(f"the Redis server at {self._address} failed: {one_line(said)}") from None


def _text(said: Any) -> str:
    if not isinstance(said, str):
        raise TypeError(said)
    return said


def _number(said: Any) -> int:
    if type(said) is not int:
        raise TypeError(said)
    return said


def _fields(flat: Sequence[Any]) -> dict[str, str]:
    texts = list(map(_text, flat))
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _written(reply: Any) -> tuple[str, BoardEntry | None]:
    """Returns the outcome of a write and the current entry, which is None for a conflict alone."""
    said, row = reply
    entry = _entry(row)
    if entry is None and said != "conflict":
        raise ValueError(said)
    return said, entry


def _published(reply: Any) -> tuple[int | str, int]:
    """The first offset and the number of messages; the group and its lag if it is too far behind."""
    said, first, count = reply
    return _text(first) if said == "full" else int(first), int(count)


def _deliveries(rows: Any) -> list[Delivery]:
    return [Delivery(_message(id, flat), int(count)) for id, count, flat in rows]


def _letters(rows: Any) -> list[tuple[BusMessage, int, str]]:
    return [(_message(id, flat), int(count), _text(why)) for id, count, why, flat in rows]


def _entry(row: Sequence[Any] | None) -> BoardEntry | None:
    """A row of a script: the entry's id in the stream, and its fields after each other."""
    if not row:
        return None
    found = _fields(row[1:])
    sequence = int(row[0].split("-")[0])
    try:
        version, at = int(found["version"]), float(found["at"])
        readers: Readers = "public" if found.get("readers", "public") == "public" else "user"
        made = BoardEntry(found["key"], found["value"], version, found["writer"], at, sequence, readers)
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
