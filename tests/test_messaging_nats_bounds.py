"""What the client of NATS holds to: revisions of deleted keys, the lag of a topic's groups, its own time, and a limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.messaging import nats_client
from firsthand.messaging.blackboard import BoardConflict
from firsthand.messaging.message_bus import BusFull
from firsthand.messaging.nats_client import NatsClient
from firsthand.messaging.nats_records import coded
from jetstream_in_memory import Connection, JetStream

K = coded("k")


class Timed(Connection):
    """Keeps the seconds that each answer is waited for, and the batches that are asked for."""

    def __init__(self, server: JetStream) -> None:
        super().__init__(server)
        self.waited: list[float] = []
        self.batches: list[int] = []

    async def subscribe(self, inbox: str) -> Any:
        made = await super().subscribe(inbox)
        waiting = made.next_msg

        async def next_msg(timeout: float) -> Any:
            self.waited.append(timeout)
            return await waiting(timeout)

        made.next_msg = next_msg
        return made

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        if reply:
            self.batches.append(json.loads(data)["batch"])
        await super().publish(subject, data, reply)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> JetStream:
    made = JetStream()

    async def connect(url: str, **options: Any) -> Timed:
        return Timed(made)

    monkeypatch.setattr("firsthand.messaging.nats_client.connected", connect)
    return made


def calling(work: Callable[[NatsClient], Awaitable[None]], timeout_s: float = 2.5) -> None:
    async def main() -> None:
        client = NatsClient("t", timeout_s, 2, 2, 3)
        await client.connect("nats://here")
        async with asyncio.timeout(5.0):  # a write that is refused for ever
            await work(client)
        await client.close()

    asyncio.run(main())


def test_a_key_that_another_program_deleted_can_be_written_again(server: JetStream) -> None:
    async def work(client: NatsClient) -> None:
        board = client._buckets["board"]
        assert await client._latest("k") == (0, None) and await client._versions("k") == (0, [])
        first = await client.write("k", "1", "ann", None, None)
        await board.delete(K)
        assert await client.read("k") is None
        assert await client._versions("k") == (2, [(first, None)]) and await client._latest("k") == (2, first)
        second = await client.write("k", "2", "bob", 1, None)
        assert (second.version, second.sequence) == (2, 3) and await client.read("k") == second
        await board.delete(K)
        third = await client.write("k", "3", "cid", 2, "n")
        assert (third.version, third.sequence) == (3, 5)
        assert await client.history("k") == [(second, None), (third, "n")], "three are kept, and one is a deletion"
        for _ in range(3):
            await board.delete(K)
        assert await client._versions("k") == (8, []) and await client._latest("k") == (8, None)
        for expected in (1, 3):
            with pytest.raises(BoardConflict):
                await client.write("k", "4", "dan", expected, None)
        anew = await client.write("k", "4", "dan", 0, None)
        assert (anew.version, anew.sequence) == (1, 9)
        await board.put(K, b"not ours")
        assert await client._latest("k") == (10, anew) and (await client.write("k", "5", "eve", 1, None)).sequence == 11

    calling(work)


def test_a_group_that_is_behind_holds_back_the_topics_of_its_pattern_alone(server: JetStream) -> None:
    async def work(client: NatsClient) -> None:
        for group, pattern in (("plain", "a"), ("star", "s.*"), ("rest", "r.>")):
            await client.subscribe(group, pattern, 0)
        for topic in ("a", "s.x", "r.x.y"):
            assert len(await client.publish(topic, ["1", "2"], "", None)) == 2
        for topic in ("a.b", "ab", "b.a", "b", "s", "s.x.y", "x.s.y", "r", "rx", "x.r.y", "aa"):
            assert len(await client.publish(topic, ["1", "2", "3"], "", None)) == 3, topic
        for topic, group in (("a", "plain"), ("s.y", "star"), ("r.z", "rest"), ("r.x.y.z", "rest")):
            with pytest.raises(BusFull) as told:
                await client.publish(topic, ["1"], "", None)
            assert str(told.value) == (
                f"{topic} takes no more messages: the group '{group}' is 2 behind, and 2 are allowed; let it read, or "
                "remove it"
            )
        await client.unsubscribe("plain")
        assert len(await client.publish("a", ["1"], "", None)) == 1

    calling(work)


@pytest.mark.parametrize("timeout_s", [0.7, 30.0])
def test_each_answer_is_waited_for_as_long_as_was_asked(server: JetStream, timeout_s: float) -> None:
    async def work(client: NatsClient) -> None:
        await client.publish("a", ["1"], "", None)
        await client.subscribe("g", "a", 0)
        assert len(await client.replay("a", 0, 9)) == len(await client.fetch("g", 9, 30.0)) == 1
        assert len(client._nc.waited) >= 4 and set(client._nc.waited) == {timeout_s}

    calling(work, timeout_s)


def test_a_reading_with_a_limit_gives_no_more_than_it(server: JetStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_client, "_BATCH", 3)

    async def work(client: NatsClient) -> None:
        for n in range(1, 8):
            await client.publish("a", [f"{n}"], "", None)
        for limit, batches in (
            (0, []), (1, [1]), (2, [2]), (3, [3]), (4, [3, 1]), (5, [3, 2]), (6, [3, 3]), (7, [3, 3, 1]),
            (8, [3, 3, 2, 1]), (99, [3, 3, 3, 3]),
        ):  # fmt: skip
            client._nc.batches.clear()
            found = await client.replay("a", 0, limit)
            assert [each.offset for each in found] == [*range(1, min(limit, 7) + 1)], limit
            assert client._nc.batches == batches, limit
        client._nc.batches.clear()
        assert len(await client._read_stream("t_messages", ">", 2, None)) == 5 and client._nc.batches == [3, 3, 3]
        assert server.consumers == {}

    calling(work)


def test_a_group_begins_behind_the_last_message_at_most(server: JetStream) -> None:
    async def work(client: NatsClient) -> None:
        await client.publish("a", ["1", "2"], "", None)
        await client.subscribe("g", "a", 2)
        with pytest.raises(
            ConfigError, match=r"^after is 3, and the last message is 2: give that or less, or leave it out$"
        ):
            await client.subscribe("g", "a", 3)
        await client.publish("a", ["3"], "", None)
        assert [each.message.payload for each in await client.fetch("g", 9, 30.0)] == ["3"], "its place is as before"

    calling(work)
