"""The words that go to a Redis and a NATS server and the records that come back, with both ends in this process."""

from __future__ import annotations

import asyncio
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.messaging import nats_messaging
from firsthand.messaging.blackboard import BoardConflict, BoardEntry
from firsthand.messaging.message_bus import BusFull, BusMessage, DeadLetter, Delivery
from firsthand.messaging.nats_client import NatsClient
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.nats_records import coded, entry_of, packed, read_record
from firsthand.messaging.redis_messaging import RedisMessaging
from firsthand.messaging.redis_scripts import SCRIPTS, lua_pattern
from jetstream_in_memory import Bucket, JetStream, connecting

# -- Redis --


class RedisWords:
    """A server that answers each script and stream read with the next of `replies`, and keeps what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.asked: list[list[str]] = []
        self.scripts: dict[str, str] = {}
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline():
                    words = []
                    for _ in range(int(line[1:])):
                        size = int(self.rfile.readline()[1:])
                        words.append(self.rfile.read(size + 2)[:-2].decode())
                    self.wfile.write(outer.answer(words))

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"redis://127.0.0.1:{self.server.server_address[1]}/0"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, words: list[str]) -> bytes:
        if words[0] in ("CLIENT", "SELECT", "PING"):
            return b"+PONG\r\n" if words[0] == "PING" else b"+OK\r\n"
        if words[0] == "HELLO":
            return b"%1\r\n$5\r\nproto\r\n:3\r\n"
        self.asked.append(words)
        return encoded(self.replies.pop(0))


def encoded(value: Any) -> bytes:
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, float):
        return b",%s\r\n" % str(value).encode()
    if value is None:
        return b"_\r\n"
    if isinstance(value, Exception):
        return f"-{value}\r\n".encode()
    data = value if isinstance(value, bytes) else value.encode()
    return b"$%d\r\n" % len(data) + data + b"\r\n"


@pytest.fixture
def words() -> Iterator[RedisWords]:
    made = RedisWords()
    yield made
    made.server.shutdown()
    made.server.server_close()


def names_of(shared: RedisMessaging) -> dict[str, str]:
    return {script.sha: name for name, script in shared._scripts.items()}


ROW = ["7-0", "key", "k", "value", "v", "version", "3", "writer", "ann", "at", "1.5"]
ENTRY = BoardEntry("k", "v", 3, "ann", 1.5, 7)
SAID = ["topic", "t.a", "payload", "x", "sender", "shop", "at", "2.5"]
MESSAGE = BusMessage(9, "t.a", "x", "shop", 2.5)


def test_each_call_to_redis_is_one_script_with_its_arguments(words: RedisWords) -> None:
    with RedisMessaging(words.url, name="team", max_lag=11, max_deliveries=4, kept_versions=6, timeout_s=2.5) as shared:
        names = names_of(shared)
        assert set(names.values()) == set(SCRIPTS)
        told = shared._client.connection_pool.connection_kwargs
        assert (told["socket_timeout"], told["socket_connect_timeout"]) == (2.5, 2.5)

        def asked(reply: Any, call: Any) -> tuple[Any, list[str]]:
            words.replies.append(reply)
            found = call()
            command, sha, count, prefix, *given = words.asked.pop()
            assert (command, count, prefix) == ("EVALSHA", "1", "{team}:") and not words.replies
            return found, [names[sha], *given]

        found, said = asked(["written", ROW], lambda: shared.write("k", "v\ud800", writer="ann"))
        assert found == ENTRY and said[:4] == ["write", "k", "v\\ud800", "ann"] and said[5:] == ["", "", "6"]
        assert abs(float(said[4]) - time.time()) < 60
        _, said = asked(["done", ROW], lambda: shared.write("k", "v", writer="ann", expected=0, once="n"))
        assert said[5:] == ["0", "=n", "6"]
        with pytest.raises(BoardConflict) as told:
            asked(["conflict", ROW], lambda: shared.write("k", "v", writer="ann", expected=2))
        assert told.value.entry == ENTRY and "expected at version 2, and it is at version 3" in str(told.value)
        words.asked.clear()
        with pytest.raises(BoardConflict, match="expected at version 0, and it is not there"):
            asked(["conflict", None], lambda: shared.write("k", "v", writer="ann", expected=0))
        words.asked.clear()
        assert asked(ROW, lambda: shared.read("k")) == (ENTRY, ["read", "k"])
        assert asked(None, lambda: shared.read("k"))[0] is None
        assert asked([ROW, ["8-0", "key", "k"]], lambda: shared.entries("p")) == ([ENTRY], ["entries", "p"])
        assert asked([ROW, ROW], lambda: shared.history("k")) == ([ENTRY] * 2, ["history", "k"])
        found, said = asked(["published", "5", "2"], lambda: shared.publish("t", ["a", "b"], sender="s"))
        assert found == [5, 6] and said[:3] == ["publish", "t", "s"] and said[4:] == ["11", "", "a", "b"]
        assert asked(["done", "5", "2"], lambda: shared.publish("t", ["a"], once="n"))[1][5:] == ["=n", "a"]
        with pytest.raises(BusFull) as full:
            asked(["full", "g", "1234"], lambda: shared.publish("t", ["a"]))
        assert str(full.value) == (
            "t takes no more messages: the group 'g' is 1,234 behind, and 11 are allowed; let it read, or remove it"
        )
        words.asked.clear()
        assert asked("", lambda: shared.subscribe("g", "a.*")) == (None, ["subscribe", "g", "a.*", r"^a%.[^.]+$", ""])
        assert asked("", lambda: shared.subscribe("g", ">", after=0))[1] == ["subscribe", "g", ">", "^.+$", "0"]
        with pytest.raises(ConfigError, match=r"^the group 'g' subscribes to 'b': give another name for 'a'$"):
            asked("b", lambda: shared.subscribe("g", "a"))
        words.asked.clear()
        assert asked(None, lambda: shared.unsubscribe("g"))[1] == ["unsubscribe", "g"]
        fetched = asked([["9-0", "2", SAID]], lambda: shared.fetch("g", 3, lease_s=1.5))
        assert fetched == ([Delivery(MESSAGE, 2)], ["fetch", "g", "3", "1.5", "4"])
        assert asked([], lambda: shared.fetch("g"))[1] == ["fetch", "g", "100", "30.0", "4"]
        assert asked(2, lambda: shared.acknowledge("g", [3, 4])) == (2, ["acknowledge", "g", "3", "4"])
        assert asked(1, lambda: shared.let_go("g", 3, "r" * 1001))[1] == ["let_go", "g", "3", "r" * 1000, "4"]
        assert asked(1, lambda: shared.let_go("g", 3))[1][3] == "it was let go of"
        with pytest.raises(UnknownName, match=r"^the group 'g' holds no message 3$"):
            asked(0, lambda: shared.let_go("g", 3))
        words.asked.clear()
        letters = asked([["9-0", "4", "why", SAID]], lambda: shared.dead_letters("g"))
        assert letters == ([DeadLetter(MESSAGE, "g", 4, "why")], ["dead_letters", "g"])
        assert asked(8, lambda: shared.lag("g")) == (8, ["lag", "g"])
        for call in (shared.lag, shared.fetch):
            with pytest.raises(UnknownName, match=f"^no group '{'n' * 80}': subscribe it first$"):
                asked("no group", lambda call=call: call("n" * 90))
            words.asked.clear()


def test_streams_of_redis_are_read_from_behind_an_offset(words: RedisWords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.messaging.redis_messaging._SCAN", 2)
    with RedisMessaging(words.url) as shared:
        words.replies.append([["7-0", ROW[1:]], ["8-1", ["key", "k"]]])
        assert shared.changes(6, 5) == [ENTRY]
        assert words.asked.pop() == ["XRANGE", "{firsthand}:changes", "7-0", "+", "COUNT", "5"]
        other = ["topic", "u", "payload", "y"]
        words.replies += [[["9-0", SAID], ["10-3", other]], [["12-0", other], ["13-0", SAID]], [["14-0", SAID]]]
        assert shared.replay("t.*", after=4) == [
            MESSAGE, BusMessage(13, "t.a", "x", "shop", 2.5), BusMessage(14, "t.a", "x", "shop", 2.5),
        ]  # fmt: skip
        assert [each[2] for each in words.asked] == ["5-0", "11-0", "14-0"] and words.asked[0][-1] == "2"
        words.replies += [[["9-0", SAID], ["10-0", SAID]]]
        assert shared.replay("t.*", limit=1) == [MESSAGE]
        words.replies.append([["9-0", ["topic", "t", "at", "soon"]]])
        assert shared.replay(">") == [BusMessage(9, "t", "", "", 0.0)]
        latin = ["topic", "t.a", "payload", b"caf\xe9 \xff", "sender", "é".encode(), "at", "2.5"]
        words.replies += [[["9-0", latin]], [["7-0", [*ROW[1:4], b"\xe9", *ROW[5:]]]]]
        assert shared.replay(">") == [BusMessage(9, "t.a", "caf\ufffd \ufffd", "é", 2.5)], "no UTF-8 is no error"
        assert shared.changes() == [BoardEntry("k", "\ufffd", 3, "ann", 1.5, 7)]
        words.replies.append(RuntimeError("ERR it is\tbroken"))
        with pytest.raises(StoreError) as told:
            shared.replay(">")
        address = words.url.removeprefix("redis://")
        assert str(told.value).startswith("the Redis server at ") and address in str(told.value)
        assert "\t" not in str(told.value) and "broken" in str(told.value)


ROWS: list[Any] = [
    5,
    ["x"],
    [[[]]],
    [["seven-0", "key", "v"]],
    [["1-0", "key"]],
    [[7, "key", "v"]],
    [["1-0", "key", 7]],
]
IN_STREAM: list[Any] = [5, ["x"], [[]], [[[]]], [["1-0"]], [["seven-0", SAID]], [["1-0", 7]], [["1-0", ["key", ["a"]]]]]
NUMBERS: list[Any] = [None, "", "2", ["x"], 2.0]
OTHER_FORMS: list[tuple[Any, list[Any]]] = [
    (lambda shared: shared.read("k"), [*(row[0] for row in ROWS[3:]), 5, ["x"], [[[]]]]),
    (lambda shared: shared.entries(), ROWS),
    (lambda shared: shared.history("k"), ROWS),
    (lambda shared: shared.changes(), IN_STREAM),
    (
        lambda shared: shared.write("k", "v", writer="w"),
        [5, ["written"], ["written", None], ["done", ["1-0", "key", "k"]], ["written", ROW, ROW], ["conflict", ["x"]]],
    ),
    (
        lambda shared: shared.publish("a.b", ["x"]),
        [5, ["published", "1"], ["published", "a", "1"], ["published", "1", []], ["published", float("inf"), "1"],
         ["full", ["g"], "1"], ["full", 7, "1"], ["full", "g", "many"]],
    ),
    (lambda shared: shared.subscribe("g", "a"), [5, ["x"], None]),
    (
        lambda shared: shared.fetch("g"),
        [5, "no", ["x"], [["9-0", "2"]], [["9-0", "x", SAID]], [["9-0", "1", [*SAID, "x"]]],
         [["9-0", "1", ["topic", 7]]]],
    ),
    (
        lambda shared: shared.dead_letters("g"),
        [5, "no", [["9-0", "4", 7, SAID]], [["9-0", "4", ["why"], SAID]], [["9-0", [], "why", SAID]],
         [["x", "4", "why", SAID]]],
    ),
    (lambda shared: shared.replay("a.b"), IN_STREAM),
    (lambda shared: shared.acknowledge("g", [1]), NUMBERS),
    (lambda shared: shared.let_go("g", 1), NUMBERS),
    (lambda shared: shared.lag("g"), NUMBERS),
]  # fmt: skip


def test_replies_of_another_form_are_one_sentence(words: RedisWords) -> None:
    with RedisMessaging(words.url) as shared:
        sentence = f"the Redis server at {shared._address} failed: a reply "
        for place, (call, replies) in enumerate(OTHER_FORMS):
            for reply in replies:
                words.replies.append(reply)
                try:
                    found = call(shared)
                except StoreError as error:
                    said = str(error)
                else:
                    raise AssertionError((place, reply, found))
                assert said.startswith(sentence) and not words.replies, (place, reply)
        assert said == f"{sentence}of another form than Redis gives; check the address, and any proxy before it"
        words.replies.append(7)
        shared.unsubscribe("g")  # it is asked for nothing


def test_a_replay_that_does_not_move_on_ends(words: RedisWords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.messaging.redis_messaging._SCAN", 2)
    other = ["topic", "u", "payload", "y"]
    with RedisMessaging(words.url) as shared:
        for last in ("8-1", "8-0", "3-0"):
            words.replies += [[["7-0", other], ["8-0", other]], [["9-0", other], [last, other]]]
            with pytest.raises(StoreError, match="a reply of another form than Redis gives"):
                shared.replay("t.*")
            assert not words.replies
        words.replies += [[["7-0", other], ["8-0", other]], [["9-0", other], ["9-1", other]], []]
        assert shared.replay("t.*") == []
        words.replies.append([["3-0", SAID]])
        assert len(shared.replay("t.*", after=5)) == 1, "the last page is not asked for again"


def test_what_redis_cannot_hold_is_refused_before_it_is_asked(words: RedisWords) -> None:
    with RedisMessaging(words.url) as shared:
        assert (shared.max_lag, shared.max_deliveries, shared.kept_versions) == (100_000, 5, 1000)
        for call, said in (
            (lambda: shared.publish("a b", ["x"]), "the topic is 'a b'"),
            (lambda: shared.publish("t", ["x" * 1_000_001]), "a message has 1,000,001 characters"),
            (lambda: shared.subscribe("g", "a..b"), "the pattern of topics is 'a..b'"),
            (lambda: shared.subscribe("a b", "t"), "the topic is 'a b'"),
            (lambda: shared.fetch("g", 0), "limit is 0: give 1 or more"),
            (lambda: shared.write("", "v", writer="w"), "the key is ''"),
            (lambda: shared.replay("a..b"), "the pattern of topics is 'a..b'"),
        ):
            with pytest.raises(ConfigError) as told:
                call()  # type: ignore[no-untyped-call]
            assert str(told.value).startswith(said) and words.asked == []
    with pytest.raises(ConfigError, match="the topic is 'a b'"):
        RedisMessaging(words.url, name="a b")


def test_lua_patterns_match_as_topics_do() -> None:
    assert lua_pattern("a-b.*.c_1.>") == r"^a%-b%.[^.]+%.c_1%..+$" and lua_pattern(">") == "^.+$"


# -- NATS --


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> JetStream:
    made = JetStream()
    made.asked = []  # type: ignore[attr-defined]
    monkeypatch.setattr("firsthand.messaging.nats_client.connected", connecting(made, made.asked))  # type: ignore[attr-defined]
    return made


def test_a_connection_makes_the_stream_and_the_buckets_once(server: JetStream) -> None:
    with NatsMessaging("nats://me:pw@here:4222", name="team", kept_versions=7, timeout_s=3.0) as shared:
        shared.write("k", "v", writer="w")
    with NatsMessaging("nats://me:pw@here:4222", name="team"):
        pass
    asked = server.asked  # type: ignore[attr-defined]
    assert [(url, options["connect_timeout"], made.is_closed) for url, options, made in asked] == [
        ("nats://me:pw@here:4222", 3.0, True), ("nats://me:pw@here:4222", 10.0, True),
    ]  # fmt: skip
    assert {name: config.max_msgs_per_subject for name, config in server.configs.items()} == {
        "team_messages": server.configs["team_messages"].max_msgs_per_subject, "KV_team_board": 7, "KV_team_groups": 1,
        "KV_team_dead": 1, "KV_team_names": 1,
    }  # fmt: skip
    messages = server.configs["team_messages"]
    assert (messages.subjects, messages.duplicate_window, messages.allow_direct) == (
        ["team.messages.>"],
        86_400.0,
        True,
    )
    assert [each.subject for each in server.streams["KV_team_board"]] == ["$KV.team_board.aw"]
    made = json.loads(server.streams["KV_team_board"][0].data)
    assert made == {"key": "k", "value": "v", "version": 1, "writer": "w", "at": made["at"], "once": None}
    shared.close()  # again: nothing to do
    assert not shared._thread.is_alive() and shared._loop.is_closed()


def test_a_publication_that_broke_off_is_completed_under_its_name(server: JetStream) -> None:
    with NatsMessaging("nats://here", name="t") as bus:
        assert bus.publish("a", ["x", "y"], sender="s", once="p") == [1, 2]
        assert [json.loads(each.data) for each in server.streams["KV_t_names"]] == [[1, 2]]
        server.streams["KV_t_names"].clear()
        assert bus.publish("a", ["x", "y", "z"], once="p") == [1, 2, 3] and bus.publish("a", ["x"]) == [4]
        bodies = [json.loads(each.data) for each in server.streams["t_messages"]]
        assert [(each["payload"], each["sender"]) for each in bodies] == [("x", "s"), ("y", "s"), ("z", ""), ("x", "")]
        first = bus.write("k", "1", writer="w", once="n")
        server.streams["KV_t_names"].clear()
        bus.write("k", "2", writer="w")
        assert bus.write("k", "3", writer="w", once="n") == first and len(bus.history("k")) == 2
        assert bus.write("k", "3", writer="w", expected=2, once="m").version == 3


def test_a_group_in_nats_is_a_durable_consumer(server: JetStream) -> None:
    with (
        NatsMessaging("nats://here", name="t", max_deliveries=2) as bus,
        NatsMessaging("nats://here", name="t") as other,
    ):
        bus.subscribe("g", "a.*")
        bus.subscribe("h", ">", after=0)
        kinds = {name: each.config for (_, name), each in server.consumers.items()}
        assert set(kinds) == {coded("g"), coded("h")}
        assert (kinds[coded("g")].filter_subject, kinds[coded("g")].opt_start_seq) == ("t.messages.a.*", None)
        assert (kinds[coded("h")].filter_subject, kinds[coded("h")].opt_start_seq) == ("t.messages.>", 1)
        assert {each.ack_wait for each in kinds.values()} == {30.0} and {
            each.max_ack_pending for each in kinds.values()
        } == {-1}
        bus.publish("a.b", ["1", "2", "3"])
        leases = server.consumers["t_messages", coded("g")].leases
        now = time.monotonic()
        assert [each.message.payload for each in bus.fetch("g", 2, lease_s=600)] == ["1", "2"]
        assert [each.message.payload for each in other.fetch("g", 2, lease_s=0)] == ["3"]
        left = {offset: until - now for offset, (until, _) in leases.items()}
        assert 590 < left[1] < 660 and 590 < left[2] < 660 and 0.019 < left[3] < 30
        assert bus.acknowledge("g", [2, 2, 3]) == 1 and set(leases) == {1}, (
            "another connection's is acknowledged, not counted"
        )
        with pytest.raises(UnknownName, match="holds no message 1"):
            other.let_go("g", 1)
        del leases[1]  # the server gave it up
        assert bus.acknowledge("g", [1]) == 0 and bus.lag("g") == 0
        bus.unsubscribe("g")
        bus.unsubscribe("g")
        assert (("t_messages", coded("g")) in server.consumers) is False
        with pytest.raises(UnknownName, match=r"^no group 'g': subscribe it first$"):
            bus.lag("g")
        assert not [name for stream, name in server.consumers if stream != "t_messages"], "readers of streams are gone"


def test_what_other_programs_put_into_jetstream_stops_nobody(server: JetStream) -> None:
    with NatsMessaging("nats://here", name="t") as shared:
        shared.subscribe("g", "a", after=0)
        for data in (b"\xff", b"[" * 5000, b"{}", b'{"payload": 1, "sender": "", "at": 0.0}'):
            server.keep("t_messages", "t.messages.a", data)
        for data in (b"no JSON", b'{"key": "k"}'):
            server.keep("KV_t_board", "$KV.t_board.aw", data)
        server.keep("KV_t_groups", "$KV.t_groups.aw", b"[]")
        shared.publish("a", ["ours"])
        given = [each.message for each in shared.fetch("g")]
        assert [each.payload for each in given][::2] == ["\ufffd", "{}", "ours"]
        assert given[0] == BusMessage(1, "a", "\ufffd", "", 0.0)
        assert shared.read("k") is None and shared.entries() == [] == shared.history("k")
        assert shared.write("k", "1", writer="a").version == 1 and shared.changes()[0].value == "1"
        server.keep("KV_t_board", "$KV.t_board.aw", b"no JSON")
        assert shared.write("k", "2", writer="a", expected=1).version == 2


def test_a_history_that_ends_too_early_is_asked_for_again(server: JetStream, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked = Bucket.history, []

    async def early(bucket: Bucket, key: str) -> list[Any]:
        asked.append(key)
        return (await whole(bucket, key))[: None if len(asked) == 3 else 1]

    async def at_once(pause_s: float) -> None:
        pauses.append(pause_s)

    pauses: list[float] = []
    with NatsMessaging("nats://here", name="t") as shared:
        for number in range(3):
            shared.write("plan", str(number), writer="ann")
        monkeypatch.setattr(Bucket, "history", early)
        assert [each.version for each in shared.history("plan")] == [1, 2, 3] and len(asked) == 3
        monkeypatch.setattr("firsthand.messaging.nats_client.asyncio.sleep", at_once)
        with pytest.raises(StoreError, match=r"^the NATS server gives no whole history of 'plan': try again$"):
            shared.history("plan")
        assert pauses == [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]


def test_faults_of_nats_are_one_sentence_and_name_no_password(
    server: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NatsMessaging("nats://me:sec@ret@here:1", name="t") as shared:
        for error, said in (
            (TimeoutError(), "the NATS server at here:1 failed: TimeoutError"),
            (OSError("it is\ngone"), "the NATS server at here:1 failed: it is"),
            (ValueError("x" * 99), "the NATS server at here:1 holds a record that firsthand did not write"),
        ):

            async def fails(self: NatsClient, key: str, error: Exception = error) -> Any:
                raise error

            monkeypatch.setattr(NatsClient, "read", fails)
            with pytest.raises(StoreError) as told:
                shared.read("k")
            assert str(told.value).startswith(said) and "\n" not in str(told.value)
        assert str(told.value).endswith(f"({'x' * 80}): give another name")

    async def refused(url: str, **_: Any) -> Any:
        raise OSError("nobody is there")

    monkeypatch.setattr("firsthand.messaging.nats_client.connected", refused)
    before = threading.active_count()
    with pytest.raises(StoreError, match=r"^the NATS server at here:1 failed: nobody is there$"):
        NatsMessaging("nats://me:sec@ret@here:1")
    assert threading.active_count() <= before and nats_messaging.MAX_VERSIONS == 64


def test_names_and_records_of_nats_are_coded() -> None:
    assert coded("a.b c") == "YS5iIGM" and coded("ü>") == "w7w-" and coded("") == "="
    assert len(coded("x" * 120)) == 160 and "=" not in coded("x" * 120)
    long = [coded("x" * 121), coded("x" * 120 + "y")]
    assert long[0] != long[1] and {len(each) for each in long} == {90 + 1 + 64} and {each[90] for each in long} == {"="}
    assert packed({"a": "é"}) == '{"a": "é"}'.encode()
    with pytest.raises(UnicodeEncodeError):  # another text is never sent in its place
        packed({"a": "\ud800"})
    assert read_record(b'{"a": 1, "b": "x"}', a=int, b=str) == {"a": 1, "b": "x"}
    for data in (None, b"", b"[1]", b'{"a": true}', b'{"a": "1"}', b"{}", b"[" * 100_000):
        assert read_record(data, a=int) is None
    row = {"key": "k", "value": "v", "version": 2, "writer": "w", "at": 1.5}
    assert entry_of("$KV.b.aw", 9, packed({**row, "once": "n"})) == (BoardEntry("k", "v", 2, "w", 1.5, 9), "n")
    assert entry_of("$KV.b.aw", 9, packed(row)) == (BoardEntry("k", "v", 2, "w", 1.5, 9), None)
    for name in row:
        assert entry_of("$KV.b.aw", 9, packed({key: value for key, value in row.items() if key != name})) is None
    client = NatsClient("team", 1.0, 2, 3, 4)
    assert client._message(3, "team.messages.a.b", packed({"payload": "p", "sender": "s", "at": 2.5})) == BusMessage(
        3, "a.b", "p", "s", 2.5
    )
    assert client._ack_subject("g", 7) == "$JS.ACK.team_messages.Zw.1.7.1.0.0"
    assert asyncio.iscoroutinefunction(client.close)
