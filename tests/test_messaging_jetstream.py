"""Single calls of the client of NATS: the records that they leave in JetStream, and the words that they say to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats.js.api import AckPolicy, DeliverPolicy

from firsthand.errors import ConfigError, UnknownName
from firsthand.messaging import nats_client
from firsthand.messaging.blackboard import BoardConflict, BoardEntry
from firsthand.messaging.message_bus import BusFull, BusMessage, DeadLetter, Delivery
from firsthand.messaging.nats_client import Held, NatsClient
from firsthand.messaging.nats_records import coded, packed
from jetstream_in_memory import Bucket, Connection, JetStream

G, H, K = coded("g"), coded("h"), coded("k")


class Server(JetStream):
    """Keeps what is said to it, and the consumers that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, bytes]] = []
        self.connected: list[tuple[str, dict[str, Any]]] = []
        self.consumer_configs: list[tuple[str, Any]] = []

    async def add_consumer(self, stream: str, config: Any) -> Any:
        self.consumer_configs.append((stream, config))
        return await super().add_consumer(stream, config)

    def records(self, stream: str) -> list[tuple[int, str, Any]]:
        return [
            (each.seq, each.subject, json.loads(each.data) if each.data else None) for each in self.streams[f"{stream}"]
        ]


class Heard(Connection):
    open = 0
    """Subscriptions that have not ended."""

    async def subscribe(self, inbox: str) -> Any:
        made = await super().subscribe(inbox)
        self.open += 1
        ending = made.unsubscribe

        async def unsubscribe() -> None:
            self.open -= 1
            await ending()

        made.unsubscribe = unsubscribe
        return made

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        self.server.heard.append((subject, data))  # type: ignore[attr-defined]
        await super().publish(subject, data, reply)

    async def request(self, subject: str, word: bytes, timeout: float) -> None:
        assert timeout == 2.5
        self.server.heard.append((subject, word))  # type: ignore[attr-defined]
        await super().request(subject, word, timeout)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()

    async def connect(url: str, **options: Any) -> Heard:
        made.connected.append((url, options))
        return Heard(made)

    monkeypatch.setattr("firsthand.messaging.nats_client.connected", connect)
    monkeypatch.setattr(time, "time", lambda: 50.5)
    return made


def calling(work: Callable[[NatsClient], Awaitable[Any]], **bounds: int) -> Any:
    """The result of calls of a client that has connected."""

    async def main() -> Any:
        given = {"max_lag": 4, "max_deliveries": 2, "kept_versions": 3} | bounds
        client = NatsClient("t", 2.5, **given)
        await client.connect("nats://here")
        found = await work(client)
        await client.close()
        assert client._nc.is_closed and client._nc.open == 0
        return found

    return asyncio.run(main())


def counts(client: NatsClient) -> dict[tuple[str, int], int]:
    """The number of deliveries of what a client holds, by group and offset."""
    return {key: held.deliveries for key, held in client._held.items()}


def test_a_client_makes_what_is_not_there_and_leaves_what_is(server: Server) -> None:
    async def nothing(client: NatsClient) -> Any:
        return {name: bucket.name for name, bucket in client._buckets.items()}, client._held

    assert calling(nothing) == ({name: f"t_{name}" for name in ("board", "groups", "dead", "names")}, {})
    server.keep("t_messages", "t.messages.a", b"kept")
    calling(nothing, kept_versions=9)
    assert len(server.streams["t_messages"]) == 1 and server.configs["KV_t_board"].max_msgs_per_subject == 3
    (url, options), _ = server.connected
    assert url == "nats://here" and options == {
        "connect_timeout": 2.5, "max_reconnect_attempts": 5, "reconnect_time_wait": 0.1, "error_cb": nats_client._ignore,
    }  # fmt: skip
    config = server.configs["t_messages"]
    assert (config.name, config.subjects, config.duplicate_window, config.allow_direct) == (
        "t_messages", ["t.messages.>"], 86_400.0, True,
    )  # fmt: skip
    assert asyncio.run(nats_client._ignore(ValueError())) is None  # type: ignore[func-returns-value]


