"""Entries, messages and letters of a store as whole records, in each store; names, addresses and tools of a board."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, UnknownName
from firsthand.message import ToolCall
from firsthand.messaging import sqlite_messaging
from firsthand.messaging.blackboard import BoardConflict, BoardEntry, check_entry, conflict
from firsthand.messaging.board_tools import MAX_LISTED, ORIGIN, SHOWN_CHARS, board_tools, shown
from firsthand.messaging.memory_board import MemoryBoard
from firsthand.messaging.message_bus import BusFull, BusMessage, DeadLetter, Delivery, check_bounds, check_payloads
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.open_messaging import open_messaging
from firsthand.messaging.redis_messaging import RedisMessaging
from firsthand.messaging.sqlite_messaging import SqliteMessaging
from firsthand.messaging.tools.shared_board import shared_board
from firsthand.messaging.topic_names import check_topic, topic_pattern
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.database import plain
from firsthand.task import Task
from jetstream_in_memory import JetStream, connecting
from messaging_servers import nats_address, nats_server, redis_address, redis_server  # noqa: F401

SERVERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "nats")]


@pytest.fixture(params=["sqlite", "nats in memory", *SERVERS])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the one store of the test."""
    name, made = f"t{uuid4().hex}", list[Any]()
    if request.param == "nats in memory":
        request.getfixturevalue("monkeypatch").setattr(
            "firsthand.messaging.nats_client.connected", connecting(JetStream(), [])
        )

    def open_store(**bounds: int) -> Any:
        if request.param == "sqlite":
            made.append(SqliteMessaging(tmp_path / "shared.db", **bounds))
        elif request.param == "redis":
            made.append(RedisMessaging(request.getfixturevalue("redis_address"), name=name, **bounds))
        else:
            address = "nats://here" if "memory" in request.param else request.getfixturevalue("nats_address")
            made.append(NatsMessaging(address, name=name, **bounds))
        return made[-1]

    yield open_store
    for each in made:
        each.close()


def timeless(records: Any) -> list[Any]:
    """The records with a time of 0, once it is seen to be of this minute."""
    found = []
    for each in records:
        inner = getattr(each, "message", each)
        assert abs(inner.at - time.time()) < 60
        found.append(replace(each, at=0.0) if inner is each else replace(each, message=replace(inner, at=0.0)))
    return found


def test_a_write_returns_the_entry_that_is_read_with_its_place(opened: Callable[..., Any]) -> None:
    board = opened()
    made = [
        board.write("b", "1", writer="ann"), board.write("a", "2", writer="bob", once="w"),
        board.write("b", "3", writer="cat", expected=1), board.write("b", "4", writer="dan", once="x"),
    ]  # fmt: skip
    places = [each.sequence for each in made]
    assert timeless(made) == [
        BoardEntry("b", "1", 1, "ann", 0.0, places[0]), BoardEntry("a", "2", 1, "bob", 0.0, places[1]),
        BoardEntry("b", "3", 2, "cat", 0.0, places[2]), BoardEntry("b", "4", 3, "dan", 0.0, places[3]),
    ]  # fmt: skip
    assert places == sorted(set(places)) and places[0] == 1
    assert list(board.changes()) == made and list(board.changes(places[1])) == made[2:]
    assert list(board.changes(places[0], 2)) == made[1:3] and list(board.changes(places[3])) == []
    assert board.read("b") == made[3] and list(board.history("b")) == [made[0], made[2], made[3]]
    assert list(board.entries()) == [made[1], made[3]] and list(board.entries("b")) == [made[3]]
    assert board.write("b", "9", writer="eve", expected=7, once="w") == made[1], (
        "the first entry of the name, of another key"
    )
    assert board.write("b", "9", writer="eve", once="x") == made[3] and len(board.history("b")) == 3
    with pytest.raises(BoardConflict) as told:
        board.write("b", "9", writer="eve", expected=2)
    assert told.value.entry == made[3] and str(told.value) == (
        "'b' was expected at version 2, and it is at version 3, written by 'dan': read it, then write again"
    )
    assert opened().read("b") == made[3]


