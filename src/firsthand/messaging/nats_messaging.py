"""A blackboard and a message bus in NATS JetStream, for agents on several machines (extra `nats`).

Messages are a stream, a group is a durable pull consumer of it, the board is a key-value bucket; other NATS clients may read
them. JetStream acknowledges what is on its disk. Three things differ from the other stores, and are JetStream's own:

- Several messages in one `publish` are kept in order, but not all or none: a server that dies between them keeps the first.
  With `once` a second publication adds those that are missing (for a day).
- `acknowledge` counts the messages that this connection fetched. It acknowledges others too.
- A key keeps at most 64 versions.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, TypeVar

from firsthand.errors import ConfigError, MissingExtra, StoreError, UnknownName
from firsthand.messaging.blackboard import BoardEntry, check_entry, conflict
from firsthand.messaging.message_bus import BusFull, BusMessage, DeadLetter, Delivery, check_payloads
from firsthand.messaging.topic_names import check_topic, topic_pattern
from firsthand.runs.database import plain
from firsthand.system.terminal import one_line

MAX_VERSIONS = 64
T = TypeVar("T")
_DAY_S = 86_400.0
_LEASE_S = 30.0
_SHORTEST_LEASE_S = 0.02
_BATCH = 1000


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
            url: As `nats://localhost:4222`; `tls://` for TLS, with user and password as usual.
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
        for option, value in (
            ("max_lag", max_lag),
            ("max_deliveries", max_deliveries),
            ("kept_versions", kept_versions),
        ):
            if value < 1:
                raise ConfigError(f"{option} is {value}: give 1 or more")
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
        self.max_lag, self.max_deliveries, self.kept_versions = max_lag, max_deliveries, kept_versions
        self._name, self._timeout = name, timeout_s
        self._address = url.rsplit("@", 1)[-1]
        self._failures = (nats.errors.Error, TimeoutError, OSError)
        self._held: dict[tuple[str, int], int] = {}
        """Deliveries of what this connection fetched and has not acknowledged, by group and offset."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="firsthand-nats", daemon=True)
        self._thread.start()
        try:
            self._wait(self._connect(nats, url))
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
                self._wait(self._nc.close())
            self._stop()

    # -- the blackboard --

    def write(
        self, key: str, value: str, *, writer: str, expected: int | None = None, once: str | None = None
    ) -> BoardEntry:
        """Keep a new version of a key; see `Blackboard.write`."""
        check_entry(key, value)
        return self._wait(self._write(plain(key), plain(value), plain(writer), expected, once and plain(once)))

    def read(self, key: str) -> BoardEntry | None:
        """The key as it is; None if it was never written."""
        return self._wait(self._read(plain(key)))

    def entries(self, prefix: str = "") -> list[BoardEntry]:
        """The latest entry of each key that begins so, by key."""
        return self._wait(self._entries(plain(prefix)))

    def history(self, key: str) -> list[BoardEntry]:
        """All versions of a key that are kept, the first one first."""
        return [entry for entry, _ in self._wait(self._history(plain(key)))]

    def changes(self, after: int = 0, limit: int = 1000) -> list[BoardEntry]:
        """The writes after that place in the sequence, in order."""
        found = self._wait(self._read_stream(f"KV_{self._name}_board", ">", after, limit))
        return [_entry(offset, data)[0] for offset, _, data in found]

    # -- the bus --

    def publish(self, topic: str, payloads: Sequence[str], *, sender: str = "", once: str | None = None) -> list[int]:
        """Keep messages in order; returns their offsets; see `MessageBus.publish`."""
        check_topic(topic)
        check_payloads(payloads)
        return self._wait(self._publish(topic, [plain(each) for each in payloads], plain(sender), once and plain(once)))

    def subscribe(self, group: str, pattern: str, *, after: int | None = None) -> None:
        """Make a group for the topics of a pattern, or move it; see `MessageBus.subscribe`."""
        topic_pattern(pattern)
        check_topic(group)
        self._wait(self._subscribe(group, pattern, after))

    def unsubscribe(self, group: str) -> None:
        """Remove a group; its messages stay for others and for replays."""
        self._wait(self._unsubscribe(group))

    def fetch(self, group: str, limit: int = 100, *, lease_s: float = 30.0) -> list[Delivery]:
        """The next messages for a group, the oldest first: those whose lease ran out, and new ones."""
        if limit < 1:
            raise ConfigError(f"limit is {limit}: give 1 or more")
        return self._wait(self._fetch(group, limit, max(lease_s, _SHORTEST_LEASE_S)))

    def acknowledge(self, group: str, offsets: Sequence[int]) -> int:
        """Say that messages were handled; returns how many of them this connection had fetched."""
        return self._wait(self._acknowledge(group, offsets))

    def let_go(self, group: str, offset: int, reason: str = "") -> None:
        """Give a message back, to be delivered again at once, or to become a dead letter."""
        self._wait(self._let_go(group, offset, reason))

    def replay(self, pattern: str, after: int = 0, limit: int = 1000) -> list[BusMessage]:
        """The messages of a pattern behind an offset, in order, whatever any group has done."""
        topic_pattern(pattern)
        found = self._wait(self._read_stream(f"{self._name}_messages", self._subject(pattern), after, limit))
        return [self._message(offset, subject, data) for offset, subject, data in found]

    def dead_letters(self, group: str) -> list[DeadLetter]:
        """The messages that the group could not handle, the oldest first."""
        return self._wait(self._dead_letters(group))

    def lag(self, group: str) -> int:
        """The messages that the group has not acknowledged."""
        return self._wait(self._lag(group))

    # -- inside: what runs in the connection's own loop --

    async def _connect(self, nats: Any, url: str) -> None:
        from nats.js.api import KeyValueConfig, StreamConfig
        from nats.js.errors import BadRequestError

        self._nc: Any = await nats.connect(
            url, connect_timeout=self._timeout, max_reconnect_attempts=5, reconnect_time_wait=0.1, error_cb=_ignore
        )
        self._js: Any = self._nc.jetstream(timeout=self._timeout)
        subjects = [f"{self._name}.messages.>"]
        with suppress(BadRequestError):
            await self._js.add_stream(
                StreamConfig(
                    name=f"{self._name}_messages", subjects=subjects, duplicate_window=_DAY_S, allow_direct=True
                )
            )
        self._buckets: dict[str, Any] = {}
        for bucket, history in (("board", self.kept_versions), ("groups", 1), ("dead", 1), ("names", 1)):
            with suppress(BadRequestError):
                await self._js.create_key_value(KeyValueConfig(bucket=f"{self._name}_{bucket}", history=history))
            self._buckets[bucket] = await self._js.key_value(f"{self._name}_{bucket}")

    async def _write(self, key: str, value: str, writer: str, expected: int | None, once: str | None) -> BoardEntry:
        from nats.js.errors import KeyWrongLastSequenceError

        board = self._buckets["board"]
        if once is not None:
            named = await self._get("names", f"w.{_code(once)}")
            if named is not None:
                return _entry(int(json.loads(named.value)["sequence"]), named.value)[0]
        while True:
            there, revision, known = None, None, await self._history(key)
            if done := next((entry for entry, name in known if once is not None and name == once), None):
                return done
            if known:
                there, revision = known[-1][0], known[-1][0].sequence
            version = 0 if there is None else there.version
            if expected is not None and expected != version:
                raise conflict(key, expected, there)
            made = {
                "key": key,
                "value": value,
                "version": version + 1,
                "writer": writer,
                "at": time.time(),
                "once": once,
            }
            try:
                place = await board.update(_code(key), _packed(made), last=revision or 0)
            except KeyWrongLastSequenceError:
                continue  # somebody else was faster: look again
            if once is not None:
                await self._buckets["names"].put(f"w.{_code(once)}", _packed({**made, "sequence": place}))
            return BoardEntry(key, value, version + 1, writer, made["at"], place)  # type: ignore[arg-type]

    async def _read(self, key: str) -> BoardEntry | None:
        found = await self._get("board", _code(key))
        return None if found is None else _entry(found.revision, found.value)[0]

    async def _history(self, key: str) -> list[tuple[BoardEntry, str | None]]:
        from nats.js.errors import NoKeysError

        try:
            found = await self._buckets["board"].history(_code(key))
        except NoKeysError:
            return []
        return [_entry(each.revision, each.value) for each in found]

    async def _entries(self, prefix: str) -> list[BoardEntry]:
        latest: dict[str, BoardEntry] = {}
        for offset, _, data in await self._read_stream(f"KV_{self._name}_board", ">", 0, None):
            entry = _entry(offset, data)[0]
            latest[entry.key] = entry
        return [latest[key] for key in sorted(latest) if key.startswith(prefix)]

    async def _publish(self, topic: str, payloads: list[str], sender: str, once: str | None) -> list[int]:
        if once is not None:
            named = await self._get("names", f"p.{_code(once)}")
            if named is not None:
                return [int(each) for each in json.loads(named.value)]
        for group, pattern in (await self._groups()).items():
            if (
                topic_pattern(pattern).fullmatch(topic)
                and (lag := await self._lag(group)) + len(payloads) > self.max_lag
            ):
                raise BusFull(
                    f"{topic} takes no more messages: the group {group!r} is {lag:,} behind, and {self.max_lag:,} are "
                    "allowed; let it read, or remove it"
                )
        at, asked = time.time(), []
        for place, text in enumerate(payloads):
            headers = None if once is None else {"Nats-Msg-Id": f"{_code(once)}.{place}"}
            body = _packed({"payload": text, "sender": sender, "at": at})
            asked.append(await self._js.publish_async(self._subject(topic), body, headers=headers))
        offsets = [int((await asyncio.wait_for(each, self._timeout)).seq) for each in asked]
        if once is not None:
            await self._buckets["names"].put(f"p.{_code(once)}", json.dumps(offsets).encode())
        return offsets

    async def _subscribe(self, group: str, pattern: str, after: int | None) -> None:
        known = await self._get("groups", _code(group))
        if known is not None:
            other = json.loads(known.value)["pattern"]
            if other != pattern:
                raise ConfigError(f"the group {group!r} subscribes to {other!r}: give another name for {pattern!r}")
            if after is None:
                return
            await self._js.delete_consumer(f"{self._name}_messages", _code(group))
            for letter in await self._dead_letters(group):
                if letter.message.offset > after:
                    await self._buckets["dead"].delete(f"{_code(group)}.{letter.message.offset}")
        await self._make_consumer(group, pattern, after)
        await self._buckets["groups"].put(_code(group), _packed({"group": group, "pattern": pattern}))

    async def _make_consumer(self, group: str, pattern: str, after: int | None) -> None:
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        start = DeliverPolicy.NEW if after is None else DeliverPolicy.BY_START_SEQUENCE
        config = ConsumerConfig(
            durable_name=_code(group),
            filter_subject=self._subject(pattern),
            deliver_policy=start,
            opt_start_seq=None if after is None else after + 1,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_LEASE_S,
            max_ack_pending=-1,
        )
        await self._js.add_consumer(f"{self._name}_messages", config)
        self._held = {key: count for key, count in self._held.items() if key[0] != group}

    async def _unsubscribe(self, group: str) -> None:
        from nats.js.errors import NotFoundError

        with suppress(NotFoundError):
            await self._js.delete_consumer(f"{self._name}_messages", _code(group))
        for letter in await self._dead_letters(group):
            await self._buckets["dead"].delete(f"{_code(group)}.{letter.message.offset}")
        await self._buckets["groups"].delete(_code(group))

    async def _fetch(self, group: str, limit: int, lease_s: float) -> list[Delivery]:
        await self._consumer(group)
        given: list[Delivery] = []
        while len(given) < limit:
            pulled = await self._pull(f"{self._name}_messages", _code(group), min(limit - len(given), _BATCH))
            for each in pulled:
                offset, count = each.metadata.sequence.stream, each.metadata.num_delivered
                if count > self.max_deliveries:
                    await self._bury(group, offset, count - 1, "it was not acknowledged in time")
                else:
                    if lease_s != _LEASE_S:  # its own time, from now on
                        delay = json.dumps({"delay": int(lease_s * 1e9)}).encode()
                        await self._nc.publish(self._ack_subject(group, offset), b"-NAK " + delay)
                    self._held[group, offset] = count
                    given.append(Delivery(self._message(offset, each.subject, each.data), count))
            if not pulled:
                break
        return sorted(given, key=lambda each: each.message.offset)

    async def _pull(self, stream: str, consumer: str, batch: int) -> list[Any]:
        """The messages that a consumer has now, at most `batch`, without waiting for more."""
        inbox = self._nc.new_inbox()
        waiting = await self._nc.subscribe(inbox)
        try:
            ask = json.dumps({"batch": batch, "no_wait": True}).encode()
            await self._nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", ask, reply=inbox)
            found: list[Any] = []
            while len(found) < batch:
                each = await waiting.next_msg(timeout=self._timeout)
                if each.headers and "Status" in each.headers:
                    break  # 404 and 408: there is no more
                found.append(each)
            return found
        finally:
            await waiting.unsubscribe()

    async def _say(self, group: str, offset: int, word: bytes) -> None:
        """Acknowledge, give back or end a delivery, and wait until the server has taken that."""
        await self._nc.request(self._ack_subject(group, offset), word, timeout=self._timeout)

    async def _acknowledge(self, group: str, offsets: Sequence[int]) -> int:
        await self._consumer(group)
        mine = [offset for offset in dict.fromkeys(offsets) if self._held.pop((group, offset), None) is not None]
        for offset in set(offsets) - set(mine):  # of one that waits no more the server says nothing
            await self._nc.publish(self._ack_subject(group, offset), b"+ACK")
        said = await asyncio.gather(*(self._say(group, offset, b"+ACK") for offset in mine), return_exceptions=True)
        if any(isinstance(each, BaseException) for each in said):
            await self._consumer(group)  # a server that still answers had nothing waiting under that offset
        return sum(not isinstance(each, BaseException) for each in said)

    async def _let_go(self, group: str, offset: int, reason: str) -> None:
        await self._consumer(group)
        count = self._held.pop((group, offset), None)
        if count is None:
            raise UnknownName(f"the group {group!r} holds no message {offset}")
        if count >= self.max_deliveries:
            await self._bury(group, offset, count, reason or "it was let go of")
        else:
            await self._say(group, offset, b"-NAK")

    async def _bury(self, group: str, offset: int, count: int, reason: str) -> None:
        letter = {"offset": offset, "count": count, "reason": plain(reason[:1000])}
        await self._buckets["dead"].put(f"{_code(group)}.{offset}", _packed(letter))
        await self._say(group, offset, b"+TERM")
        self._held.pop((group, offset), None)

    async def _dead_letters(self, group: str) -> list[DeadLetter]:
        latest: dict[int, dict[str, Any]] = {}
        for _, subject, data in await self._read_stream(
            f"KV_{self._name}_dead", f"$KV.{self._name}_dead.{_code(group)}.*", 0, None
        ):
            offset = int(subject.rsplit(".", 1)[1])
            latest.pop(offset, None)
            if data:  # a key that was deleted has none
                latest[offset] = json.loads(data)
        letters = []
        for offset, found in sorted(latest.items()):
            kept = await self._js.get_msg(f"{self._name}_messages", seq=offset)
            letters.append(
                DeadLetter(self._message(offset, kept.subject, kept.data), group, found["count"], found["reason"])
            )
        return letters

    async def _lag(self, group: str) -> int:
        info = await self._consumer(group)
        return int(info.num_pending + info.num_ack_pending)

    async def _groups(self) -> dict[str, str]:
        latest: dict[str, str] = {}
        for _, subject, data in await self._read_stream(f"KV_{self._name}_groups", ">", 0, None):
            latest.pop(subject, None)
            if data:
                latest[subject] = data.decode()
        found = [json.loads(each) for each in latest.values()]
        return {each["group"]: each["pattern"] for each in found}

    async def _consumer(self, group: str) -> Any:
        from nats.js.errors import NotFoundError

        try:
            return await self._js.consumer_info(f"{self._name}_messages", _code(group))
        except NotFoundError:
            raise UnknownName(f"no group {group[:80]!r}: subscribe it first") from None

    async def _read_stream(
        self, stream: str, subject: str, after: int, limit: int | None
    ) -> list[tuple[int, str, bytes]]:
        """Offset, subject and data of what a stream holds behind an offset, read by a consumer that is gone afterwards."""
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        config = ConsumerConfig(
            filter_subject=None if subject == ">" else subject,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=30.0,
            mem_storage=True,
        )
        consumer = (await self._js.add_consumer(stream, config)).name
        found: list[tuple[int, str, bytes]] = []
        try:
            while limit is None or len(found) < limit:
                pulled = await self._pull(
                    stream, consumer, _BATCH if limit is None else min(_BATCH, limit - len(found))
                )
                found += [(each.metadata.sequence.stream, each.subject, each.data) for each in pulled]
                if not pulled:
                    break
        finally:
            await self._js.delete_consumer(stream, consumer)
        return found

    async def _get(self, bucket: str, key: str) -> Any:
        from nats.js.errors import KeyNotFoundError

        try:
            return await self._buckets[bucket].get(key)
        except KeyNotFoundError:
            return None

    def _ack_subject(self, group: str, offset: int) -> str:
        return f"$JS.ACK.{self._name}_messages.{_code(group)}.1.{offset}.1.0.0"

    def _subject(self, topic: str) -> str:
        return f"{self._name}.messages.{topic}"

    def _message(self, offset: int, subject: str, data: bytes) -> BusMessage:
        found = json.loads(data)
        topic = subject.removeprefix(f"{self._name}.messages.")
        return BusMessage(offset, topic, found["payload"], found["sender"], found["at"])

    def _wait(self, doing: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(doing, self._loop).result()
        except self._failures as error:
            told = one_line(str(error)) or type(error).__name__
            raise StoreError(f"the NATS server at {self._address} failed: {told}") from None

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


async def _ignore(error: Exception) -> None:
    """Errors between calls: the call that meets the fault tells of it."""


def _code(text: str) -> str:
    """A name for a consumer or a key, which may have no dots and no blanks, and not more than some 200 characters."""
    coded = urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return coded if len(coded) <= 160 else f"{coded[:90]}={sha256(text.encode()).hexdigest()}"


def _packed(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _entry(sequence: int, data: bytes) -> tuple[BoardEntry, str | None]:
    found = json.loads(data)
    entry = BoardEntry(found["key"], found["value"], found["version"], found["writer"], found["at"], sequence)
    return entry, found["once"]