def test_a_write_follows_the_revision_that_it_has_seen(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    board = "KV_t_board"

    async def work(client: NatsClient) -> None:
        first = await client.write("k", "1", "ann", 0, None)
        assert first == BoardEntry("k", "1", 1, "ann", 50.5, 1)
        named = await client.write("k", "2", "bob", None, "n")
        assert named == BoardEntry("k", "2", 2, "bob", 50.5, 2)
        assert server.records(board) == [
            (
                1,
                f"$KV.t_board.{K}",
                {"key": "k", "value": "1", "version": 1, "writer": "ann", "at": 50.5, "once": None},
            ),
            (2, f"$KV.t_board.{K}", {"key": "k", "value": "2", "version": 2, "writer": "bob", "at": 50.5, "once": "n"}),
        ]
        record = {"key": "k", "value": "2", "version": 2, "writer": "bob", "at": 50.5, "once": "n", "sequence": 2}
        assert server.records("KV_t_names") == [(1, f"$KV.t_names.w.{coded('n')}", record)]
        assert await client.write("other", "9", "x", 7, "n") == named and len(server.streams[board]) == 2
        server.keep("KV_t_names", f"$KV.t_names.w.{coded('n')}", b'{"sequence": 2}')  # a name that says nothing
        assert await client.write("k", "9", "x", 7, "n") == named, "found among the versions"
        server.keep(board, f"$KV.t_board.{K}", b"of another program")
        assert await client.read("k") is None and await client._latest("k") == (3, named)
        assert await client._latest("none") == (0, None) and await client.history("none") == []
        for expected, once in ((1, None), (0, "m"), (3, None)):
            with pytest.raises(BoardConflict) as told:
                await client.write("k", "9", "x", expected, once)
            assert told.value.entry == named
        with pytest.raises(BoardConflict) as told:
            await client.write("new", "9", "x", 1, "m")
        assert told.value.entry is None
        third = await client.write("k", "3", "cat", 2, "m")
        assert third == BoardEntry("k", "3", 3, "cat", 50.5, 4) == await client.read("k")
        assert await client._versions("k") == (4, [(named, "n"), (third, "m")]), "3 are kept, one of them not ours"
        assert await client.history("k") == [(named, "n"), (third, "m")] and await client._latest("k") == (4, third)
        await client._buckets["board"].delete(K)
        assert await client.read("k") is None and await client._get("board", K) is None
        assert (await client.write("fresh", "1", "w", None, "f")).sequence == 6

    calling(work)
    update, others = Bucket.update, ["faster"]

    async def late(bucket: Bucket, key: str, value: bytes, last: int) -> int:
        if others:  # somebody else writes between the look and the write
            made = {"key": "r", "value": others.pop(), "version": last + 1, "writer": "eve", "at": 1.0, "once": None}
            await update(bucket, key, packed(made), last)
        return await update(bucket, key, value, last)

    server.streams[board].clear()
    monkeypatch.setattr(Bucket, "update", late)

    async def race(client: NatsClient) -> None:
        assert await client.write("r", "mine", "ann", None, None) == BoardEntry("r", "mine", 2, "ann", 50.5, 2)
        others.append("again")
        with pytest.raises(BoardConflict) as told:
            await client.write("r", "mine", "ann", 2, "o")
        assert told.value.entry == BoardEntry("r", "again", 3, "eve", 1.0, 3) and "'o'" not in str(told.value)

    calling(race)
    assert [value["value"] for _, _, value in server.records(board)] == ["faster", "mine", "again"]


def test_a_named_write_is_known_after_its_version_is_no_longer_kept(server: Server) -> None:
    async def work(client: NatsClient) -> None:
        for once in ("", "n"):
            first = await client.write("k", once, "w", None, once)
            for number in range(3):  # as many as are kept
                await client.write("k", f"{number}", "w", None, None)
            assert await client.write("k", "9", "x", 77, once) == first
            assert first not in [entry for entry, _ in await client.history("k")]
        assert len(server.streams["KV_t_board"]) == 3 and len(server.streams["KV_t_names"]) == 2

    calling(work)


def test_a_reason_that_is_no_unicode_is_kept_as_its_escape(server: Server) -> None:
    async def work(client: NatsClient) -> None:
        await client.subscribe("g", "a", 0)
        await client.publish("a", ["1"], "s", None)
        await client.fetch("g", 9, 30.0)
        await client.let_go("g", 1, "\ud800 late")
        assert [(each.count, each.reason) for each in await client.dead_letters("g")] == [(1, "\\ud800 late")]

    calling(work, max_deliveries=1)


def test_entries_and_changes_are_read_to_their_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_client, "_BATCH", 2)

    async def work(client: NatsClient) -> None:
        made = [await client.write(key, f"{n}", "w", None, None) for n, key in enumerate(("b", "ab", "a", "b", "c"))]
        assert await client.entries("") == [made[2], made[1], made[3], made[4]]
        assert await client.entries("a") == [made[2], made[1]] and await client.entries("d") == []
        assert await client.changes(0, 9) == made and await client.changes(2, 2) == made[2:4]
        assert await client.changes(4, 1) == made[4:] and await client.changes(5, 1) == await client.changes(0, 0) == []
        server.keep("KV_t_board", "$KV.t_board.x", b"{}")
        assert await client.changes(4, 9) == made[4:] and await client.entries("c") == [made[4]]
        assert await client.entries("b") == [made[3]], "it begins so"

    calling(work)
    stream, config = server.consumer_configs[3]
    assert {each for each, _ in server.consumer_configs} == {"KV_t_board"} and server.consumers == {}
    assert (stream, config.filter_subject, config.deliver_policy, config.opt_start_seq) == (
        "KV_t_board", None, DeliverPolicy.BY_START_SEQUENCE, 1,
    )  # fmt: skip
    assert (config.ack_policy, config.inactive_threshold, config.mem_storage, config.durable_name) == (
        AckPolicy.NONE, 30.0, True, None,
    )  # fmt: skip
    assert server.consumer_configs[4][1].opt_start_seq == 3
    asked = [json.loads(data) for subject, data in server.heard if subject.endswith("c5")]
    assert asked == [{"batch": 2, "no_wait": True}] and {json.loads(data)["batch"] for _, data in server.heard} == {
        1,
        2,
    }


