"""A NATS server that goes away and comes back, and what is larger than it takes."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.messaging.nats_connection import connected
from firsthand.messaging.nats_messaging import NatsMessaging
from jetstream_in_memory import Connection, JetStream
from messaging_servers import nats_address, nats_server  # noqa: F401

MOST = (1 << 20) - 512


class Away(JetStream):
    """A server whose connections are kept in `opened`, and which meets the next ones with `faults`, if any."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[Connection] = []
        self.urls: list[str] = []
        self.faults: list[Exception | float] = []
        self.js_faults: list[Exception] = []

    async def connect(self, url: str, **_: Any) -> Connection:
        self.urls.append(url)
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            await asyncio.sleep(fault)
        self.opened.append(Connection(self))
        return self.opened[-1]

    async def key_value(self, bucket: str) -> Any:
        if bucket.endswith("dead") and self.js_faults:
            raise self.js_faults.pop(0)
        return await super().key_value(bucket)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Away:
    made = Away()
    monkeypatch.setattr("firsthand.messaging.nats_client.connected", made.connect)
    return made


@pytest.fixture
def store(server: Away) -> Iterator[NatsMessaging]:
    with NatsMessaging("nats://me:pw@here:1", name="t", timeout_s=0.4) as made:
        yield made


def test_a_connection_that_was_lost_is_opened_anew_by_the_next_call(server: Away, store: NatsMessaging) -> None:
    store.subscribe("g", "a.*")
    store.write("plan", "v1", writer="ann")
    store.publish("a.b", ["x"])
    assert [each.message.payload for each in store.fetch("g")] == ["x"] and len(server.opened) == 1
    server.opened[0].is_closed = True
    found = store.read("plan")
    assert found is not None and found.value == "v1"
    assert server.urls == ["nats://me:pw@here:1"] * 2 and store._client._nc is server.opened[1]
    assert store.acknowledge("g", [1]) == 1 and len(server.opened) == 2, "what it had fetched is still held"


def test_a_server_that_is_still_away_is_told_each_time_until_it_is_back(server: Away, store: NatsMessaging) -> None:
    server.opened[0].is_closed = True
    server.faults, server.js_faults = [OSError("nobody there"), OSError("nor now")], [OSError("no JetStream yet")]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for said in ("nobody there", "nor now", "no JetStream yet"):
            with pytest.raises(StoreError, match=f"^the NATS server at here:1 failed: {said}$"):
                store.publish("a", ["x"])
        gc.collect()
    told = [each for each in told if issubclass(each.category, RuntimeWarning)]
    assert not told, "calls that were not made are closed"
    assert [each.is_closed for each in server.opened] == [True, True], "a connection without its buckets is not kept"
    assert store.publish("a", ["y"]) == [1] and [each.payload for each in store.replay("a")] == ["y"]
    assert store.dead_letters("g") == [] and len(server.opened) == 3


def test_calls_wait_for_a_server_no_longer_than_was_asked(server: Away, store: NatsMessaging) -> None:
    server.opened[0].is_closed, server.faults = True, [60.0]
    began = time.monotonic()
    with pytest.raises(StoreError, match="failed: TimeoutError"):
        store.read("k")
    assert 0.35 < time.monotonic() - began < 10 and len(server.opened) == 1
    assert store.read("k") is None


def test_many_calls_over_a_lost_connection_open_one(server: Away, store: NatsMessaging) -> None:
    server.opened[0].is_closed, server.faults = True, [0.1]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(store.read, "abcdefgh")) == [None] * 8
    assert len(server.opened) == 2


