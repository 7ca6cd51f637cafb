"""What other clients put into the stream and the buckets of a NATS server: passed over, and in nobody's way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.messaging import redis_messaging
from firsthand.messaging.message_bus import MOST_AT, BusFull, BusMessage
from firsthand.messaging.nats_connection import connected
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.nats_records import (
    coded,
    entry_of,
    group_of,
    letter_of,
    message_of,
    named_entry_of,
    offsets_of,
)
from jetstream_in_memory import JetStream, connecting

ENTRY = {"key": "k", "value": "v", "version": 1, "writer": "boss", "at": 1.5}
ODD = (b"hi", b"[]", b"{}", b"null", b"[" * 100_000, b"\xff", b"9" * 5000)


@pytest.fixture
def server() -> JetStream:
    return JetStream()


@pytest.fixture
def store(server: JetStream, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsMessaging]:
    monkeypatch.setattr("firsthand.messaging.nats_client.connected", connecting(server, []))
    with NatsMessaging("nats://here", name="t", max_lag=3, max_deliveries=1) as made:
        yield made


def foreign(server: JetStream, bucket: str, key: str, data: Any) -> None:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    server.keep(f"KV_t_{bucket}", f"$KV.t_{bucket}.{key}", body)


def payloads(store: NatsMessaging, group: str) -> list[str]:
    return [each.message.payload for each in store.fetch(group)]


@pytest.mark.parametrize("data", [*ODD, {"offset": 9, "count": 1, "reason": "r"}, {"offset": 2, "count": 1}])
@pytest.mark.parametrize("key", ["x", "2", "9", "-1", "0", "١"])
def test_a_foreign_dead_letter_leaves_the_group_and_its_own_letters(
    server: JetStream, store: NatsMessaging, key: str, data: Any
) -> None:
    g = coded("g")
    store.subscribe("g", "a", after=0)
    store.publish("a", ["one", "two"])
    assert payloads(store, "g") == ["one", "two"]
    store.let_go("g", 1, "ours")
    foreign(server, "dead", f"{g}.{key}", data)
    assert [(each.message.payload, each.reason) for each in store.dead_letters("g")] == [("one", "ours")]
    store.subscribe("g", "a", after=0)
    assert store.dead_letters("g") == [] and payloads(store, "g") == ["one", "two"]
    store.let_go("g", 1, "again")
    store.unsubscribe("g")
    store.subscribe("g", "a")
    assert store.dead_letters("g") == [] and payloads(store, "g") == []


def test_a_dead_letter_whose_message_the_stream_no_longer_keeps_is_passed_over(
    server: JetStream, store: NatsMessaging
) -> None:
    store.subscribe("g", "a", after=0)
    store.publish("a", ["one", "two"])
    assert payloads(store, "g") == ["one", "two"]
    for offset in (1, 2):
        store.let_go("g", offset)
    del server.streams["t_messages"][0]
    assert [each.message.payload for each in store.dead_letters("g")] == ["two"]


@pytest.mark.parametrize("data", [*ODD, {"group": "other", "pattern": "a"}, {"group": "g", "pattern": "a..b"}])
def test_a_foreign_record_of_a_group_neither_moves_it_nor_lets_its_pattern_change(
    server: JetStream, store: NatsMessaging, data: Any
) -> None:
    store.subscribe("g", "a", after=0)
    foreign(server, "groups", coded("g"), data)
    store.publish("a", ["one"])
    with pytest.raises(ConfigError, match="the group 'g' subscribes to 'a': give another name for 'b'"):
        store.subscribe("g", "b")
    store.subscribe("g", "a")
    assert payloads(store, "g") == ["one"], "its place is kept"
    store.publish("a", ["2", "3"])
    with pytest.raises(BusFull):
        store.publish("a", ["4"])  # its record is there again


def test_a_record_of_a_group_without_a_consumer_holds_no_publisher_back(
    server: JetStream, store: NatsMessaging
) -> None:
    foreign(server, "groups", coded("ghost"), {"group": "ghost", "pattern": ">"})
    assert store.publish("a", ["1", "2", "3", "4"]) == [1, 2, 3, 4]
    store.subscribe("ghost", ">")
    store.publish("a", ["5"])
    assert payloads(store, "ghost") == ["5"], "a group that has lost its consumer is made again"
    del server.consumers["t_messages", coded("ghost")]
    store.subscribe("ghost", ">", after=3)
    assert payloads(store, "ghost") == ["4", "5"]


@pytest.mark.parametrize("data", [*ODD, ["x"], [1.5], [True], [0], {**ENTRY, "once": "n", "sequence": "1"}])
def test_a_foreign_name_stops_neither_a_publication_nor_a_write(
    server: JetStream, store: NatsMessaging, data: Any
) -> None:
    foreign(server, "names", f"p.{coded('n')}", [-1] if data == b"[]" else data)
    foreign(server, "names", f"w.{coded('n')}", data)
    assert store.publish("a", ["x"], once="n") == store.publish("a", ["x"], once="n") == [1]
    first = store.write("k", "1", writer="ann", once="n")
    assert store.write("k", "2", writer="ann", once="n") == first and len(store.history("k")) == 1


def test_an_entry_counts_under_its_own_key_alone(server: JetStream, store: NatsMessaging) -> None:
    ours = store.write("other", "1", writer="ann")
    foreign(server, "board", coded("k"), {**ENTRY, "key": "other", "version": 9})
    assert store.read("k") is None and store.history("k") == [] and store.entries() == store.changes() == [ours]
    assert store.write("k", "v", writer="me", expected=0).version == 1 and store.read("other") == ours


def test_halves_of_characters_and_times_that_are_none_are_not_delivered(
    server: JetStream, store: NatsMessaging
) -> None:
    store.subscribe("g", "a", after=0)
    for body in (b'{"payload":"\\ud800x","sender":"\\ud800","at":1.0}', b'{"payload":"x","sender":"boss","at":1e400}'):
        server.keep("t_messages", "t.messages.a", body)
    half, endless = (each.message for each in store.fetch("g"))
    assert half == BusMessage(1, "a", "\\ud800x", "\\ud800", 1.0)
    assert endless == BusMessage(2, "a", '{"payload":"x","sender":"boss","at":1e400}', "", 0.0)


def test_records_are_read_up_to_their_bounds() -> None:
    def entry(**more: Any) -> Any:
        return entry_of(f"$KV.t_board.{coded('k')}", 7, json.dumps({**ENTRY, **more}).encode())

    assert entry()[0].sequence == 7 and entry()[1] is None and entry(once="n")[1] == "n" and entry(once=[1])[1] is None
    for at, is_time in ((0.0, True), (-0.1, False), (MOST_AT - 1, True), (MOST_AT, False), (float("nan"), False)):
        assert (entry(at=at) is not None) is is_time, at
        body = json.dumps({"payload": "p", "sender": "s", "at": at}).encode()
        assert (message_of("a", 1, body).sender == "s") is is_time, at
        fields = {**ENTRY, "at": at, "topic": "a", "payload": "p", "sender": "s"}
        flat = [str(part) for pair in fields.items() for part in pair]
        assert (redis_messaging._entry(["7-0", *flat]) is not None) is is_time, "the same in Redis"
        assert redis_messaging._message("7-0", flat) == BusMessage(7, "a", "p", "s", at if is_time else 0.0)
    none_of_ours = [str(part) for pair in {**ENTRY, "version": 0}.items() for part in pair]
    assert redis_messaging._entry(["7-0", *none_of_ours]) is None
    assert entry(version=0) is None and entry(version=True) is None and entry(version=1 << 70) is not None
    named = {**ENTRY, "once": "n", "sequence": 3}
    assert named_entry_of("n", json.dumps(named).encode()) == entry_of(coded("k"), 3, json.dumps(ENTRY).encode())[0]  # type: ignore[index]
    for wrong in ({"once": "m"}, {"sequence": 0}, {"sequence": None}, {"version": 0}):
        assert named_entry_of("n", json.dumps({**named, **wrong}).encode()) is None, wrong
    assert offsets_of(b"[1, 2]") == [1, 2] and offsets_of(b"[0]") is offsets_of(b"1") is None
    assert group_of(f"a.{coded('g')}", b'{"group": "g", "pattern": "a.>"}') == ("g", "a.>")
    assert letter_of("a.g.3", b'{"offset": 3, "count": 1, "reason": "r\\ud800"}') == (3, 1, "r\\ud800")
    for wrong_letter in ({"offset": 4}, {"count": 0}, {"reason": 1}):
        told = {"offset": 3, "count": 1, "reason": "r"} | wrong_letter
        assert letter_of("a.g.3", json.dumps(told).encode()) is None
    assert letter_of("a.g.0", b'{"offset": 0, "count": 1, "reason": "r"}') is None


def test_a_subject_or_a_header_that_is_no_text_does_not_stop_a_connection() -> None:
    sent = [b"MSG a.\xff 1 2\r\nhi\r\n", b"MSG a.\xc3\xa9 1 2\r\nho\r\n", b"MSG a.b 1 2\r\nok\r\n"]
    for status in (b"200 \xff", b"\xff\xff\xff", b"200 OK"):
        head = b"NATS/1.0 " + status + b"\r\n\r\n"
        sent.append(b"HMSG a.h 1 %d %d\r\n%sx\r\n" % (len(head), len(head) + 1, head))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"s","version":"2.10.0","headers":true,"max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            elif line.startswith(b"SUB"):
                writer.write(b"".join(sent))
        writer.close()

    async def main() -> list[tuple[str, bytes]]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = await connected(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", allow_reconnect=False)
        waiting = await client.subscribe("a.>")
        found = [await waiting.next_msg(timeout=20) for _ in sent]
        await client.close()
        server.close()
        return [(each.subject, each.data) for each in found]

    assert asyncio.run(main()) == [("a.\ufffd", b"hi"), ("a.é", b"ho"), ("a.b", b"ok"), *[("a.h", b"x")] * 3]