def test_a_publication_says_who_when_and_under_which_name(server: Server) -> None:
    async def work(client: NatsClient) -> None:
        assert await client.publish("a.b", ["x", "é"], "ann", "p") == [1, 2]
        assert await client.publish("c", ["z"], "", None) == [3] and await client.publish("c", [], "", "none") == []
        assert server.records("t_messages") == [
            (1, "t.messages.a.b", {"payload": "x", "sender": "ann", "at": 50.5}),
            (2, "t.messages.a.b", {"payload": "é", "sender": "ann", "at": 50.5}),
            (3, "t.messages.c", {"payload": "z", "sender": "", "at": 50.5}),
        ]
        assert server.named == {f"{coded('p')}.0": 1, f"{coded('p')}.1": 2}
        assert server.records("KV_t_names") == [
            (1, f"$KV.t_names.p.{coded('p')}", [1, 2]), (2, f"$KV.t_names.p.{coded('none')}", []),
        ]  # fmt: skip
        assert (
            await client.publish("other", ["1", "2", "3"], "x", "p") == [1, 2]
            and len(server.streams["t_messages"]) == 3
        )
        await client.subscribe("g", "a.*", 0)
        await client.subscribe("h", "u.>", None)
        assert await client.publish("a.c", ["1", "2"], "", None) == [4, 5], "4 behind, as many as are allowed"
        for count in (1, 3):
            with pytest.raises(BusFull) as told:
                await client.publish("a.c", ["x"] * count, "", "late")
        assert str(told.value) == (
            "a.c takes no more messages: the group 'g' is 4 behind, and 4 are allowed; let it read, or remove it"
        )
        assert await client._get("names", f"p.{coded('late')}") is None
        assert await client.publish("a", ["1"] * 5, "", None) == [6, 7, 8, 9, 10], "no group's topic"
        assert await client.replay("a.*", 1, 2) == [
            BusMessage(2, "a.b", "é", "ann", 50.5), BusMessage(4, "a.c", "1", "", 50.5),
        ]  # fmt: skip
        assert [each.offset for each in await client.replay(">", 8, 9)] == [9, 10]

    calling(work)


