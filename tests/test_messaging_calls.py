"""Single calls of a store in Redis, of the tools of a board and of what opens a store, without a server."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, MissingExtra, StoreError, ToolError, UnknownName
from firsthand.loop.calling import CallBranch, CallPosition
from firsthand.messaging import open_messaging as opening
from firsthand.messaging.blackboard import BoardConflict, BoardEntry
from firsthand.messaging.board_tools import board_tools, shown
from firsthand.messaging.memory_board import MemoryBoard
from firsthand.messaging.message_bus import BusFull, BusMessage, DeadLetter, Delivery
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.redis_messaging import RedisMessaging, _entries, _entry, _fields, _message
from firsthand.messaging.redis_scripts import SCRIPTS, lua_pattern
from firsthand.messaging.sqlite_messaging import SqliteMessaging
from firsthand.messaging.tools.shared_board import shared_board

# -- Redis --

ROW = ["7-0", "key", "k", "value", "v", "version", "3", "writer", "ann", "at", "1.5"]
ENTRY = BoardEntry("k", "v", 3, "ann", 1.5, 7)
SAID = ["topic", "t.a", "payload", "x", "sender", "shop", "at", "2.5"]
MESSAGE = BusMessage(9, "t.a", "x", "shop", 2.5)


class Failed(Exception):
    """An error of the server's client."""


class Redis(RedisMessaging):
    """A store whose scripts answer with `reply` and keep what they were asked."""

    def __init__(self, reply: Any = None) -> None:
        self.max_lag, self.max_deliveries, self.kept_versions = 11, 4, 6
        self._failure, self._address, self._prefix = Failed, "here:1", "{team}:"
        self.reply, self.asked = reply, list[tuple[Any, ...]]()
        self._scripts: Any = {name: self._answering(name) for name in SCRIPTS}
        self._client = SimpleNamespace(xrange=self._xrange)

    def _answering(self, name: str) -> Any:
        def answer(*, keys: list[str], args: tuple[Any, ...]) -> Any:
            assert keys == ["{team}:"]
            self.asked.append((name, *args))
            return self.reply

        return answer

    def _xrange(self, *given: Any) -> Any:
        self.asked.append(given)
        return self.reply.pop(0)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 12.25)


def test_a_write_in_redis_is_told_with_its_name_its_expectation_and_its_bound() -> None:
    store = Redis(["written", ROW])
    assert store.write("k", "v\ud800", writer="w\ud800") == ENTRY
    assert store.write("k", "v", writer="w", expected=0, once="") == ENTRY
    assert store.write("k", "v", writer="w", expected=3, once="n\ud800") == ENTRY
    assert store.asked == [
        ("write", "k", "v\\ud800", "w\\ud800", "12.25", "", "", 6), ("write", "k", "v", "w", "12.25", 0, "=", 6),
        ("write", "k", "v", "w", "12.25", 3, "=n\\ud800", 6),
    ]  # fmt: skip
    for reply, expected, entry in ((["conflict", ROW], 4, ENTRY), (["conflict", None], 0, None)):
        with pytest.raises(BoardConflict) as told:
            Redis(reply).write("k", "v", writer="w", expected=expected)
        assert told.value.entry == entry and f"'k' was expected at version {expected}, and it is " in str(told.value)
    store = Redis()
    for key, value in (("", "v"), ("k", "v" * 1_000_001)):
        with pytest.raises(ConfigError):
            store.write(key, value, writer="w")
    assert store.read("r\ud800") is None and store.asked == [("read", "r\\ud800")]
    store = Redis([ROW, ["8-0", "key", "x"], [*ROW[:2], "z", *ROW[3:]]])
    both = [ENTRY, BoardEntry("z", "v", 3, "ann", 1.5, 7)]
    assert store.entries("p\ud800") == store.entries() == store.history("h\ud800") == both
    assert store.asked == [("entries", "p\\ud800"), ("entries", ""), ("history", "h\\ud800")]
    store = Redis([[("7-0", dict(zip(ROW[1::2], ROW[2::2], strict=True))), ("8-0", {"key": "x"})], []])
    assert store.changes() == [ENTRY] and store.changes(6, 5) == []
    assert store.asked == [("{team}:changes", "1-0", "+", 1000), ("{team}:changes", "7-0", "+", 5)]


