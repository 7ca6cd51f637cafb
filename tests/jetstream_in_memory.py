"""A NATS server with JetStream in this process, as far as `nats_client.py` asks it: streams, consumers, key-value buckets.

It stands where no server is: the same tests run against a real one (marked slow).
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace as Record
from typing import Any

from nats.js.api import ConsumerConfig, DeliverPolicy, KeyValueConfig, StreamConfig
from nats.js.errors import (
    BadRequestError,
    InvalidKeyError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoKeysError,
    NotFoundError,
)


def fits(wanted: str | None, subject: str) -> bool:
    """True if a subject is of a filter with `*` and `>`."""
    parts = {"*": r"[^.]+", ">": ".+"}
    return wanted is None or bool(
        re.fullmatch(r"\.".join(parts.get(p) or re.escape(p) for p in wanted.split(".")), subject)
    )


class JetStream:
    """Streams by name, each a list of messages; consumers by stream and name."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Any]] = {}
        self.configs: dict[str, Any] = {}
        self.consumers: dict[tuple[str, str], Any] = {}
        self.named: dict[str, int] = {}
        self.made = 0
        self.lock = threading.RLock()

    async def add_stream(self, config: StreamConfig) -> None:
        if str(config.name) in self.streams:
            raise BadRequestError
        self.streams[str(config.name)], self.configs[str(config.name)] = [], config

    async def create_key_value(self, config: KeyValueConfig) -> None:
        await self.add_stream(StreamConfig(name=f"KV_{config.bucket}", max_msgs_per_subject=config.history))

    async def key_value(self, bucket: str) -> Bucket:
        return Bucket(self, bucket)

    def keep(self, stream: str, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        kept = self.streams[stream]
        most = self.configs[stream].max_msgs_per_subject
        assert isinstance(data, bytes)
        with self.lock:
            last = kept[-1].seq if kept else 0
            kept.append(Record(seq=last + 1, subject=subject, data=data, headers=headers))
            if most and most > 0:
                for old in [each for each in kept if each.subject == subject][:-most]:
                    kept.remove(old)
        return int(last) + 1

    async def publish_async(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
        name = (headers or {}).get("Nats-Msg-Id")
        (stream,) = [s for s, c in self.configs.items() if any(fits(each, subject) for each in c.subjects or [])]
        seq = self.named[name] if name in self.named else self.keep(stream, subject, body, headers)
        if name is not None:
            self.named[name] = seq
        future = asyncio.get_running_loop().create_future()
        future.set_result(Record(seq=seq))
        return future

    async def add_consumer(self, stream: str, config: ConsumerConfig) -> Any:
        self.made += 1
        name = config.durable_name or f"c{self.made}"
        last = max((each.seq for each in self.streams[stream]), default=0)
        start = last + 1 if config.deliver_policy == DeliverPolicy.NEW else config.opt_start_seq
        if (known := self.consumers.get((stream, name))) is not None and known.config != config:
            raise BadRequestError  # as a server does: a durable consumer is moved by deleting it
        self.consumers[stream, name] = Record(name=name, config=config, next=start, leases={}, sent=0, firsts={})
        return Record(name=name)

    async def delete_consumer(self, stream: str, name: str) -> None:
        if self.consumers.pop((stream, name), None) is None:
            raise NotFoundError

    def _new(self, stream: str, consumer: Any) -> list[Any]:
        return [
            m
            for m in self.streams[stream]
            if m.seq >= consumer.next and fits(consumer.config.filter_subject, m.subject)
        ]

    async def consumer_info(self, stream: str, name: str) -> Any:
        if (consumer := self.consumers.get((stream, name))) is None:
            raise NotFoundError
        return Record(
            num_pending=len(self._new(stream, consumer)), num_ack_pending=len(consumer.leases), config=consumer.config
        )

    async def stream_info(self, stream: str) -> Any:
        return Record(state=Record(last_seq=max((each.seq for each in self.streams[stream]), default=0)))

    async def get_msg(self, stream: str, seq: int) -> Any:
        found = next((each for each in self.streams[stream] if each.seq == seq), None)
        if found is None:
            raise NotFoundError
        return found

    def pull(self, stream: str, name: str, batch: int) -> list[Any]:
        with self.lock:
            return self._pull(stream, name, batch)

    def _pull(self, stream: str, name: str, batch: int) -> list[Any]:
        consumer, now = self.consumers[stream, name], time.monotonic()
        lost = [each for each in self.streams[stream] if consumer.leases.get(each.seq, (now + 1, 0))[0] <= now]
        given = []
        for each in [*lost, *self._new(stream, consumer)][:batch]:
            count = consumer.leases.get(each.seq, (0, 0))[1] + 1
            consumer.next = max(consumer.next, each.seq + 1)
            if consumer.config.ack_wait is not None:
                consumer.leases[each.seq] = (now + consumer.config.ack_wait, count)
            consumer.sent += 1
            consumer.firsts.setdefault(each.seq, consumer.sent)
            places = Record(sequence=Record(stream=each.seq), num_delivered=count)
            reply = f"$JS.ACK.{stream}.{name}.{count}.{each.seq}.{consumer.sent}.0.0"
            given.append(
                Record(metadata=places, subject=each.subject, data=each.data, headers=each.headers, reply=reply)
            )
        return given

    def said(self, subject: str, word: bytes) -> bool:
        """Takes an acknowledgement; False if nothing waits for it.

        `-NAK` of a delivery at or below the floor, up to which all are acknowledged, changes nothing, and the server says
        nothing of it (nats-server 2.10).
        """
        _, _, stream, name, _, offset, place, *_ = subject.split(".")
        consumer = self.consumers[stream, name]
        leases = consumer.leases
        if int(offset) not in leases:
            return False
        verb, _, rest = word.partition(b" ")
        floor = min((consumer.firsts[seq] for seq in leases if seq in consumer.firsts), default=consumer.sent + 1) - 1
        if verb == b"-NAK":
            if not floor < int(place) <= consumer.sent:
                return True
            delay_s = json.loads(rest)["delay"] / 1e9 if rest else 0.0
            leases[int(offset)] = (time.monotonic() + delay_s, leases[int(offset)][1])
        else:
            assert verb in (b"+ACK", b"+TERM")
            del leases[int(offset)], consumer.firsts[int(offset)]
        return True


class Bucket:
    """A key-value bucket: a stream whose subjects are keys; what was deleted has no data."""

    def __init__(self, stream: JetStream, name: str):
        self.jetstream, self.name = stream, name

    def _of(self, key: str) -> list[Any]:
        if not re.fullmatch(r"[-/_=.a-zA-Z0-9]+", key) or key[0] == "." or key[-1] == ".":
            raise InvalidKeyError
        kept = [each for each in self.jetstream.streams[f"KV_{self.name}"] if each.subject == f"$KV.{self.name}.{key}"]
        return [Record(revision=each.seq, value=each.data) for each in kept]

    async def get(self, key: str) -> Any:
        if not (kept := self._of(key)) or not kept[-1].value:
            raise KeyNotFoundError
        return kept[-1]

    async def put(self, key: str, value: bytes) -> int:
        return self.jetstream.keep(f"KV_{self.name}", f"$KV.{self.name}.{key}", value)

    async def update(self, key: str, value: bytes, last: int) -> int:
        with self.jetstream.lock:
            if last != max((each.revision for each in self._of(key)), default=0):
                raise KeyWrongLastSequenceError("wrong last sequence")
            return self.jetstream.keep(f"KV_{self.name}", f"$KV.{self.name}.{key}", value)

    async def delete(self, key: str) -> None:
        await self.put(key, b"")

    async def history(self, key: str) -> list[Any]:
        if not (kept := self._of(key)):
            raise NoKeysError
        return kept


class Connection:
    """A connection to the server."""

    max_payload, is_reconnecting = 1 << 20, False

    def __init__(self, server: JetStream):
        self.server, self.inboxes, self.is_closed = server, dict[str, asyncio.Queue[Any]](), False

    @property
    def is_connected(self) -> bool:
        return not self.is_closed and not self.is_reconnecting

    def jetstream(self, timeout: float) -> JetStream:
        return self.server

    def new_inbox(self) -> str:
        return f"_INBOX.{len(self.inboxes)}"

    async def subscribe(self, inbox: str) -> Any:
        queue = self.inboxes[inbox] = asyncio.Queue()

        async def next_msg(timeout: float) -> Any:
            return await asyncio.wait_for(queue.get(), timeout)

        async def unsubscribe() -> None:
            self.inboxes[inbox] = asyncio.Queue()

        return Record(next_msg=next_msg, unsubscribe=unsubscribe)

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        if subject.startswith("$JS.ACK."):
            self.server.said(subject, data)
            return
        stream, consumer = subject.removeprefix("$JS.API.CONSUMER.MSG.NEXT.").split(".")
        asked = json.loads(data)
        given = self.server.pull(stream, consumer, asked["batch"])
        assert asked["no_wait"] is True
        for each in given:
            self.inboxes[reply].put_nowait(each)
        if len(given) < asked["batch"]:
            self.inboxes[reply].put_nowait(Record(headers={"Status": "404"}, reply=""))

    async def request(self, subject: str, word: bytes, timeout: float) -> None:
        if not self.server.said(subject, word):
            raise TimeoutError

    async def close(self) -> None:
        self.is_closed = True


def connecting(server: JetStream, asked: list[Any]) -> Callable[..., Any]:
    """In place of `nats.connect`: keeps what it was asked in `asked`."""

    async def connect(url: str, **options: Any) -> Connection:
        made = Connection(server)
        asked.append((url, options, made))
        return made

    return connect