def test_a_history_keeps_the_last_versions_and_the_named_ones(tmp_path: Path) -> None:
    with SqliteMessaging(tmp_path / "b.db", kept_versions=2) as board:
        first = board.write("k", "0", writer="w", once="name")
        board.write("other", "x", writer="w")
        for number in range(1, 4):
            board.write("k", str(number), writer="w")
        assert [each.version for each in board.history("k")] == [1, 3, 4] and len(board.history("other")) == 1
        assert board.write("k", "again", writer="w", once="name") == first
        board.write("k", "4", writer="w")
        assert [each.version for each in board.history("k")] == [1, 4, 5]


def test_messages_and_deliveries_are_whole_records(opened: Callable[..., Any]) -> None:
    bus = opened(max_deliveries=2)
    assert bus.publish("old.one", ["before"]) == [1]
    bus.subscribe("g", "jobs.*")
    bus.subscribe("late", ">", after=1)
    assert bus.publish("jobs.a", ["x", "y"], sender="shop", once="p") == [2, 3]
    assert bus.publish("jobs.b.c", ["z"]) == [4] and bus.publish("other", [], once="none") == []
    assert bus.publish("elsewhere", ["other"], once="p") == [2, 3], "a name is of a publication, whatever its topic"
    x, y = BusMessage(2, "jobs.a", "x", "shop", 0.0), BusMessage(3, "jobs.a", "y", "shop", 0.0)
    z = BusMessage(4, "jobs.b.c", "z", "", 0.0)
    assert timeless(bus.replay(">", after=1)) == [x, y, z] and timeless(bus.replay("jobs.*", limit=1)) == [x]
    assert timeless(bus.replay("jobs.>", after=2)) == [y, z] and list(bus.replay(">", after=4)) == []
    assert (bus.lag("g"), bus.lag("late")) == (2, 3)
    assert timeless(bus.fetch("g", 1)) == [Delivery(x, 1)] and timeless(bus.fetch("g")) == [Delivery(y, 1)]
    assert bus.lag("g") == 2 and bus.acknowledge("g", [3, 3, 4]) == 1 and bus.lag("g") == 1
    bus.let_go("g", 2, "later")
    for _ in range(300):
        if given := list(bus.fetch("g")):
            break
        time.sleep(0.02)
    assert timeless(given) == [Delivery(x, 2)] and list(bus.dead_letters("g")) == []
    bus.let_go("g", 2)
    assert timeless(bus.dead_letters("g")) == [DeadLetter(x, "g", 2, "it was let go of")]
    assert list(bus.dead_letters("late")) == [] and bus.lag("g") == 0
    with pytest.raises(UnknownName, match=r"^the group 'g' holds no message 2$"):
        bus.let_go("g", 2)
    with pytest.raises(ConfigError, match=r"^limit is 0: give 1 or more$"):
        bus.fetch("g", 0)
    with pytest.raises(ConfigError, match=r"^the group 'g' subscribes to 'jobs\.\*': give another name for '>'$"):
        bus.subscribe("g", ">")
    for ask in (bus.fetch, bus.lag, lambda group: bus.acknowledge(group, [1]), lambda group: bus.let_go(group, 1)):
        with pytest.raises(UnknownName, match=f"^no group '{'n' * 80}': subscribe it first$"):
            ask("n" * 90)


def test_a_group_that_is_moved_back_gets_again_what_lies_behind_the_offset(opened: Callable[..., Any]) -> None:
    bus = opened(max_deliveries=1)
    bus.subscribe("g", "t")
    bus.subscribe("other", "t")
    bus.publish("t", list("abcd"))
    bus.fetch("g")
    bus.fetch("other")
    for offset in (1, 2, 3):
        bus.let_go("g", offset, f"why {offset}")
    bus.let_go("other", 3, "theirs")
    assert [(each.message.offset, each.reason) for each in bus.dead_letters("g")] == [
        (1, "why 1"),
        (2, "why 2"),
        (3, "why 3"),
    ]
    bus.subscribe("g", "t", after=2)  # the letter at the very offset stays
    assert [each.message.offset for each in bus.dead_letters("g")] == [1, 2] and bus.lag("g") == 2
    assert [each.message.payload for each in bus.fetch("g")] == ["c", "d"]
    assert [each.reason for each in bus.dead_letters("other")] == ["theirs"]
    bus.subscribe("g", "t", after=4)
    assert list(bus.fetch("g")) == [] and bus.lag("g") == 0
    bus.unsubscribe("g")
    bus.subscribe("g", "new.>")
    assert list(bus.dead_letters("g")) == [] and len(bus.dead_letters("other")) == 1 and bus.lag("g") == 0