def test_a_group_is_a_consumer_a_record_and_its_letters(server: Server) -> None:
    async def work(client: NatsClient) -> None:
        await client.publish("a", ["1", "2", "3"], "", None)
        await client.subscribe("g", "a", 0)
        await client.subscribe("h", ">", None)
        await client.subscribe("h", ">", None)
        assert server.records("KV_t_groups") == [
            (1, f"$KV.t_groups.{G}", {"group": "g", "pattern": "a"}),
            (2, f"$KV.t_groups.{H}", {"group": "h", "pattern": ">"}),
        ]  # fmt: skip
        configs = [config for stream, config in server.consumer_configs if stream == "t_messages"]
        assert [(each.durable_name, each.filter_subject, each.deliver_policy, each.opt_start_seq) for each in configs] == [
            (G, "t.messages.a", DeliverPolicy.BY_START_SEQUENCE, 1), (H, "t.messages.>", DeliverPolicy.NEW, None),
        ]  # fmt: skip
        assert {(each.ack_policy, each.ack_wait, each.max_ack_pending) for each in configs} == {
            (AckPolicy.EXPLICIT, 30.0, -1)
        }
        assert await client._groups() == {"g": "a", "h": ">"} and (await client.lag("g"), await client.lag("h")) == (
            3,
            0,
        )
        with pytest.raises(ConfigError, match=r"^the group 'h' subscribes to '>': give another name for 'a'$"):
            await client.subscribe("h", "a", 0)
        await client.publish("a", ["4"], "", None)
        assert [each.message.offset for each in await client.fetch("g", 9, 30.0)] == [1, 2, 3, 4]
        assert [each.message.offset for each in await client.fetch("h", 9, 30.0)] == [4]
        assert counts(client) == {("g", 1): 1, ("g", 2): 1, ("g", 3): 1, ("g", 4): 1, ("h", 4): 1}
        for offset in (1, 2, 3):
            await client._bury("g", offset, client._held["g", offset]._replace(deliveries=offset + 4), f"why {offset}")
        assert counts(client) == {("g", 4): 1, ("h", 4): 1} and await client.lag("g") == 1
        first, second, third = (BusMessage(n, "a", f"{n}", "", 50.5) for n in (1, 2, 3))
        assert await client.dead_letters("g") == [
            DeadLetter(first, "g", 5, "why 1"), DeadLetter(second, "g", 6, "why 2"), DeadLetter(third, "g", 7, "why 3"),
        ]  # fmt: skip
        assert server.records("KV_t_dead")[0] == (1, f"$KV.t_dead.{G}.1", {"offset": 1, "count": 5, "reason": "why 1"})
        assert await client.dead_letters("h") == []
        await client.subscribe("g", "a", 2)
        assert [each.message.offset for each in await client.dead_letters("g")] == [1, 2]
        assert counts(client) == {("h", 4): 1}, "what it held is forgotten, another group's is not"
        assert await client.lag("g") == 2 and server.consumers["t_messages", G].next == 3
        await client.subscribe("g", "a", None)
        assert await client.lag("g") == 2 and len(await client.dead_letters("g")) == 2, "it stays where it is"
        await client.subscribe("g", "a", 0)
        assert await client.lag("g") == 4 and await client.dead_letters("g") == [], "back at the beginning"
        assert [each.message.offset for each in await client.fetch("g", 2, 30.0)] == [1, 2]
        await client._bury("g", 1, client._held["g", 1], "again")
        await client._bury("g", 2, client._held["g", 2], "too")
        for bucket in ("dead", "groups"):  # made by somebody who keeps more of each key
            server.configs[f"KV_t_{bucket}"].max_msgs_per_subject = 9
        await client.unsubscribe("g")
        assert await client.dead_letters("g") == [] and await client._groups() == {"h": ">"}
        await client.unsubscribe("g")
        assert [name for _, name in server.consumers] == [H]
        with pytest.raises(UnknownName, match=f"^no group '{'n' * 80}': subscribe it first$"):
            await client._consumer("n" * 81)

    calling(work)


