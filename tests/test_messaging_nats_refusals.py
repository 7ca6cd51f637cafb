"""A NATS server that fails in the middle of a call: its error is told, and nothing is left open or taken for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import pytest
from nats.js.errors import NotFoundError, ServerError

from firsthand.errors import UnknownName
from firsthand.messaging import nats_client
from firsthand.messaging.nats_client import NatsClient
from firsthand.messaging.nats_records import coded, read_record
from jetstream_in_memory import Bucket, Connection, JetStream, connecting


class Refusing(JetStream):
    """A server whose next calls of these names fail, each as often as it is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []

    def check(self, name: str) -> None:
        if name in self.refused:
            self.refused.remove(name)
            raise ServerError(code=503, description=f"no {name}")

    async def key_value(self, bucket: str) -> Bucket:
        return RefusingBucket(self, bucket)

    async def add_stream(self, config: Any) -> None:
        self.check(f"add {config.name}")
        await super().add_stream(config)

    async def add_consumer(self, stream: str, config: Any) -> Any:
        self.check("add_consumer")
        return await super().add_consumer(stream, config)

    async def delete_consumer(self, stream: str, name: str) -> None:
        self.check("delete_consumer")
        await super().delete_consumer(stream, name)

    async def consumer_info(self, stream: str, name: str) -> Any:
        self.check("consumer_info")
        return await super().consumer_info(stream, name)

    def pull(self, stream: str, name: str, batch: int) -> list[Any]:
        self.check("pull")
        return super().pull(stream, name, batch)


class RefusingBucket(Bucket):
    async def get(self, key: str) -> Any:
        self.jetstream.check("get")  # type: ignore[attr-defined]
        return await super().get(key)

    async def update(self, key: str, value: bytes, last: int) -> int:
        self.jetstream.check("update")  # type: ignore[attr-defined]
        return await super().update(key, value, last)

    async def history(self, key: str) -> list[Any]:
        self.jetstream.check("history")  # type: ignore[attr-defined]
        return await super().history(key)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    made = Refusing()
    monkeypatch.setattr("firsthand.messaging.nats_client.connected", connecting(made, []))
    return made


def calling(work: Callable[[NatsClient], Awaitable[Any]]) -> None:
    async def main() -> None:
        client = NatsClient("t", 2.5, 4, 2, 3)
        await client.connect("nats://here")
        await work(client)

    asyncio.run(main())


def test_a_server_that_fails_is_told_and_no_key_is_taken_for_unwritten(server: Refusing) -> None:
    async def work(client: NatsClient) -> None:
        async def refused(name: str, call: Awaitable[Any], *, times: int = 1) -> None:
            server.refused += [name] * times
            with pytest.raises(ServerError, match=f"no {name}"):
                await call
            server.refused.clear()

        first = await client.write("k", "1", "ann", None, "n")
        await client.subscribe("g", "a", 0)
        await refused("get", client.read("k"))
        await refused("get", client.write("k", "2", "bob", 0, None))
        await refused("get", client.write("other", "2", "bob", 0, "n"))
        await refused("get", client.publish("a", ["x"], "", "p"))
        await refused("get", client.subscribe("g", "a", None))
        await refused("history", client.history("k"))
        await refused("update", client.write("k", "2", "bob", 1, None))
        await refused("consumer_info", client.lag("g"))
        await refused("consumer_info", client.fetch("g", 1, 30.0))
        await refused("delete_consumer", client.unsubscribe("g"))
        await refused("delete_consumer", client.subscribe("g", "a", 0))
        assert await client.history("k") == [(first, "n")] and await client.lag("g") == 0
        assert server.streams["t_messages"] == [] and await client._groups() == {"g": "a"}
        with pytest.raises(UnknownName, match=r"^no group 'é{80}': subscribe it first$"):
            await client.lag("é" * 81)
        await server.delete_consumer("t_messages", coded("g"))
        with pytest.raises(NotFoundError):
            await server.delete_consumer("t_messages", coded("g"))
        await client.unsubscribe("g")
        assert await client._groups() == {}, "a group whose consumer is gone can be removed"

    calling(work)


@pytest.mark.parametrize("name", ["t_messages", "KV_t_board", "KV_t_groups", "KV_t_dead", "KV_t_names"])
def test_a_stream_that_cannot_be_made_is_told_on_connecting(server: Refusing, name: str) -> None:
    server.refused = [f"add {name}"]
    with pytest.raises(ServerError, match=f"no add {name}"):
        calling(lambda client: asyncio.sleep(0))


def test_a_reading_that_breaks_off_leaves_no_consumer_and_no_inbox(
    server: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_client, "_BATCH", 2)
    ended: list[str] = []
    subscribe = Connection.subscribe

    async def noted(self: Connection, inbox: str) -> Any:
        made = await subscribe(self, inbox)
        ending = made.unsubscribe

        async def unsubscribe() -> None:
            ended.append(inbox)
            await ending()

        made.unsubscribe = unsubscribe
        return made

    monkeypatch.setattr(Connection, "subscribe", noted)

    async def work(client: NatsClient) -> None:
        await client.publish("a", ["1", "2", "3"], "", None)
        ended.clear()
        server.refused = ["pull"]
        with pytest.raises(ServerError, match="no pull"):
            await client.replay("a", 0, 9)
        assert server.consumers == {} and len(ended) == 1
        await client.subscribe("g", "a", 0)
        ended.clear()
        server.refused = ["pull"]
        with pytest.raises(ServerError, match="no pull"):
            await client.fetch("g", 3, 30.0)
        assert len(ended) == 1 and client._held == {}
        assert [each.message.payload for each in await client.fetch("g", 3, 30.0)] == ["1", "2", "3"]
        client._js.delete_consumer = None  # nothing is asked of it where no consumer was made
        server.refused = ["add_consumer"]
        with pytest.raises(ServerError, match="no add_consumer"):
            await client.replay("a", 0, 9)
        client.timeout_s = 0.001

        async def silent(subject: str, data: bytes, reply: str = "") -> None:
            pass

        client._nc.publish = silent
        ended.clear()
        with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
            await client._pull("t_messages", coded("g"), 1)
        assert len(ended) == 1, "a server that says nothing"

    calling(work)


def test_bytes_that_are_no_record_of_ours_are_none() -> None:
    kinds = {"a": int, "b": str}
    assert read_record(b'{"a": 1, "b": "x", "c": null}', **kinds) == {"a": 1, "b": "x"}
    for bad in (
        None, b"", b"\xff", b"[" * 100_000, b"[1]", b"null", b'{"a": 1}', b'{"a": true, "b": "x"}', b'{"a": "1", "b": 2}',
        b'{"a": 1.0, "b": "x"}', b'{"a": 1, "b": null}',
    ):  # fmt: skip
        assert read_record(bad, **kinds) is None, bad
