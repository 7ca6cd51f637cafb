"""The rows that a file of messages holds after each call, and the moment at which a lease is over, by a clock."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.messaging import sqlite_messaging
from firsthand.messaging.blackboard import BoardConflict, BoardEntry
from firsthand.messaging.message_bus import BusFull, BusMessage, DeadLetter, Delivery
from firsthand.messaging.sqlite_messaging import SCHEMA, SqliteMessaging

COLUMNS = {
    "entries": "seq, key, version, value, writer, at, once",
    "messages": "seq, topic, payload, sender, at",
    "publications": "once, first, count",
    "groups": "name, pattern, after",
    "deliveries": "grp, seq, until, count",
    "dead": "grp, seq, count, reason",
}


class Clock:
    """The time of the test."""

    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "time", lambda: made.now)
    return made


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteMessaging]:
    with SqliteMessaging(tmp_path / "m.db", max_lag=4, max_deliveries=2, kept_versions=3) as made:
        yield made


def rows(store: SqliteMessaging, table: str) -> list[tuple[Any, ...]]:
    """All rows of a table, as another program reads them."""
    with sqlite3.connect(store._database.path) as connection:
        found = connection.execute(f"SELECT {COLUMNS[table]} FROM {table} ORDER BY 1, 2").fetchall()
    connection.close()
    return found


def test_each_write_is_a_row_and_old_ones_go_unless_they_have_a_name(store: SqliteMessaging, clock: Clock) -> None:
    made = []
    for place, (key, value, writer, more) in enumerate((
        ("k", "1", "ann", {"once": "first"}), ("other", "2", "bob", {"expected": 0}), ("k", "3", "cat", {"expected": 1}),
        ("k", "4", "dan", {}), ("k", "5", "eve", {"expected": 3}), ("k", "6", "fay", {}),
    )):  # fmt: skip
        clock.now = 100.0 + place
        made.append(store.write(key, value, writer=writer, **more))  # type: ignore[arg-type]
    assert made == [
        BoardEntry("k", "1", 1, "ann", 100.0, 1), BoardEntry("other", "2", 1, "bob", 101.0, 2),
        BoardEntry("k", "3", 2, "cat", 102.0, 3), BoardEntry("k", "4", 3, "dan", 103.0, 4),
        BoardEntry("k", "5", 4, "eve", 104.0, 5), BoardEntry("k", "6", 5, "fay", 105.0, 6),
    ]  # fmt: skip
    assert rows(store, "entries") == [
        (1, "k", 1, "1", "ann", 100.0, "first"), (2, "other", 1, "2", "bob", 101.0, None),
        (4, "k", 3, "4", "dan", 103.0, None),
        (5, "k", 4, "5", "eve", 104.0, None), (6, "k", 5, "6", "fay", 105.0, None),
    ], "3 versions, and the named one"  # fmt: skip
    for number in (1, 2, 3):
        store.write("plain", f"{number}", writer="w")
    assert [each.version for each in store.history("plain")] == [1, 2, 3], "as many as are kept"
    store.write("plain", "4", writer="w")
    assert [each.version for each in store.history("plain")] == [2, 3, 4]
    with sqlite3.connect(store._database.path) as connection:
        connection.execute("DELETE FROM entries WHERE key = 'plain'")
        connection.execute("UPDATE sqlite_sequence SET seq = 6 WHERE name = 'entries'")
    connection.close()
    before = rows(store, "entries")
    assert store.write("other", "9", writer="x", expected=5, once="first") == made[0]
    for expected in (0, 4, 6):
        with pytest.raises(BoardConflict) as told:
            store.write("k", "7", writer="gus", expected=expected, once="lost")
        assert told.value.entry == made[5]
    with pytest.raises(BoardConflict) as told:
        store.write("new", "7", writer="gus", expected=1)
    assert told.value.entry is None and rows(store, "entries") == before
    assert store.write("k", "8", writer="gus", once="lost").version == 6, "a name of a write that failed is free"
    assert (store.read("k"), store.read("other")) == (BoardEntry("k", "8", 6, "gus", 105.0, 7), made[1])
    assert [each.sequence for each in store.history("k")] == [1, 5, 6, 7]
    assert [each.sequence for each in store.changes(2)] == [5, 6, 7] == [each.sequence for each in store.changes(4, 3)]
    assert [each.sequence for each in store.changes(limit=2)] == [1, 2] and store.changes(7) == []
    for bad in ({"key": ""}, {"value": "x" * 1_000_001}):
        with pytest.raises(ConfigError):
            store.write(**{"key": "k", "value": "v", "writer": "w", **bad})  # type: ignore[arg-type]


def test_the_latest_entry_of_each_key_that_begins_so_is_listed_by_key(store: SqliteMessaging) -> None:
    for key in ("b", "ab", "a", "A", "a%", "äb", "a_x", "ab"):
        store.write(key, f"of {key}", writer="w")
    assert [(each.key, each.version, each.value) for each in store.entries()] == [
        ("A", 1, "of A"), ("a", 1, "of a"), ("a%", 1, "of a%"), ("a_x", 1, "of a_x"), ("ab", 2, "of ab"), ("b", 1, "of b"),
        ("äb", 1, "of äb"),
    ]  # fmt: skip
    assert [[each.key for each in store.entries(prefix)] for prefix in ("a", "a%", "a_", "ä", "ab", "abc", "A", "b")] == [
        ["a", "a%", "a_x", "ab"], ["a%"], ["a_x"], ["äb"], ["ab"], [], ["A"], ["b"],
    ]  # fmt: skip


def test_a_publication_is_kept_whole_under_its_name_and_its_offsets_are_never_used_again(
    store: SqliteMessaging, clock: Clock
) -> None:
    for key in "abc":
        store.write(key, "", writer="w")  # whose sequence is another one
    assert store.publish("t.a", ["x", "y"], sender="ann", once="p") == [1, 2]
    clock.now = 200.5
    assert store.publish("t.b", ["z"]) == [3] and store.publish("t", [], once="none") == []
    assert rows(store, "messages") == [
        (1, "t.a", "x", "ann", 100.0), (2, "t.a", "y", "ann", 100.0), (3, "t.b", "z", "", 200.5),
    ]  # fmt: skip
    assert rows(store, "publications") == [("none", 4, 0), ("p", 1, 2)]
    assert store.publish("else", ["a", "b", "c"], once="p") == [1, 2] and store.publish("t", ["q"], once="none") == []
    with sqlite3.connect(store._database.path) as connection:
        connection.execute("DELETE FROM messages WHERE seq > 1")
    connection.close()
    assert store.publish("t.c", ["w"], once="q") == [4] and rows(store, "publications")[-1] == ("q", 4, 1)
    assert store.replay(">") == [BusMessage(1, "t.a", "x", "ann", 100.0), BusMessage(4, "t.c", "w", "", 200.5)]
    for topic, payloads in (("a b", ["x"]), ("t", ["x", "y" * 1_000_001])):
        with pytest.raises(ConfigError):
            store.publish(topic, payloads)
    assert len(rows(store, "messages")) == 2


def test_a_group_that_lags_holds_back_its_own_topics_alone_and_the_first_is_named(store: SqliteMessaging) -> None:
    store.subscribe("slow", "t.*", after=0)
    store.subscribe("all", ">", after=3)
    assert store.publish("u", ["1", "2", "3"]) == [1, 2, 3] and store.publish("t.a", ["4", "5"]) == [4, 5]
    assert (store.lag("slow"), store.lag("all")) == (2, 2)
    assert len(store.fetch("slow", 1)) == 1 and store.lag("slow") == 2, "what is held counts"
    assert store.publish("t.a", ["6", "7"]) == [6, 7], "just as many as are allowed"
    with pytest.raises(BusFull) as told:
        store.publish("t.b", ["8"])
    assert str(told.value) == (
        "t.b takes no more messages: the group 'slow' is 4 behind, and 4 are allowed; let it read, or remove it"
    )
    with pytest.raises(BusFull, match=r"^u takes no more messages: the group 'all' is 4 behind, and 4 are allowed"):
        store.publish("u", ["8"])
    store.unsubscribe("all")
    assert store.publish("u", ["8"] * 5) == [8, 9, 10, 11, 12], "no group wants it"
    store.acknowledge("slow", [4])
    with pytest.raises(BusFull, match="'slow' is 3 behind"):
        store.publish("t.b", ["x", "y"])
    assert store.publish("t.b", ["x"]) == [13] and len(rows(store, "messages")) == 13


def test_a_lease_is_over_at_its_moment_and_each_delivery_is_counted(store: SqliteMessaging, clock: Clock) -> None:
    store.subscribe("g", "t")
    store.subscribe("h", ">", after=1)
    store.publish("t", ["a", "b"])
    store.publish("u", ["c"])
    store.publish("t", ["d"])
    a, b, d = (BusMessage(n, "t", text, "", 100.0) for n, text in ((1, "a"), (2, "b"), (4, "d")))
    assert store.fetch("g", 1, lease_s=10) == [Delivery(a, 1)] and rows(store, "groups") == [
        ("g", "t", 1),
        ("h", ">", 1),
    ]
    clock.now = 105.0
    assert store.fetch("g", 1) == [Delivery(b, 1)] and rows(store, "deliveries") == [
        ("g", 1, 110.0, 1),
        ("g", 2, 135.0, 1),
    ]
    clock.now = 109.75
    assert store.fetch("g", 1, lease_s=0.5) == [Delivery(d, 1)] and rows(store, "groups")[0] == ("g", "t", 4)
    assert store.fetch("g") == []
    clock.now = 110.0
    assert store.fetch("g", lease_s=10) == [Delivery(a, 2)], "at the very moment"
    clock.now = 110.25
    assert store.fetch("g", 1, lease_s=50) == [Delivery(d, 2)]
    assert rows(store, "deliveries") == [("g", 1, 120.0, 2), ("g", 2, 135.0, 1), ("g", 4, 160.25, 2)]
    clock.now = 135.0
    store.publish("t", ["e"])
    e = BusMessage(5, "t", "e", "", 135.0)
    assert store.fetch("g", 2) == [Delivery(b, 2), Delivery(e, 1)], "one is dead, one is lost, one is new"
    assert rows(store, "dead") == [("g", 1, 2, "it was not acknowledged in time")]
    assert store.fetch("g", 5) == [] and rows(store, "groups")[0] == ("g", "t", 5)
    store.let_go("g", 2, "bad\udcff")
    store.let_go("g", 5, "again")
    assert rows(store, "dead") == [("g", 1, 2, "it was not acknowledged in time"), ("g", 2, 2, "bad\\udcff")]
    assert rows(store, "deliveries") == [("g", 4, 160.25, 2), ("g", 5, 0.0, 1)]
    assert store.dead_letters("g") == [
        DeadLetter(a, "g", 2, "it was not acknowledged in time"), DeadLetter(b, "g", 2, "bad\\udcff"),
    ]  # fmt: skip
    assert store.dead_letters("h") == [] and (store.lag("g"), store.lag("h")) == (2, 4)
    assert store.acknowledge("g", (offset for offset in (5, 4, 4, 1, 9))) == 2  # type: ignore[arg-type]
    assert rows(store, "deliveries") == [] and store.acknowledge("g", []) == 0
    for offset in (4, 1):
        with pytest.raises(UnknownName, match=f"^the group 'g' holds no message {offset}$"):
            store.let_go("g", offset)
    assert [each.message.offset for each in store.fetch("h", 3)] == [2, 3, 4]
    assert store.acknowledge("h", [2]) == 1 and rows(store, "deliveries") == [("h", 3, 165.0, 1), ("h", 4, 165.0, 1)]


def test_what_one_group_holds_is_its_own_and_a_limit_counts_the_leases_that_ran_out(
    store: SqliteMessaging, clock: Clock
) -> None:
    for group in ("g", "h"):
        store.subscribe(group, "t")
    store.publish("t", ["a", "b", "c", "d"])
    assert [len(store.fetch(group, lease_s=10)) for group in ("g", "h")] == [4, 4]
    store.let_go("g", 2)
    assert rows(store, "deliveries") == [
        *(("g", n, 0.0 if n == 2 else 110.0, 1) for n in (1, 2, 3, 4)), *(("h", n, 110.0, 1) for n in (1, 2, 3, 4)),
    ]  # fmt: skip
    assert store.fetch("h") == [] and [each.message.offset for each in store.fetch("g")] == [2]
    store.let_go("g", 2, "bad")
    assert store.acknowledge("g", [1]) == 1
    assert rows(store, "dead") == [("g", 2, 2, "bad")] and store.dead_letters("h") == []
    assert rows(store, "deliveries") == [
        ("g", 3, 110.0, 1), ("g", 4, 110.0, 1), *(("h", n, 110.0, 1) for n in (1, 2, 3, 4)),
    ]  # fmt: skip
    clock.now = 110.0
    given = [[(each.message.offset, each.count) for each in store.fetch("h", limit, lease_s=5)] for limit in (1, 2, 3)]
    assert given == [[(1, 2)], [(2, 2), (3, 2)], [(4, 2)]]
    assert rows(store, "deliveries") == [
        ("g", 3, 110.0, 1), ("g", 4, 110.0, 1), *(("h", n, 115.0, 2) for n in (1, 2, 3, 4)),
    ]  # fmt: skip
    clock.now = 115.0
    assert store.fetch("h", 3) == [] and [letter.message.offset for letter in store.dead_letters("h")] == [1, 2, 3]
    assert store.lag("h") == 1 and store.fetch("h", 1) == [] and len(store.dead_letters("h")) == 4
    assert [(each.message.offset, each.count) for each in store.fetch("g", 1)] == [(3, 2)]


def test_a_group_is_made_moved_and_removed_with_all_that_is_its_own(store: SqliteMessaging) -> None:
    store.publish("t", ["a", "b", "c"])
    store.subscribe("new", "t")
    store.subscribe("old", "t", after=1)
    store.subscribe("zero", "t", after=0)
    assert rows(store, "groups") == [("new", "t", 3), ("old", "t", 1), ("zero", "t", 0)]
    assert len(store.fetch("zero")) == 3 and len(store.fetch("old")) == 2
    for offset in (1, 2, 3):
        for _ in range(2):
            store.let_go("zero", offset, f"why {offset}")
            store.fetch("zero")
    assert rows(store, "dead") == [("zero", 1, 2, "why 1"), ("zero", 2, 2, "why 2"), ("zero", 3, 2, "why 3")]
    store.subscribe("zero", "t")
    assert rows(store, "groups")[-1] == ("zero", "t", 3), "it keeps its place"
    store.subscribe("zero", "t", after=2)
    assert rows(store, "groups") == [("new", "t", 3), ("old", "t", 3), ("zero", "t", 2)]
    assert rows(store, "dead") == [("zero", 1, 2, "why 1"), ("zero", 2, 2, "why 2")]
    assert [row[:2] for row in rows(store, "deliveries")] == [("old", 2), ("old", 3)]
    store.subscribe("old", "t", after=0)
    assert rows(store, "deliveries") == [] and rows(store, "groups")[1] == ("old", "t", 0)
    for group, pattern, said in (
        ("old", "t.>", "the group 'old' subscribes to 't': give another name for 't.>'"), ("a b", "t", "the topic is 'a b'"),
        ("x", "a..b", "the pattern of topics is 'a..b'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            store.subscribe(group, pattern)
        assert str(told.value).startswith(said)
    store.fetch("old", 1)
    store.unsubscribe("zero")
    assert (rows(store, "groups"), rows(store, "dead")) == ([("new", "t", 3), ("old", "t", 1)], [])
    assert [row[:2] for row in rows(store, "deliveries")] == [("old", 1)] and len(rows(store, "messages")) == 3
    store.unsubscribe("old")
    store.unsubscribe("none")
    assert rows(store, "deliveries") == [] and rows(store, "groups") == [("new", "t", 3)]
    store.unsubscribe("\ud800")
    assert store.dead_letters("\ud800") == [] and len(rows(store, "groups")) == 1
    for call in (
        store.fetch,
        store.lag,
        lambda group: store.let_go(group, 1),
        lambda group: store.acknowledge(group, [1]),
    ):
        with pytest.raises(UnknownName, match=r"^no group 'old': subscribe it first$"):
            call("old")


def test_a_replay_reads_on_until_it_has_as_many_as_were_asked(
    store: SqliteMessaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_messaging, "_SCAN", 3)
    for place in range(9):
        store.publish("a.x" if place % 2 else "b", [str(place)])
    assert [[each.payload for each in store.replay(*given)] for given in (
        ("a.*",), ("a.*", 4), ("a.*", 0, 3), ("a.*", 2, 1), (">", 6), (">", 0, 2), (">", 5, 3), (">", 9), ("c",), (">",
        0, 0),
    )] == [
        ["1", "3", "5", "7"], ["5", "7"], ["1", "3", "5"], ["3"], ["6", "7", "8"], ["0", "1"], ["5", "6", "7"], [], [], [],
    ]  # fmt: skip
    store.subscribe("g", "a.x", after=0)
    assert [each.message.payload for each in store.fetch("g", 3)] == ["1", "3", "5"] and rows(store, "groups")[0][
        2
    ] == 6
    assert [each.message.payload for each in store.fetch("g", 3)] == ["7"] and rows(store, "groups")[0][2] == 9
    for limit in (0, -1):
        with pytest.raises(ConfigError, match=f"^limit is {limit}: give 1 or more$"):
            store.fetch("g", limit)


def test_a_replay_passes_over_gaps_of_offsets(store: SqliteMessaging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_messaging, "_SCAN", 2)
    store.publish("a", [str(number) for number in range(1, 21)])
    there = [3, 4, 9, 10, 11, 18, 20]
    with store._database.write() as connection:
        connection.execute(f"DELETE FROM messages WHERE seq NOT IN ({','.join(map(str, there))})")
    for after in range(21):
        assert [each.offset for each in store.replay("a", after)] == [each for each in there if each > after]
    assert [[each.offset for each in store.replay("a", 3, limit)] for limit in (1, 3, 5, 6, 7)] == [
        [4], [4, 9, 10], [4, 9, 10, 11, 18], there[1:], there[1:],
    ]  # fmt: skip
    store.subscribe("g", "a", after=0)
    assert [[each.message.offset for each in store.fetch("g", 4)] for _ in range(3)] == [there[:4], there[4:], []]


def test_a_file_is_made_with_its_bounds_and_refused_when_it_is_another(tmp_path: Path) -> None:
    with SqliteMessaging(str(tmp_path / "m.db")) as made:
        assert (made.max_lag, made.max_deliveries, made.kept_versions) == (100_000, 5, 1000)
        assert made._database.schema is SCHEMA and made._database.path == tmp_path / "m.db"
        with sqlite3.connect(tmp_path / "m.db") as connection:
            assert connection.execute("PRAGMA application_id").fetchone() == (0x66736D62,)
            assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        connection.close()
    assert made._database._pid == -1, "it is closed"
    for name in ("max_lag", "max_deliveries", "kept_versions"):
        with pytest.raises(ConfigError, match=f"^{name} is 0: give 1 or more$"):
            SqliteMessaging(tmp_path / "none.db", **{name: 0})  # type: ignore[arg-type]
        with SqliteMessaging(tmp_path / "m.db", **{name: 1}) as made:  # type: ignore[arg-type]
            assert [getattr(made, each) for each in ("max_lag", "max_deliveries", "kept_versions")].count(1) == 1
            assert getattr(made, name) == 1
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database, but long enough to be read as one" * 30)
    with pytest.raises(StoreError):
        SqliteMessaging(tmp_path / "text.db")