def test_what_is_fetched_is_held_until_it_is_acknowledged_or_let_go(server: Server) -> None:
    ack = "$JS.ACK.t_messages.Zw.{}.{}.{}.0.0"
    """Count, offset and place among all deliveries of the group."""

    async def work(client: NatsClient) -> None:
        await client.subscribe("g", "a", 0)
        await client.publish("a", ["1", "2", "3", "4"], "s", None)
        server.heard.clear()
        one, two, three, four = (BusMessage(n, "a", f"{n}", "s", 50.5) for n in (1, 2, 3, 4))
        assert await client.fetch("g", 2, 30.0) == [Delivery(one, 1), Delivery(two, 1)]
        assert server.heard == [(f"$JS.API.CONSUMER.MSG.NEXT.t_messages.{G}", b'{"batch": 2, "no_wait": true}')]
        server.heard.clear()
        assert await client.fetch("g", 5, 1.25) == [Delivery(three, 1), Delivery(four, 1)]
        assert server.heard == [
            (f"$JS.API.CONSUMER.MSG.NEXT.t_messages.{G}", b'{"batch": 5, "no_wait": true}'),
            (ack.format(1, 3, 3), b'-NAK {"delay": 1250000000}'), (ack.format(1, 4, 4), b'-NAK {"delay": 1250000000}'),
            (f"$JS.API.CONSUMER.MSG.NEXT.t_messages.{G}", b'{"batch": 3, "no_wait": true}'),
        ]  # fmt: skip
        leases = server.consumers["t_messages", G].leases
        leases[1], leases[3] = (0.0, 1), (0.0, 2)
        server.heard.clear()
        assert await client.fetch("g", 2, 0.001) == [Delivery(one, 2)], "the other was delivered too often"
        assert (ack.format(2, 1, 5), b'-NAK {"delay": 20000000}') in server.heard
        assert (ack.format(3, 3, 6), b"+TERM") in server.heard
        assert await client.dead_letters("g") == [DeadLetter(three, "g", 2, "it was not acknowledged in time")]
        assert counts(client) == {("g", 1): 2, ("g", 2): 1, ("g", 4): 1} and set(leases) == {1, 2, 4}
        server.heard.clear()
        assert await client.acknowledge("g", [4, 4, 9, 3]) == 1 and set(leases) == {1, 2}
        assert sorted(server.heard) == [
            (ack.format(1, 3, 1), b"+ACK"), (ack.format(1, 4, 4), b"+ACK"), (ack.format(1, 9, 1), b"+ACK"),
        ]  # fmt: skip
        assert await client.acknowledge("g", []) == 0 and counts(client) == {("g", 1): 2, ("g", 2): 1}
        server.heard.clear()
        await client.let_go("g", 2, "later")
        assert server.heard == [(ack.format(1, 2, 2), b"-NAK")] and counts(client) == {("g", 1): 2}
        await client.let_go("g", 1, "r" * 1001 + "\ud800")
        assert (
            server.heard[1:] == [(ack.format(2, 1, 5), b"+TERM")] and client._held == {} and await client.lag("g") == 1
        )
        letters = {each.message.offset: (each.count, each.reason) for each in await client.dead_letters("g")}
        assert letters == {1: (2, "r" * 1000), 3: (2, "it was not acknowledged in time")}
        for offset in (1, 2, 4):
            with pytest.raises(UnknownName, match=f"^the group 'g' holds no message {offset}$"):
                await client.let_go("g", offset, "")
        assert await client.fetch("g", 1, 30.0) == [Delivery(two, 2)]
        await client.let_go("g", 2, "")
        assert [each.reason for each in await client.dead_letters("g")][1] == "it was let go of"
        leases.clear()
        client._held["g", 7] = Held(1, ack.format(1, 7, 7))  # the server has given it up
        assert await client.acknowledge("g", [7]) == 0 and client._held == {}
        looked: list[str] = []
        consumer, say = client._consumer, client._say

        async def looks(group: str) -> Any:
            looked.append(group)
            return await consumer(group)

        async def says(held: Held, word: bytes) -> None:
            if held.reply == "8":
                raise TimeoutError

        client._held |= {("g", offset): Held(1, str(offset)) for offset in (8, 9, 10)}
        client._consumer, client._say = looks, says  # type: ignore[method-assign]
        assert await client.acknowledge("g", [8, 9]) == 1 and looked == ["g", "g"], (
            "it asks whether the server is there"
        )
        assert await client.acknowledge("g", [10]) == 1 and looked == ["g"] * 3
        client._consumer, client._say = consumer, say  # type: ignore[method-assign]
        for call in (
            client.acknowledge("x", [1]),
            client.let_go("x", 1, ""),
            client.fetch("x", 1, 1.0),
            client.lag("x"),
        ):
            with pytest.raises(UnknownName, match=r"^no group 'x': subscribe it first$"):
                await call

    calling(work)


