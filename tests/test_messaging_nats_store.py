"""The store in NATS, which hands each call to its client in a thread of its own, and ends both."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.messaging import nats_messaging
from firsthand.messaging.nats_messaging import NatsMessaging
from jetstream_in_memory import JetStream, connecting


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What connections were asked for."""
    asked: list[Any] = []
    monkeypatch.setattr("firsthand.messaging.nats_client.connected", connecting(JetStream(), asked))
    return asked


def test_a_store_in_nats_passes_on_what_it_is_asked_and_stops_its_thread(server: list[Any]) -> None:
    asked: list[tuple[Any, ...]] = []

    class Client:
        def __getattr__(self, name: str) -> Any:
            async def call(*given: Any) -> Any:
                if name != "ready":  # before each call
                    asked.append((name, *given))
                return [("entry", "once")] if name == "history" else "said"

            return call

    store = NatsMessaging(
        "tls://me:p@w@here:1", name="team", max_lag=7, max_deliveries=8, kept_versions=9, timeout_s=2.5
    )
    made = store._client
    assert (made.name, made.timeout_s, made.max_lag, made.max_deliveries, made.kept_versions) == ("team", 2.5, 7, 8, 9)
    assert store._address == "here:1" and server[-1][0] == "tls://me:p@w@here:1" and store._thread.daemon
    store._client = Client()  # type: ignore[assignment]
    with store as same:
        assert same is store
        odd, plain = "\ud800", "\\ud800"
        results = [
            store.write("k", f"v{odd}", writer=f"w{odd}", expected=3, once=f"o{odd}"),
            store.write("k", "v", writer="w"),
            store.read(odd), store.entries(odd), store.entries(), store.history(odd), store.changes(4, 5), store.changes(),
            store.publish("t", [odd, "x"], sender=odd, once=odd), store.publish("t", []),
            store.subscribe("g", "p.>", after=6),
            store.subscribe("g", "p"), store.unsubscribe("g"), store.fetch("g", 7, lease_s=1.5), store.fetch("g"),
            store.acknowledge("g", [8, 9]), store.let_go("g", 10, "r"), store.let_go("g", 10), store.replay("p", 11, 12),
            store.replay("p"), store.dead_letters("g"), store.lag("g"),
        ]  # type: ignore[func-returns-value]  # fmt: skip
        assert asked == [
            ("write", "k", f"v{plain}", f"w{plain}", 3, f"o{plain}", "public"),
            ("write", "k", "v", "w", None, None, "public"), ("read", plain),
            ("entries", plain), ("entries", ""), ("history", plain), ("changes", 4, 5), ("changes", 0, 1000),
            ("publish", "t", [plain, "x"], plain, plain), ("publish", "t", [], "", None), ("subscribe", "g", "p.>", 6),
            ("subscribe", "g", "p", None), ("unsubscribe", "g"), ("fetch", "g", 7, 1.5), ("fetch", "g", 100, 30.0),
            ("acknowledge", "g", [8, 9]), ("let_go", "g", 10, "r"), ("let_go", "g", 10, ""), ("replay", "p", 11, 12),
            ("replay", "p", 0, 1000), ("dead_letters", "g"), ("lag", "g"),
        ]  # fmt: skip
        nothing = {10, 11, 12, 16, 17}
        assert results == [None if n in nothing else ["entry"] if n == 5 else "said" for n in range(len(results))]
        asked.clear()
        store.unsubscribe(odd)
        store.fetch(odd)
        store.acknowledge(odd, [])
        store.let_go(odd, 1)
        store.dead_letters(odd)
        store.lag(odd)
        assert [(name, group) for name, group, *_ in asked] == [
            (name, plain) for name in ("unsubscribe", "fetch", "acknowledge", "let_go", "dead_letters", "lag")
        ], "a name that no column can hold is the name of no group"
        asked.clear()
        for call in (
            lambda: store.write("", "v", writer="w"), lambda: store.publish("a b", []), lambda: store.fetch("g", 0),
            lambda: store.publish("t", ["x" * 1_000_001]), lambda: store.subscribe("a b", "t"),
            lambda: store.subscribe("g", "a..b"), lambda: store.replay("a..b"),
        ):  # fmt: skip
            with pytest.raises(ConfigError):
                call()  # type: ignore[no-untyped-call]
        assert asked == []
    assert asked == [("close",)] and not store._thread.is_alive() and store._loop.is_closed()
    store.close()
    assert asked == [("close",)]
    for given, said in (
        ({"kept_versions": 65}, "kept_versions is 65: JetStream keeps at most 64 versions of a key"),
        ({"name": "a.b"}, "the name is 'a.b': give one without dots"), ({"name": "a b"}, "the topic is 'a b'"),
        ({"max_lag": 0}, "max_lag is 0: give 1 or more"), ({"max_deliveries": 0}, "max_deliveries is 0"),
        ({"kept_versions": 0}, "kept_versions is 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            NatsMessaging("nats://here", **given)  # type: ignore[arg-type]
        assert str(told.value).startswith(said)
    with NatsMessaging("nats://here", kept_versions=64) as plain_store:
        made = plain_store._client
        assert (made.name, made.timeout_s, made.max_lag, made.max_deliveries) == ("firsthand", 10.0, 100_000, 5)


def test_tasks_that_a_connection_left_running_are_ended_before_its_thread() -> None:
    ended: list[str] = []

    async def left(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)
            if name == "fails":
                raise ValueError(name)

    async def main() -> int:
        tasks = [asyncio.ensure_future(left(name)) for name in ("a", "fails")]
        await asyncio.sleep(0)
        await nats_messaging._cancel_others()
        return sum(each.done() for each in tasks)

    assert asyncio.run(main()) == 2 and sorted(ended) == ["a", "fails"]


def test_a_store_that_closes_ends_what_its_connection_left_running_even_where_the_server_is_gone(
    server: list[Any],
) -> None:
    ended: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("left")

    class Gone:
        """The client of a server that does not answer any more."""

        async def start(self) -> None:
            self.task = asyncio.ensure_future(left())
            await asyncio.sleep(0)

        async def close(self) -> None:
            ended.append("close")
            raise OSError("gone")

    for is_gone in (False, True):
        ended.clear()
        store = NatsMessaging("nats://here:1")
        connection, client, gone = store._client._nc, store._client, Gone()
        store._wait(gone.start())
        if is_gone:
            store._client = gone  # type: ignore[assignment]
        store.close()
        assert ended == ["close", "left"][0 if is_gone else 1 :] and connection.is_closed is not is_gone
        assert gone.task.cancelled() and not store._thread.is_alive() and store._loop.is_closed()
        store.close()
        assert len(ended) == 1 + is_gone, "closed once"
        assert client is not gone


def test_each_fault_of_a_server_is_told_as_one_of_two_sentences(server: list[Any]) -> None:
    import nats

    async def fails(error: Exception) -> None:
        raise error

    with NatsMessaging("nats://me:pw@here:1") as store:
        for error, said in (
            (nats.errors.NoServersError(), "failed: nats: no servers available for connection"),
            (TimeoutError(), "failed: TimeoutError"), (OSError("a\n b"), "failed: a b"),
            (ConnectionResetError(), "failed: Conn"),
            *((kind("x" * 99), f"holds a record that firsthand did not write ({'x' * 80}): give another name")
              for kind in (ValueError, UnicodeError, TypeError, AttributeError, LookupError, IndexError)),
            (KeyError("k"), "holds a record that firsthand did not write ('k'): give another name"),
        ):  # fmt: skip
            with pytest.raises(StoreError) as told:
                store._wait(fails(error))
            assert str(told.value).startswith(f"the NATS server at here:1 {said}"), error
        for other in (RuntimeError("ours"), UnknownName("no group")):
            with pytest.raises(type(other), match=str(other)):
                store._wait(fails(other))


def test_a_store_whose_connecting_is_interrupted_leaves_no_thread(server: list[Any]) -> None:
    started: list[Any] = []

    class Interrupted(NatsMessaging):
        def _wait(self, doing: Any) -> Any:
            started.extend((self._thread, self._loop))
            doing.close()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted("nats://here:1")
    thread, loop = started
    assert not thread.is_alive() and loop.is_closed()