def test_a_group_at_its_bound_takes_a_message_and_one_over_it_none(opened: Callable[..., Any]) -> None:
    bus = opened(max_lag=3)
    bus.subscribe("g", "t.*")
    bus.subscribe("fast", "u")
    bus.publish("t.a", ["1"])
    bus.publish("t.a", ["2", "3"])
    with pytest.raises(BusFull) as told:
        bus.publish("t.b", ["4"], once="p")
    assert str(told.value) == (
        "t.b takes no more messages: the group 'g' is 3 behind, and 3 are allowed; let it read, or remove it"
    )
    assert bus.publish("u", ["5", "6", "7"]) == [4, 5, 6]
    bus.fetch("g", 2)
    with pytest.raises(BusFull, match="'g' is 3 behind"):
        bus.publish("t.b", ["4"])
    bus.acknowledge("g", [2])
    with pytest.raises(BusFull, match="'g' is 2 behind"):
        bus.publish("t.b", ["4", "5"])
    assert bus.publish("t.b", ["4"], once="p") == [7]


def test_an_expired_lease_is_given_first_and_the_limit_counts_both(tmp_path: Path) -> None:
    with SqliteMessaging(tmp_path / "b.db", max_deliveries=2) as bus:
        bus.subscribe("g", "t")
        bus.publish("t", list("abcd"))
        assert [each.message.payload for each in bus.fetch("g", 2, lease_s=-1)] == ["a", "b"]
        assert [(each.message.payload, each.count) for each in bus.fetch("g", 3, lease_s=-1)] == [
            ("a", 2),
            ("b", 2),
            ("c", 1),
        ]
        given = [(each.message.payload, each.count) for each in bus.fetch("g", 9, lease_s=60)]
        assert given == [("c", 2), ("d", 1)] and bus.fetch("g") == []
        assert [(each.message.payload, each.count, each.reason) for each in bus.dead_letters("g")] == [
            ("a", 2, "it was not acknowledged in time"), ("b", 2, "it was not acknowledged in time"),
        ]  # fmt: skip
        bus.let_go("g", 3, "r" * 1001)
        assert bus.dead_letters("g")[2].reason == "r" * 1000 and bus.lag("g") == 1


def test_a_scan_goes_on_past_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_messaging, "_SCAN", 3)
    with SqliteMessaging(tmp_path / "b.db") as bus:
        bus.subscribe("g", "rare")
        for place in range(12):
            bus.publish("rare" if place in (2, 5, 6, 11) else "common", [str(place)])
        assert [each.payload for each in bus.replay("rare")] == ["2", "5", "6", "11"]
        assert [each.payload for each in bus.replay("rare", after=6, limit=1)] == ["6"]
        assert [each.message.payload for each in bus.fetch("g", 2)] == ["2", "5"] and bus.lag("g") == 4
        assert [each.message.payload for each in bus.fetch("g", 2)] == ["6", "11"]
        bus.publish("rare", ["last"])
        assert [each.message.payload for each in bus.fetch("g", 5)] == ["last"]


def test_a_path_is_a_file_with_the_bounds_of_the_docs(tmp_path: Path) -> None:
    with open_messaging(str(tmp_path / "b.db")) as bus:
        assert isinstance(bus, SqliteMessaging)
        assert (bus.max_lag, bus.max_deliveries, bus.kept_versions) == (100_000, 5, 1000)
        bus.write("k", "v", writer="w")
    with pytest.raises(ConfigError) as told:
        open_messaging("http://x")
    assert str(told.value) == "http:// is no store of messages: give a file, redis://HOST:PORT/0 or nats://HOST:PORT"


# -- without a store --