def test_a_publication_in_redis_gives_the_offsets_that_it_is_told() -> None:
    store = Redis(["published", "5", "3"])
    assert store.publish("t", ["a\ud800", "b"], sender="s\ud800", once="o\ud800") == [5, 6, 7]
    assert store.publish("t", [], once="") == [5, 6, 7] and store.publish("t", ["x"]) == [5, 6, 7]
    assert store.asked == [
        ("publish", "t", "s\\ud800", "12.25", 11, "=o\\ud800", "a\\ud800", "b"), ("publish", "t", "", "12.25", 11, "="),
        ("publish", "t", "", "12.25", 11, "", "x"),
    ]  # fmt: skip
    assert Redis(["done", "9", "0"]).publish("t", ["a"], once="p") == []
    with pytest.raises(BusFull) as told:
        Redis(["full", "g", "12345"]).publish("t", ["a"])
    assert str(told.value) == (
        "t takes no more messages: the group 'g' is 12,345 behind, and 11 are allowed; let it read, or remove it"
    )
    store = Redis("")
    for topic, payloads in (("a b", ["x"]), ("t", ["x", "y" * 1_000_001])):
        with pytest.raises(ConfigError):
            store.publish(topic, payloads)
    assert store.asked == []


def test_a_group_in_redis_is_asked_for_by_its_name() -> None:
    store = Redis("")
    store.subscribe("g", "a.*.>", after=0)
    store.subscribe("g", "a")
    store.unsubscribe("g\ud800")
    assert store.asked == [
        ("subscribe", "g", "a.*.>", "^a%.[^.]+%..+$", 0), ("subscribe", "g", "a", "^a$", ""), ("unsubscribe", "g\\ud800"),
    ]  # fmt: skip
    with pytest.raises(ConfigError) as told:
        Redis("other").subscribe("g", "mine", after=5)
    assert str(told.value) == "the group 'g' subscribes to 'other': give another name for 'mine'"
    for group, pattern in (("a b", "t"), ("g", "a..b")):
        with pytest.raises(ConfigError):
            store.subscribe(group, pattern)
    store = Redis([["9-0", "2", SAID], ["10-0", "1", ["topic", "u"]]])
    given = [Delivery(MESSAGE, 2), Delivery(BusMessage(10, "u", "", "", 0.0), 1)]
    assert store.fetch("g\ud800", 3, lease_s=1.5) == given == store.fetch("g")
    assert store.asked == [("fetch", "g\\ud800", 3, 1.5, 4), ("fetch", "g", 100, 30.0, 4)]
    for limit in (0, -2):
        with pytest.raises(ConfigError, match=f"^limit is {limit}: give 1 or more$"):
            store.fetch("g", limit)
    store = Redis(2)
    assert store.acknowledge("g\ud800", [3, 5]) == 2 == store.acknowledge("g", []) and store.lag("l\ud800") == 2
    store.let_go("g\ud800", 7, "r" * 999 + "\ud800x")
    store.let_go("g", 8)
    assert store.asked == [
        ("acknowledge", "g\\ud800", 3, 5), ("acknowledge", "g"), ("lag", "l\\ud800"),
        ("let_go", "g\\ud800", 7, "r" * 999 + "\\ud800", 4), ("let_go", "g", 8, "it was let go of", 4),
    ]  # fmt: skip
    with pytest.raises(UnknownName, match=r"^the group 'g' holds no message 7$"):
        Redis(0).let_go("g", 7, "x")
    store = Redis([["9-0", "4", "why", SAID], ["12-0", "5", "", []]])
    assert store.dead_letters("g\ud800") == [
        DeadLetter(MESSAGE, "g\ud800", 4, "why"), DeadLetter(BusMessage(12, "", "", "", 0.0), "g\ud800", 5, ""),
    ]  # fmt: skip
    assert store.asked == [("dead_letters", "g\\ud800")]
    none = Redis("no group")
    for call in (none.lag, none.fetch, lambda group: none.acknowledge(group, [1]), lambda group: none.let_go(group, 1)):
        with pytest.raises(UnknownName) as unknown:
            call("n" * 81)
        assert str(unknown.value) == f"no group '{'n' * 80}': subscribe it first"