def test_messages_with_headers_are_given_as_others_are(server: Server) -> None:
    async def work(client: NatsClient) -> None:
        await client.subscribe("g", ">", 0)
        await client.publish("a", ["1", "2"], "s", "named")
        server.keep("t_messages", "t.messages.b", b"of another program", {"Status": "404", "Nats-Msg-Id": "n"})
        await client.publish("c", ["4"], "s", None)
        one, two, four = (BusMessage(n, topic, f"{n}", "s", 50.5) for n, topic in ((1, "a"), (2, "a"), (4, "c")))
        other = BusMessage(3, "b", "of another program", "", 0.0)
        assert [each.message for each in await client.fetch("g", 9, 30.0)] == [one, two, other, four]
        assert await client.replay(">", 0, 9) == [one, two, other, four]
        assert await client.replay(">", 1, 2) == [two, other] and await client.fetch("g", 9, 30.0) == []

    calling(work)


def test_a_fetch_asks_in_batches_and_gives_the_oldest_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_client, "_BATCH", 2)

    async def work(client: NatsClient) -> None:
        await client.subscribe("g", ">", 0)
        await client.publish("a", list("abcde"), "", None)
        await client.fetch("g", 3, 30.0)
        server.consumers["t_messages", G].leases[3] = (0.0, 1)
        inboxes = client._nc.inboxes
        given = await client.fetch("g", 3, 30.0)
        assert [(each.message.offset, each.count) for each in given] == [(3, 2), (4, 1), (5, 1)]
        batches = [json.loads(data)["batch"] for subject, data in server.heard if subject.endswith(f"t_messages.{G}")]
        assert batches == [2, 1, 2, 1] and all(queue.empty() for queue in inboxes.values())
        assert await client._pull("t_messages", G, 9) == []

        def newest_first(stream: str, name: str, batch: int) -> list[Any]:
            return JetStream.pull(server, stream, name, batch)[::-1]

        server.consumers["t_messages", G].leases |= {1: (0.0, 1), 2: (0.0, 1)}
        monkeypatch.setattr(server, "pull", newest_first)
        assert [each.message.offset for each in await client.fetch("g", 2, 30.0)] == [1, 2]

    calling(work, max_lag=9)