def test_a_board_in_memory_keeps_each_version_and_name() -> None:
    times = iter((1.0, 2.0, 3.0, 4.0))
    board = MemoryBoard(clock=lambda: next(times))
    first = board.write("b", "1", writer="ann", expected=0, once="w")
    assert first == BoardEntry("b", "1", 1, "ann", 1.0, 1)
    assert board.write("a", "9", writer="bob", expected=7, once="w") == first
    second, third = board.write("a", "2", writer="bob"), board.write("b", "3", writer="cat", expected=1)
    assert (second, third) == (BoardEntry("a", "2", 1, "bob", 2.0, 2), BoardEntry("b", "3", 2, "cat", 3.0, 3))
    assert board.read("b") == third and board.read("c") is None and board.history("b") == [first, third]
    assert board.entries() == [second, third] and board.entries("b") == [third] and board.history("c") == []
    assert board.changes(1) == [second, third] and board.changes(1, 1) == [second] and board.changes(3) == []
    listed = MemoryBoard(clock=lambda: 1.0)
    for key in ("b", "ab", "a", "A", "a%", "bar", "a_x", "ab"):
        listed.write(key, f"of {key}", writer="w")
    assert [(each.key, each.version) for each in listed.entries()] == [
        ("A", 1), ("a", 1), ("a%", 1), ("a_x", 1), ("ab", 2), ("b", 1), ("bar", 1),
    ]  # fmt: skip
    assert [[each.key for each in listed.entries(prefix)] for prefix in ("a", "a%", "ab", "b", "ar", "A", "abc")] == [
        ["a", "a%", "a_x", "ab"], ["a%"], ["ab"], ["b", "bar"], [], ["A"], [],
    ]  # fmt: skip
    for expected, there in ((1, None), (0, third)):
        with pytest.raises(BoardConflict) as told:
            board.write("b" if there else "c", "x", writer="dan", expected=expected)
        assert told.value.entry == there
    assert abs(MemoryBoard().write("k", "v", writer="w").at - time.time()) < 60


def test_keys_values_payloads_and_bounds_have_limits() -> None:
    check_entry("k" * 200, "v" * 1_000_000)
    for key in ("", "k" * 201, "a\nb"):
        with pytest.raises(ConfigError) as told:
            check_entry(key, "v")
        assert str(told.value) == f"the key is {key[:60]!r}: 1 to 200 printable characters are expected"
    with pytest.raises(ConfigError) as told:
        check_entry("k", "v" * 1_000_001)
    assert str(told.value) == "the value of 'k' has 1,000,001 characters: at most 1,000,000 are kept"
    check_payloads(["", "x" * 1_000_000])
    with pytest.raises(ConfigError) as told:
        check_payloads(["a", "x" * 1_000_001])
    assert str(told.value) == "a message has 1,000,001 characters: at most 1,000,000 are kept"
    check_bounds(a=1, b=2)
    with pytest.raises(ConfigError, match=r"^b is 0: give 1 or more$"):
        check_bounds(a=1, b=0)
    assert str(conflict("k", 2, None)) == (
        "'k' was expected at version 2, and it is not there: read it, then write again"
    )


def test_topics_and_patterns_are_words_with_dots() -> None:
    for topic in ("a", "a-b.c_1.Ü", "x" * 200):
        assert check_topic(topic) == topic
    for topic in ("x" * 201, "", "a.", "a.*"):
        with pytest.raises(ConfigError) as told:
            check_topic(topic)
        assert str(told.value) == (
            f"the topic is {topic[:60]!r}: words of letters, digits, _ and - with dots between are expected"
        )
    for pattern, fits, misses in (
        ("a.*", ("a.b", "a.b-c"), ("a", "a.", "a.b.c", "b.a")), ("a.>", ("a.b", "a.b.c"), ("a", "b.a")),
        (">", ("a", "a.b"), ("", "a.")), ("*.b", ("a.b",), ("b", "a.c")), ("a.b", ("a.b",), ("axb", "a.b.c")),
        ("*.>", ("a.b", "a.b.c"), ("a",)),
    ):  # fmt: skip
        found = topic_pattern(pattern)
        assert all(found.fullmatch(each) for each in fits) and not any(found.fullmatch(each) for each in misses), (
            pattern
        )
    assert topic_pattern("x" * 200).fullmatch("x" * 200)
    for pattern in (">.a", "x" * 201, "a..b", ""):
        with pytest.raises(ConfigError) as told:
            topic_pattern(pattern)
        assert str(told.value) == (
            f"the pattern of topics is {pattern[:60]!r}: words with dots between are expected, * for one word, > at the end "
            "for all further ones"
        )


# -- tools --


