"""Stores of messages at their ends: groups that leave, letters that die, limits of replays, and rows of other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.messaging.blackboard import BoardEntry
from firsthand.messaging.memory_board import MemoryBoard
from firsthand.messaging.message_bus import BusMessage
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.open_messaging import open_messaging
from firsthand.messaging.redis_messaging import _entries, _entry, _message
from firsthand.messaging.sqlite_messaging import SqliteMessaging
from jetstream_in_memory import JetStream, connecting


@pytest.fixture(params=["sqlite", "nats in memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("firsthand.messaging.nats_client.connected", connecting(JetStream(), []))
    made: list[Any] = []

    def open_store(**bounds: int) -> Any:
        sqlite = request.param == "sqlite"
        made.append(
            SqliteMessaging(tmp_path / "m.db", **bounds) if sqlite else NatsMessaging("nats://x", name="t", **bounds)
        )
        return made[-1]

    yield open_store
    for each in made:
        each.close()


def test_a_group_that_leaves_takes_its_letters_along_and_messages_stay(opened: Callable[..., Any]) -> None:
    bus = opened(max_deliveries=2)
    bus.subscribe("g", "a.*")
    bus.subscribe("h", ">", after=0)
    assert bus.publish("a.b", ["1", "2"], sender="s") == [1, 2] and bus.publish("c", ["3"]) == [3]
    assert (bus.lag("g"), bus.lag("h")) == (2, 3)
    first, second = bus.fetch("g", 5)
    assert [(each.message.offset, each.message.payload, each.message.sender, each.count) for each in (first, second)] == [
        (1, "1", "s", 1), (2, "2", "s", 1),
    ]  # fmt: skip
    assert bus.fetch("g") == [] and bus.acknowledge("g", [2, 2, 9]) == 1 and bus.acknowledge("g", [2]) == 0
    bus.let_go("g", 1, "first")
    (again,) = bus.fetch("g")
    assert (again.message.offset, again.count) == (1, 2) and bus.dead_letters("g") == []
    bus.let_go("g", 1)
    (letter,) = bus.dead_letters("g")
    assert (letter.message.payload, letter.group, letter.count, letter.reason) == ("1", "g", 2, "it was let go of")
    assert bus.fetch("g") == [] and bus.lag("g") == 0 and bus.dead_letters("h") == []
    with pytest.raises(UnknownName, match="the group 'g' holds no message 1"):
        bus.let_go("g", 1)
    bus.unsubscribe("g")
    assert bus.dead_letters("g") == []
    for call in (lambda: bus.lag("g"), lambda: bus.fetch("g"), lambda: bus.acknowledge("g", [1])):
        with pytest.raises(UnknownName, match="no group 'g': subscribe it first"):
            call()
    assert [each.payload for each in bus.replay(">")] == ["1", "2", "3"] and bus.lag("h") == 3
    places = ((">", 1), (">", 0, 2), ("a.*", 1), ("c", 0, 1), ("x",))
    assert [[each.offset for each in bus.replay(*given)] for given in places] == [
        [2, 3], [1, 2], [2], [3], [],
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="the group 'h' subscribes to '>': give another name for 'a'"):
        bus.subscribe("h", "a")
    with pytest.raises(ConfigError, match="limit is 0: give 1 or more"):
        bus.fetch("h", 0)
    assert [each.message.offset for each in bus.fetch("h", 2)] == [1, 2]
    bus.subscribe("h", ">")
    assert [each.message.offset for each in bus.fetch("h", 2)] == [3], "it keeps its place"
    bus.subscribe("h", ">", after=1)
    assert [(each.message.offset, each.count) for each in bus.fetch("h", 5)] == [(2, 1), (3, 1)]


def test_changes_entries_and_names_of_a_board(opened: Callable[..., Any]) -> None:
    board = opened()
    made = [
        board.write(key, value, writer="w") for key, value in (("b/2", "x"), ("a", "y"), ("b/1", "z"), ("b/2", "u"))
    ]
    assert [(each.key, each.version, each.sequence) for each in made] == [
        ("b/2", 1, 1),
        ("a", 1, 2),
        ("b/1", 1, 3),
        ("b/2", 2, 4),
    ]
    assert board.entries("b/") == [made[2], made[3]] and board.entries() == [made[1], made[2], made[3]]
    assert board.history("b/2") == [made[0], made[3]] and board.history("none") == [] and board.read("none") is None
    assert board.changes(2) == made[2:] and board.changes(0, 1) == made[:1] and board.changes(4) == []
    named = board.write("n", "1", writer="v", expected=0, once="N")
    assert board.write("other", "2", writer="x", expected=7, once="N") == named and board.read("other") is None
    for once in ("", "é b", "x" * 300):
        first = board.write("o", "1", writer="v", once=once)
        assert board.write("o", "2", writer="x", once=once) == first, "an empty name is a name too"
        sent = board.publish("t", ["1", "2"], once=once)
        assert board.publish("t", ["3"], once=once) == sent and len(sent) == 2
    assert [each.version for each in board.history("o")] == [1, 2, 3] and len(board.replay("t")) == 6


def test_rows_of_other_programs_are_no_entries_and_messages_with_what_they_have() -> None:
    row = ["7-0", "key", "k", "value", "v", "version", "2", "writer", "w", "at", "1.5"]
    assert _entry(row) == BoardEntry("k", "v", 2, "w", 1.5, 7) and _entry(None) is None and _entry([]) is None
    assert _entry(["7-0", "key", "k"]) is None and _entry([*row[:6], "x", *row[7:]]) is None
    assert _entries([row, ["8-0", "a", "b"]]) == [BoardEntry("k", "v", 2, "w", 1.5, 7)]
    whole = ["topic", "t", "payload", "p", "sender", "s", "at", "2.5"]
    assert _message("9-1", whole) == BusMessage(9, "t", "p", "s", 2.5)
    assert _message("9-0", ["topic", "t", "at", "x"]) == BusMessage(9, "t", "", "", 0.0)


def test_an_address_names_a_file_or_a_server_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        open_messaging("http://x")
    assert str(told.value) == ("http:// is no store of messages: give a file, redis://HOST:PORT/0 or nats://HOST:PORT")
    made = open_messaging(str(tmp_path / "m.db"))
    assert isinstance(made, SqliteMessaging) and (made.max_lag, made.max_deliveries, made.kept_versions) == (
        100_000,
        5,
        1000,
    )
    made.close()
    board = MemoryBoard(clock=lambda: 2.0)
    written = BoardEntry("k", "v", 1, "w", 2.0, 1)
    assert board.write("k", "v", writer="w") == written
    assert board.changes(0, 1) == board.changes(-1, 1) == [written] and board.changes(1, 1) == []
    with pytest.raises(ConfigError, match=r"^limit is 0: give 1 or more$"):
        board.changes(0, 0)


@pytest.mark.parametrize("lease_s", [float("nan"), float("inf")])
def test_a_lease_that_is_no_number_of_seconds_is_refused_and_gives_nothing_out(tmp_path: Path, lease_s: float) -> None:
    bus = SqliteMessaging(tmp_path / "m.db")
    bus.subscribe("g", ">")
    bus.publish("a", ["1"])
    with pytest.raises(ConfigError, match=f"lease_s is {lease_s}: give a number of seconds"):
        bus.fetch("g", lease_s=lease_s)
    assert len(bus.fetch("g")) == 1