def test_a_replay_in_redis_goes_on_behind_the_last_message_of_a_full_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.messaging.redis_messaging._SCAN", 2)

    def page(*offsets: int) -> list[Any]:
        return [(f"{n}-0", {"topic": "a" if n % 2 else "b", "payload": f"{n}"}) for n in offsets]

    store = Redis([page(3, 4), page(5, 8), page(9)])
    assert [each.offset for each in store.replay("a", 2)] == [3, 5, 9]
    assert [each[1] for each in store.asked] == ["3-0", "5-0", "9-0"] and store.asked[0] == (
        "{team}:messages",
        "3-0",
        "+",
        2,
    )
    store = Redis([page(1, 2), page(3, 5), page(7, 9)])
    assert [each.offset for each in store.replay("a", limit=2)] == [1, 3] and len(store.asked) == 2
    assert Redis([[]]).replay(">") == [] and Redis([]).replay(">", 0, 0) == []
    with pytest.raises(ConfigError):
        Redis([]).replay("a..b")


def test_a_replay_in_redis_goes_on_behind_pages_without_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.messaging.redis_messaging._SCAN", 2)

    def page(*offsets: int) -> list[Any]:
        return [(f"{n}-0", {"topic": "a" if n % 2 else "b", "payload": f"{n}"}) for n in offsets]

    for pages, limit, found, asked in (
        ([page(2, 4), page(6, 8), page(9)], 1000, [9], ["1-0", "5-0", "9-0"]),
        ([page(2, 4), page(6, 9), []], 2, [9], ["1-0", "5-0", "10-0"]),
        ([page(2, 4), page(7, 9)], 2, [7, 9], ["1-0", "5-0"]), ([page(2)], 5, [], ["1-0"]),
        ([page(2, 4), page(7, 9)], 1, [7], ["1-0", "5-0"]), ([page(1, 3), []], 3, [1, 3], ["1-0", "4-0"]),
    ):  # fmt: skip
        store = Redis(pages)
        assert [each.offset for each in store.replay("a", limit=limit)] == found  # type: ignore[arg-type]
        assert [each[1] for each in store.asked] == asked


def test_a_replay_in_redis_gives_the_topics_that_match_as_a_whole() -> None:
    topics = ("a", "ab", "a.b", "b.a", "a.b.c", "xa", "A")
    page = [(f"{place}-0", {"topic": topic, "payload": ""}) for place, topic in enumerate(topics, 1)]
    for pattern, found in (
        ("a", ["a"]), ("a.*", ["a.b"]), ("a.>", ["a.b", "a.b.c"]), ("*", ["a", "ab", "xa", "A"]), ("*.a", ["b.a"]),
        (">", [*topics]), ("a.b", ["a.b"]), ("c", []),
    ):  # fmt: skip
        assert [each.topic for each in Redis([page]).replay(pattern)] == found, pattern