def test_a_board_s_tools_say_versions_writers_and_what_is_left_out(tmp_path: Path) -> None:
    board = MemoryBoard(clock=lambda: 0.0)
    read, listed, write = board_tools(board)
    assert [(each.name, each.effect) for each in (read, listed, write)] == [
        ("board_read", "read"), ("board_list", "read"), ("board_write", "write"),
    ]  # fmt: skip
    assert [each.name for each in shared_board(str(tmp_path / "b.db"))] == ["board_read", "board_list", "board_write"]

    async def act(task: Task, ctx: Any) -> str:
        said = [(await ctx.call(ToolCall("c", name, given))).content for name, given in task.metadata["calls"]]
        assert all(each.startswith(f'<untrusted from="{ORIGIN}">') for each in said)
        return "\n--\n".join("\n".join(each.splitlines()[1:-1]) for each in said)

    def attempt(*calls: tuple[str, dict[str, object]]) -> list[str]:
        agent = Agent("ann", Scripted([]), act, tools=(read, listed, write))
        return str(asyncio.run(rollout(agent, Task("t", "?", metadata={"calls": calls}))).answer).split("\n--\n")

    assert attempt(
        ("board_list", {}), ("board_read", {"key": "k" * 90}),
        ("board_write", {"key": "plan", "value": "one", "version": 0}),
        ("board_write", {"key": "plan", "value": "two", "version": 1}), ("board_list", {}), ("board_list", {"prefix": "x"}),
        ("board_write", {"key": "plan", "value": "no", "version": 0}), ("board_read", {"key": "plan"}),
        ("board_write", {"key": "new", "value": "no", "version": 3}),
    ) == [
        "The board is empty.", f"There is no entry {'k' * 80!r}.", "plan is at version 1.", "plan is at version 2.",
        "plan (version 2, by ann)", "The board is empty.",
        "Nothing was written: 'plan' was expected at version 0, and it is at version 2, written by 'ann': read it, then "
        "write again\nplan, version 2, written by ann:\ntwo", "plan, version 2, written by ann:\ntwo",
        "Nothing was written: 'new' was expected at version 3, and it is not there: read it, then write again",
    ]  # fmt: skip
    for place in range(MAX_LISTED - 1):
        board.write(f"q{place:03}", "v", writer="bob")
    assert len(attempt(("board_list", {}))[0].splitlines()) == MAX_LISTED == 100
    board.write("z", "v", writer="bob")
    assert attempt(("board_list", {}))[0].splitlines()[-2:] == ["q098 (version 1, by bob)", "and 1 more"]
    whole = BoardEntry("k", "v" * SHOWN_CHARS, 3, "bob", 0.0, 9)
    assert shown(whole) == f"k, version 3, written by bob:\n{'v' * 8000}"
    assert (
        shown(replace(whole, value="v" * 9234))
        == f"k, version 3, written by bob:\n{'v' * 8000} … (1,234 more characters)"
    )


def test_lone_surrogates_in_names_are_found_again_by_every_call(tmp_path: Path) -> None:
    with SqliteMessaging(tmp_path / "b.db", kept_versions=2, max_deliveries=1) as shared:
        odd = "k\ud800"
        first = shared.write("k\\ud800", "v\udfff", writer="w\ud800", once="o\ud800")
        assert shared.write("k\\ud800", "other", writer="x", once="o\ud800") == first
        second = shared.write("k\\ud800", "2", writer="w")
        assert second.version == 2
        for version in (3, 4):
            assert shared.write("k\\ud800", str(version), writer="w").version == version
        assert [each.version for each in shared.history("k\\ud800")] == [1, 3, 4], "a named one stays"
        assert plain(odd) == "k\\ud800", "as a column holds it"
        latest = shared.read(odd)
        assert latest is not None and latest.version == 4 and shared.entries(odd) == [latest]
        assert [each.version for each in shared.history(odd)] == [1, 3, 4]
        offsets = shared.publish("t", ["p\ud800", "q"], sender="s\ud800", once="n\ud800")
        assert shared.publish("t", ["p"], once="n\ud800") == offsets == [1, 2]
        with pytest.raises(UnknownName, match="subscribe it first"):
            shared.lag("g\ud800")
        shared.subscribe("g", "t", after=0)
        held = shared.fetch("g", 1)
        assert [each.message.payload for each in held] == [plain("p\ud800")] and held[0].message.sender == plain(
            "s\ud800"
        )
        shared.let_go("g", 1, "why\ud800" + "x" * 2000)
        (dead,) = shared.dead_letters("g")
        assert (dead.reason, dead.count, dead.group) == (plain(("why\ud800" + "x" * 2000)[:1000]), 1, "g")