def test_a_connection_that_goes_over_to_another_server_is_waited_for(
    server: Away, store: NatsMessaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, pauses = server.opened[0], list[float]()

    async def back(pause_s: float) -> None:
        pauses.append(pause_s)
        first.is_reconnecting = len(pauses) < turns

    monkeypatch.setattr(asyncio, "sleep", back)
    turns, first.is_reconnecting = 20, True
    assert store.read("k") is None and len(server.opened) == 1 and pauses == [0.05] * 20
    turns, first.is_reconnecting = 99, True
    pauses.clear()
    assert store.read("k") is None and len(server.opened) == 2 and pauses == [0.05] * 20
    assert first.is_closed and not server.opened[1].is_closed, "one that never comes back is given up"


def test_connecting_that_is_given_up_leaves_no_connection() -> None:
    async def main() -> bytes:
        ended = asyncio.get_running_loop().create_future()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ended.set_result(await reader.read())
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connected(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", connect_timeout=60)
        said = await asyncio.wait_for(ended, 20)
        server.close()
        return bytes(said)

    assert asyncio.run(main()) == b""


@pytest.mark.slow
def test_a_server_that_is_restarted_is_used_again(tmp_path: Path) -> None:
    with nats_server(tmp_path) as address:
        store = NatsMessaging(address, timeout_s=5)
        store.subscribe("g", "a.*")
        store.write("plan", "v1", writer="ann")
        store.publish("a.b", ["x", "y"])
        assert len(store.fetch("g", 1)) == 1
    time.sleep(2)  # longer than nats-py tries
    with pytest.raises(StoreError, match=r"^the NATS server at 127\.0\.0\.1:\d+ failed: "):
        store.read("plan")
    with nats_server(tmp_path, port=int(address.rsplit(":", 1)[1])), store:
        found = store.read("plan")
        assert found is not None and found.value == "v1"
        assert store.acknowledge("g", [1]) == 1 and [each.message.payload for each in store.fetch("g")] == ["y"]
        assert store.publish("a.b", ["z"]) == [3]


def test_no_message_is_sent_of_a_publication_with_one_that_the_server_does_not_take(
    server: Away, store: NatsMessaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 50.5)
    beside = len(b'{"payload": "", "sender": "", "at": 50.5}')
    for text in ("é" * 600_000, '"' * 600_000, "x" * (MOST - beside - 999_999) + "é" * 500_000):
        with pytest.raises(
            ConfigError, match=r"^a message takes 1,[0-9,]+ bytes as JSON, and the NATS server 1,048,064: "
        ):
            store.publish("a", ["ok", text])
    assert store.replay(">") == []
    most = "é" * ((MOST - beside) // 2) + "x" * ((MOST - beside) % 2)
    with pytest.raises(ConfigError, match="takes 1,048,065 bytes"):
        store.publish("a", ["ok", most + "x"])
    assert store.publish("a", ["ok", most]) == [1, 2] and store.replay("a")[1].payload == most
    server.opened[0].max_payload = 8 << 20
    assert store.publish("a", ["é" * 900_000]) == [3], "what a server takes is the server's to say"


def test_a_value_that_the_server_does_not_take_is_refused_with_its_size(
    server: Away, store: NatsMessaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 50.5)
    beside = len('{"key": "k", "value": "", "version": 1, "writer": "w", "at": 50.5, "once": null}')
    most = "é" * ((MOST - beside) // 2) + "x" * ((MOST - beside) % 2)
    with pytest.raises(
        ConfigError, match=r"^the value of 'k' takes 1,048,065 bytes as JSON, and the NATS server 1,048,064"
    ):
        store.write("k", most + "x", writer="w")
    assert store.read("k") is None
    assert store.write("k", most, writer="w").version == 1


def test_a_server_takes_the_largest_record_with_its_headers(nats_address: str) -> None:  # noqa: F811
    with NatsMessaging(nats_address, name="large", timeout_s=5) as store:
        beside = len(b'{"payload": "", "sender": "", "at": 1796073454.7527661}')
        most, name = "é" * ((MOST - beside) // 2 - 1), "o" * 300
        assert store.publish("a", [most, most], once=name) == [1, 2] and store.publish("a", [most] * 2, once=name) == [
            1,
            2,
        ]
        beside += len(f'"key": "k", "version": 1, "once": "{name}", ')
        value = "é" * ((MOST - beside) // 2 - 1)
        assert store.write("k", value, writer="w", once=name) == store.write("k", "", writer="w", once=name)
        assert len(store.replay("a")) == 2 and [each.value for each in store.history("k")] == [value]