def test_rows_of_redis_are_pairs_and_a_failure_is_one_sentence() -> None:
    assert _fields(["a", "1", "b", "2", "a", "3"]) == {"a": "3", "b": "2"} and _fields([]) == {}
    with pytest.raises(ValueError, match="zip"):
        _fields(["a", "1", "b"])
    assert _entry(["12-3", *ROW[1:]]) == BoardEntry("k", "v", 3, "ann", 1.5, 12) and _entries([ROW, ROW[:5]]) == [ENTRY]
    for at in range(1, len(ROW), 2):
        assert _entry([*ROW[:at], *ROW[at + 2 :]]) is None, ROW[at]
    assert _message("9-5", SAID) == MESSAGE and _message("9-5", SAID[:6]) == BusMessage(9, "t.a", "x", "shop", 0.0)
    assert _message("3-0", ["at", "soon"]) == BusMessage(3, "", "", "", 0.0)
    store = Redis()

    def fails(*given: Any, **named: Any) -> Any:
        assert (given, named) in (((1, 2), {"x": 3}), ((), {"keys": ["{team}:"], "args": ("g",)}))
        raise Failed("it is\nbroken\t!")

    with pytest.raises(StoreError) as told:
        store._ask(fails, 1, 2, x=3)
    assert str(told.value).startswith("the Redis server at here:1 failed: it is") and "\n" not in str(told.value)
    store._scripts = {"lag": fails}
    with pytest.raises(StoreError, match=r"^the Redis server at here:1 failed: "):
        store.lag("g")
    assert Redis(0)._of("g", "lag", read=str) == "0" and Redis("")._of("g", "lag", read=str) == ""
    assert [lua_pattern(each) for each in ("a", "a-b.*", "*.x_1", "a.>", ">", "é.b")] == [
        "^a$", "^a%-b%.[^.]+$", "^[^.]+%.x_1$", "^a%..+$", "^.+$", "^é%.b$",
    ]  # fmt: skip


def test_a_server_of_redis_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as told:
        RedisMessaging("other://me:sec@ret@here:1/0")
    assert str(told.value).startswith("'here:1/0' is no address of a Redis server: ") and not re.search(
        "sec|ret@", str(told.value)
    )
    with pytest.raises(StoreError) as down:
        RedisMessaging("redis://me:sec@ret@127.0.0.1:1/0", timeout_s=2.0)
    assert str(down.value).startswith("the Redis server at 127.0.0.1:1/0 failed: ") and not re.search(
        "sec|ret@", str(down.value)
    )
    for name in ("max_lag", "max_deliveries", "kept_versions"):
        with pytest.raises(ConfigError, match=f"^{name} is 0: give 1 or more$"):
            RedisMessaging("redis://127.0.0.1:1/0", **{name: 0})  # type: ignore[arg-type]
    for package, store, extra, purpose in (
        ("redis", RedisMessaging, "redis", "shared state in Redis"), ("nats", NatsMessaging, "nats", "shared state in NATS"),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtra) as missing:
            store("redis://here")
        names = {"redis": "redis", "nats": "nats-py"}
        assert str(missing.value) == f"{purpose} needs the package {names[package]!r}: pip install 'firsthand[{extra}]'"


def test_an_address_opens_the_store_of_its_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RedisMessaging", "NatsMessaging"):
        monkeypatch.setattr(opening, name, lambda address, name=name: (name, address))
    for address, kind in (("redis://a", "Redis"), ("rediss://a", "Redis"), ("nats://a:1", "Nats"), ("tls://a", "Nats")):
        assert opening.open_messaging(address) == (f"{kind}Messaging", address)
    for scheme in ("http", "", "REDIS"):
        with pytest.raises(
            ConfigError, match=f"^{scheme}:// is no store of messages: give a file, redis://HOST:PORT/0 or nats"
        ):
            opening.open_messaging(f"{scheme}://a")
    for place in ("m.db", "nats:a", "redis"):
        with opening.open_messaging(str(tmp_path / place)) as made:  # type: ignore[union-attr]
            assert isinstance(made, SqliteMessaging) and (tmp_path / place).is_file()


# -- the tools of a board --


