"""NatsClient: the calls of a blackboard and a bus over NATS JetStream, to be awaited in one event loop.

`nats_messaging.py` has the same calls for synchronous code, and says what JetStream keeps.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from firsthand.declaration import Readers
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.messaging import nats_records as records
from firsthand.messaging.blackboard import BoardEntry, conflict
from firsthand.messaging.message_bus import BusFull, BusMessage, DeadLetter, Delivery
from firsthand.messaging.nats_connection import connected
from firsthand.messaging.nats_records import coded, packed
from firsthand.messaging.topic_names import topic_pattern
from firsthand.runs.database import plain

_DAY_S = 86_400.0
_LEASE_S = 30.0
_SHORTEST_LEASE_S = 0.02
_BATCH = 1000
_HEADERS_BYTES = 512
"""At most so many are sent beside a record, and count as its payload."""
_FAILOVER_LOOKS, _FAILOVER_LOOK_S = 20, 0.05
"""The second in which nats-py may go over to another server of a cluster."""


class Held(NamedTuple):
    """A delivery that was fetched and not acknowledged."""

    deliveries: int
    """Number of deliveries of its message so far, this one included."""
    reply: str
    """Subject of its answers. JetStream drops, without an error, a `-NAK` of a delivery at or below the floor of the group,
    up to which all are acknowledged: the number of an earlier delivery, or one made up, is not heard."""


@dataclass
class NatsClient:
    """A connection to a stream, its consumers and buckets, all under one name; bounds as in `NatsMessaging`."""

    name: str
    timeout_s: float
    max_lag: int
    max_deliveries: int
    kept_versions: int
    _held: dict[tuple[str, int], Held] = field(default_factory=dict)
    """Deliveries of what this connection fetched and has not acknowledged, by group and offset."""
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _url: str = field(default="", init=False)
    _nc: Any = field(default=None, init=False)
    _js: Any = field(default=None, init=False)
    _buckets: dict[str, Any] = field(default_factory=dict, init=False)

    async def connect(self, url: str) -> None:
        """Connect, and make what is not there; a server that `tls://` names has to speak TLS before it is told anything."""
        from nats.js.api import KeyValueConfig, StreamConfig
        from nats.js.errors import BadRequestError

        opened = await connected(
            url, connect_timeout=self.timeout_s, max_reconnect_attempts=5, reconnect_time_wait=0.1, error_cb=_ignore
        )
        try:
            jetstream = opened.jetstream(timeout=self.timeout_s)
            subjects = [f"{self.name}.messages.>"]
            with suppress(BadRequestError):
                await jetstream.add_stream(
                    StreamConfig(
                        name=f"{self.name}_messages", subjects=subjects, duplicate_window=_DAY_S, allow_direct=True
                    )
                )
            buckets: dict[str, Any] = {}
            for bucket, history in (("board", self.kept_versions), ("groups", 1), ("dead", 1), ("names", 1)):
                with suppress(BadRequestError):
                    await jetstream.create_key_value(KeyValueConfig(bucket=f"{self.name}_{bucket}", history=history))
                buckets[bucket] = await jetstream.key_value(f"{self.name}_{bucket}")
        except BaseException:
            await opened.close()
            raise
        self._url, self._nc, self._js, self._buckets = url, opened, jetstream, buckets

    async def ready(self) -> None:
        """Return once the connection is there, which is opened anew if it was lost; TimeoutError after `timeout_s`."""
        async with asyncio.timeout(self.timeout_s), self._opening:
            for _ in range(_FAILOVER_LOOKS):
                if not self._nc.is_reconnecting:
                    break
                await asyncio.sleep(_FAILOVER_LOOK_S)
            if not self._nc.is_connected:
                lost = self._nc
                await self.connect(self._url)
                await lost.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._nc.close()

    async def write(
        self, key: str, value: str, writer: str, expected: int | None, once: str | None, readers: Readers = "public"
    ) -> BoardEntry:
        """Keep a new version of a key."""
        from nats.js.errors import KeyWrongLastSequenceError

        board = self._buckets["board"]
        if once is not None:
            named = await self._get("names", f"w.{coded(once)}")
            if named is not None and (kept := records.named_entry_of(once, named.value)) is not None:
                return kept
        while True:
            if once is None:
                revision, there = await self._latest(key)
            else:
                revision, known = await self._versions(key)
                if done := next((entry for entry, name in known if name == once), None):
                    return done
                there = known[-1][0] if known else None
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
            made |= {} if readers == "public" else {"readers": readers}
            try:
                place = await board.update(
                    coded(key), self._fitting(packed(made), f"the value of {key!r}"), last=revision
                )
            except KeyWrongLastSequenceError:
                continue  # somebody else was faster: look again
            if once is not None:
                await self._buckets["names"].put(f"w.{coded(once)}", packed({**made, "sequence": place}))
            return BoardEntry(key, value, version + 1, writer, made["at"], place, readers)  # type: ignore[arg-type]

    async def read(self, key: str) -> BoardEntry | None:
        """The key as it is."""
        found = await self._get("board", coded(key))
        entry = None if found is None else records.entry_of(coded(key), found.revision, found.value)
        return None if entry is None else entry[0]

    async def history(self, key: str) -> list[tuple[BoardEntry, str | None]]:
        """The versions of a key, each with the name of its write."""
        return (await self._versions(key))[1]

    async def _latest(self, key: str) -> tuple[int, BoardEntry | None]:
        """The last revision of a key, whoever wrote it (0: none), and its last version."""
        found = await self._get("board", coded(key))
        if found is not None and (made := records.entry_of(coded(key), found.revision, found.value)) is not None:
            return found.revision, made[0]
        revision, known = await self._versions(key)
        return revision, known[-1][0] if known else None

    async def _versions(self, key: str) -> tuple[int, list[tuple[BoardEntry, str | None]]]:
        """The last revision of a key, whoever wrote it (0: none), and the versions that are entries."""
        from nats.js.errors import NoKeysError

        for pause_s in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0):
            await asyncio.sleep(pause_s)
            latest = await self._get("board", coded(key))
            try:
                found = await self._buckets["board"].history(coded(key))
            except NoKeysError:
                found = []
            revision = max((each.revision for each in found), default=0)
            if latest is None or revision >= latest.revision:  # the client may take a history for complete too early
                break
        else:
            raise StoreError(f"the NATS server gives no whole history of {key!r}: try again")
        made = (records.entry_of(coded(key), each.revision, each.value) for each in found)
        return revision, [entry for entry in made if entry is not None]

    async def entries(self, prefix: str) -> list[BoardEntry]:
        """The latest entry of each key that begins so, by key."""
        latest: dict[str, BoardEntry] = {}
        for offset, subject, data in await self._read_stream(f"KV_{self.name}_board", ">", 0, None):
            if (made := records.entry_of(subject, offset, data)) is not None:
                latest[made[0].key] = made[0]
        return [latest[key] for key in sorted(latest) if key.startswith(prefix)]

    async def publish(self, topic: str, payloads: list[str], sender: str, once: str | None) -> list[int]:
        """Keep messages in order."""
        if once is not None:
            named = await self._get("names", f"p.{coded(once)}")
            if named is not None and (kept := records.offsets_of(named.value)) is not None:
                return kept
        for group, pattern in (await self._groups()).items():
            if not topic_pattern(pattern).fullmatch(topic):
                continue
            consumer = await self._consumer_or_none(group)  # None: of a record that somebody left, nobody lags behind
            lag = 0 if consumer is None else _lag(consumer)
            if consumer is not None and lag + len(payloads) > self.max_lag:
                raise BusFull(
                    f"{topic} takes no more messages: the group {group!r} is {lag:,} behind, and {self.max_lag:,} are "
                    "allowed; let it read, or remove it"
                )
        at, asked = time.time(), []
        bodies = [
            self._fitting(packed({"payload": text, "sender": sender, "at": at}), "a message") for text in payloads
        ]  # all of them before the first is sent
        for place, body in enumerate(bodies):
            headers = None if once is None else {"Nats-Msg-Id": f"{coded(once)}.{place}"}
            asked.append(await self._js.publish_async(self._subject(topic), body, headers=headers))
        offsets = [int((await asyncio.wait_for(each, self.timeout_s)).seq) for each in asked]
        if once is not None:
            await self._buckets["names"].put(f"p.{coded(once)}", json.dumps(offsets).encode())
        return offsets

    async def subscribe(self, group: str, pattern: str, after: int | None) -> None:
        """Make a group, or move it."""
        from nats.js.errors import NotFoundError

        record, consumer = await self._get("groups", coded(group)), await self._consumer_or_none(group)
        known = None if record is None else records.group_of(coded(group), record.value)
        other = known and known[1]
        if consumer is not None:  # it says what the group gets, whatever stands in the record
            other = (consumer.config.filter_subject or "").removeprefix(self._subject(""))
        if other is not None and other != pattern:
            raise ConfigError(f"the group {group!r} subscribes to {other!r}: give another name for {pattern!r}")
        if after is not None and after > (last := await self._last_offset()):  # JetStream would begin at its end
            raise ConfigError(f"after is {after}, and the last message is {last}: give that or less, or leave it out")
        letters = {} if after is None else await self._letters(group)
        if after is not None:
            with suppress(NotFoundError):
                await self._js.delete_consumer(f"{self.name}_messages", coded(group))
        if after is not None or consumer is None:
            await self._make_consumer(group, pattern, after)
        if known is None or known[1] != pattern:
            await self._buckets["groups"].put(coded(group), packed({"group": group, "pattern": pattern}))
        for offset in letters:
            if after is not None and offset > after:
                await self._buckets["dead"].delete(f"{coded(group)}.{offset}")

    async def _last_offset(self) -> int:
        """The offset of the last message that was published, whether or not it is still kept."""
        return int((await self._js.stream_info(f"{self.name}_messages")).state.last_seq)

    async def _make_consumer(self, group: str, pattern: str, after: int | None) -> None:
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        start = DeliverPolicy.NEW if after is None else DeliverPolicy.BY_START_SEQUENCE
        config = ConsumerConfig(
            durable_name=coded(group),
            filter_subject=self._subject(pattern),
            deliver_policy=start,
            opt_start_seq=None if after is None else max(after, 0) + 1,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_LEASE_S,
            max_ack_pending=-1,
        )
        await self._js.add_consumer(f"{self.name}_messages", config)
        self._held = {key: held for key, held in self._held.items() if key[0] != group}

    async def unsubscribe(self, group: str) -> None:
        """Remove a group."""
        from nats.js.errors import NotFoundError

        with suppress(NotFoundError):
            await self._js.delete_consumer(f"{self.name}_messages", coded(group))
        for offset in await self._letters(group):
            await self._buckets["dead"].delete(f"{coded(group)}.{offset}")
        await self._buckets["groups"].delete(coded(group))

    async def fetch(self, group: str, limit: int, lease_s: float) -> list[Delivery]:
        """The next messages for a group."""
        await self._consumer(group)
        lease_s, given = max(lease_s, _SHORTEST_LEASE_S), list[Delivery]()
        while len(given) < limit:
            pulled = await self._pull(f"{self.name}_messages", coded(group), min(limit - len(given), _BATCH))
            for each in pulled:
                offset, count = each.metadata.sequence.stream, each.metadata.num_delivered
                if count > self.max_deliveries:
                    await self._bury(group, offset, Held(count - 1, each.reply), "it was not acknowledged in time")
                else:
                    if lease_s != _LEASE_S:  # its own time, from now on
                        delay = json.dumps({"delay": int(lease_s * 1e9)}).encode()
                        await self._nc.publish(each.reply, b"-NAK " + delay)
                    self._held[group, offset] = Held(count, each.reply)
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
                each = await waiting.next_msg(timeout=self.timeout_s)
                if not each.reply:
                    break  # a status, such as 404: there is no more; a message says where its acknowledgement goes
                found.append(each)
            return found
        finally:
            await waiting.unsubscribe()

    async def _say(self, held: Held, word: bytes) -> None:
        """Acknowledge, give back or end a delivery, and wait until the server has taken that."""
        await self._nc.request(held.reply, word, timeout=self.timeout_s)

    async def acknowledge(self, group: str, offsets: Sequence[int]) -> int:
        """Say that messages were handled."""
        await self._consumer(group)
        found = {offset: self._held.pop((group, offset), None) for offset in dict.fromkeys(offsets)}
        mine = {offset: held for offset, held in found.items() if held is not None}
        for offset in found.keys() - mine.keys():  # of one that waits no more the server says nothing
            await self._nc.publish(self._ack_subject(group, offset), b"+ACK")
        said = await asyncio.gather(*(self._say(held, b"+ACK") for held in mine.values()), return_exceptions=True)
        if any(isinstance(each, BaseException) for each in said):
            await self._consumer(group)  # a server that still answers had nothing waiting under that offset
        return sum(not isinstance(each, BaseException) for each in said)

    async def let_go(self, group: str, offset: int, reason: str) -> None:
        """Give a message back."""
        await self._consumer(group)
        held = self._held.pop((group, offset), None)
        if held is None:
            raise UnknownName(f"the group {group!r} holds no message {offset}")
        if held.deliveries >= self.max_deliveries:
            await self._bury(group, offset, held, reason or "it was let go of")
        else:
            await self._say(held, b"-NAK")

    async def _bury(self, group: str, offset: int, held: Held, reason: str) -> None:
        letter = {"offset": offset, "count": held.deliveries, "reason": plain(reason[:1000])}
        await self._buckets["dead"].put(f"{coded(group)}.{offset}", packed(letter))
        await self._say(held, b"+TERM")
        self._held.pop((group, offset), None)

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        """The messages that a group could not handle."""
        from nats.js.errors import NotFoundError

        letters = []
        for offset, (count, reason) in sorted((await self._letters(group)).items()):
            with suppress(NotFoundError):  # the stream keeps it no longer
                kept = await self._js.get_msg(f"{self.name}_messages", seq=offset)
                letters.append(DeadLetter(self._message(offset, kept.subject, kept.data), group, count, reason))
        return letters

    async def _letters(self, group: str) -> dict[int, tuple[int, str]]:
        """Count and reason of a group's dead letters, by offset."""
        latest: dict[str, tuple[int, int, str] | None] = {}
        subjects = f"$KV.{self.name}_dead.{coded(group)}.*"
        for _, subject, data in await self._read_stream(f"KV_{self.name}_dead", subjects, 0, None):
            latest[subject] = records.letter_of(subject, data)  # a key that was deleted has no data
        return {each[0]: each[1:] for each in latest.values() if each is not None}

    async def lag(self, group: str) -> int:
        """The messages that a group has not acknowledged."""
        return _lag(await self._consumer(group))

    async def _groups(self) -> dict[str, str]:
        latest: dict[str, tuple[str, str] | None] = {}
        for _, subject, data in await self._read_stream(f"KV_{self.name}_groups", ">", 0, None):
            latest[subject] = records.group_of(subject, data)  # a key that was deleted has no data
        return dict(each for each in latest.values() if each is not None)

    async def _consumer(self, group: str) -> Any:
        found = await self._consumer_or_none(group)
        if found is None:
            raise UnknownName(f"no group {group[:80]!r}: subscribe it first")
        return found

    async def _consumer_or_none(self, group: str) -> Any:
        from nats.js.errors import NotFoundError

        try:
            return await self._js.consumer_info(f"{self.name}_messages", coded(group))
        except NotFoundError:
            return None

    async def changes(self, after: int, limit: int) -> list[BoardEntry]:
        """The writes after a place in the sequence, in order."""
        found = await self._read_stream(f"KV_{self.name}_board", ">", after, limit)
        made = (records.entry_of(subject, offset, data) for offset, subject, data in found)
        return [each[0] for each in made if each is not None]

    async def replay(self, pattern: str, after: int, limit: int) -> list[BusMessage]:
        """The messages of a pattern behind an offset, in order."""
        found = await self._read_stream(f"{self.name}_messages", self._subject(pattern), after, limit)
        return [self._message(offset, subject, data) for offset, subject, data in found]

    async def _read_stream(
        self, stream: str, subject: str, after: int, limit: int | None
    ) -> list[tuple[int, str, bytes]]:
        """Offset, subject and data of what a stream holds behind an offset, read by a consumer that is gone afterwards."""
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        config = ConsumerConfig(
            filter_subject=None if subject == ">" else subject,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=max(after, 0) + 1,
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

    def _fitting(self, body: bytes, what: str) -> bytes:
        """The bytes of a record; ConfigError if they are more than the server takes."""
        most = self._nc.max_payload - _HEADERS_BYTES
        if len(body) > most:
            raise ConfigError(
                f"{what} takes {len(body):,} bytes as JSON, and the NATS server {most:,}: shorten it, or raise the "
                "server's max_payload"
            )
        return body

    def _ack_subject(self, group: str, offset: int) -> str:
        """The subject of an `+ACK` for a message that this connection did not fetch."""
        return f"$JS.ACK.{self.name}_messages.{coded(group)}.1.{offset}.1.0.0"

    def _subject(self, topic: str) -> str:
        return f"{self.name}.messages.{topic}"

    def _message(self, offset: int, subject: str, data: bytes) -> BusMessage:
        return records.message_of(subject.removeprefix(self._subject("")), offset, data)


async def _ignore(error: Exception) -> None:
    """Errors between calls: the call that meets the fault tells of it."""


def _lag(consumer: Any) -> int:
    return int(consumer.num_pending + consumer.num_ack_pending)