def test_an_agent_writes_a_board_in_its_name_and_against_the_version_it_has_seen() -> None:
    board = MemoryBoard(clock=lambda: 5.0)
    read, listed, write = board_tools(board)
    assert [(each.name, each.effect, each.origin, each.declares) for each in (read, listed, write)] == [
        ("board_read", "read", "the blackboard", Declaration()), ("board_list", "read", "the blackboard", Declaration()),
        ("board_write", "write", "the blackboard", Declaration()),
    ]  # fmt: skip
    assert [each.spec.description for each in (read, listed, write)] == [
        "Read an entry of the shared board.", "List the entries of the shared board: keys, versions and writers.",
        "Write an entry of the shared board.",
    ]  # fmt: skip
    needed = [
        (sorted(each.spec.parameters["properties"]), each.spec.parameters.get("required"))
        for each in (read, listed, write)
    ]
    assert needed == [
        (["key"], ["key"]),
        (["prefix"], None),
        (["key", "value", "version"], ["key", "value", "version"]),
    ]
    assert listed.function() == "The board is empty." and read.function("k" * 81) == f"There is no entry {'k' * 80!r}."
    assert write.function("b", "by nobody", 0) == "b is at version 1."
    agent = SimpleNamespace(attempt=SimpleNamespace(agent=SimpleNamespace(name="ann"), task=None, calls=[]))
    position = CallPosition(agent, "0", CallBranch.__new__(CallBranch), None)
    with position.active():
        assert (
            write.function("b", "by ann", 1) == "b is at version 2."
            and write.function("a", "x", 0) == "a is at version 1."
        )
        assert write.function("b", "late", 1) == (
            "Nothing was written: 'b' was expected at version 1, and it is at version 2, written by 'ann': read it, then "
            "write again\nb, version 2, written by ann:\nby ann"
        )
        assert write.function("c", "none", 2) == (
            "Nothing was written: 'c' was expected at version 2, and it is not there: read it, then write again"
        )
    assert board.changes() == [
        BoardEntry("b", "by nobody", 1, "somebody", 5.0, 1), BoardEntry("b", "by ann", 2, "ann", 5.0, 2),
        BoardEntry("a", "x", 1, "ann", 5.0, 3),
    ]  # fmt: skip
    assert (
        read.function("b") == "b, version 2, written by ann:\nby ann" and read.function("c") == "There is no entry 'c'."
    )
    assert listed.function() == listed.function("") == "a (version 1, by ann)\nb (version 2, by ann)"
    assert listed.function("b") == "b (version 2, by ann)" and listed.function("x") == "The board is empty."
    with pytest.raises(ConfigError, match="the key is ''"):
        write.function("", "v", 0)
    for number in range(98):
        board.write(f"n{number:02}", "v", writer="bob")
    lines = listed.function().splitlines()
    assert len(lines) == 100 and lines[-1] == "n97 (version 1, by bob)"
    for number in (98, 99, 100):
        board.write(f"n{number}", "v", writer="bob")
    lines = listed.function().splitlines()
    assert (
        len(lines) == 101
        and lines[0] == "a (version 1, by ann)"
        and lines[-1] == "and 3 more"
        and len(listed.function("n9").splitlines()) == 10
    )
    entry = BoardEntry("k", "é" * 8001, 1, "w", 0.0, 1)
    assert shown(entry) == f"k, version 1, written by w:\n{'é' * 8000} … (1 more characters)"
    assert shown(BoardEntry("k", "", 12, "w", 0.0, 1)) == "k, version 12, written by w:\n"


def test_a_shared_board_is_the_one_at_its_address(tmp_path: Path) -> None:
    read, _, write = shared_board(str(tmp_path / "b.db"))
    assert asyncio.run(write({"key": "k", "value": "v", "version": 0})) == "k is at version 1."
    again, _, _ = shared_board(str(tmp_path / "b.db"))
    assert (
        asyncio.run(again({"key": "k"})) == "k, version 1, written by somebody:\nv" == asyncio.run(read({"key": "k"}))
    )
    with pytest.raises(ToolError, match="version"):
        asyncio.run(write({"key": "k", "value": "v"}))
    with pytest.raises(ConfigError):
        shared_board("http://x")
