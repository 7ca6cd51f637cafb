"""A blackboard and a message bus in one SQLite file, for any number of processes on a machine.

SQLite in WAL mode as for runs: one transaction a call, and what a call returned survives `kill -9`; a power cut may take the
last writes. Reads are queries, so watchers and subscribers poll.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from firsthand.declaration import Readers
from firsthand.errors import ConfigError, UnknownName
from firsthand.messaging.blackboard import BoardEntry, check_entry, conflict
from firsthand.messaging.message_bus import (
    BusFull,
    BusMessage,
    DeadLetter,
    Delivery,
    check_bounds,
    check_fetch,
    check_payloads,
)
from firsthand.messaging.topic_names import check_topic, topic_pattern
from firsthand.runs.database import Database, Schema, plain

SCHEMA = Schema(
    "a file of messages",
    0x66736D62,  # "fsmb"
    (
        """
        CREATE TABLE entries (seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, version INTEGER NOT NULL,
            value TEXT NOT NULL, writer TEXT NOT NULL, at REAL NOT NULL, once TEXT UNIQUE, UNIQUE (key, version));
        CREATE TABLE messages (seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload TEXT NOT NULL,
            sender TEXT NOT NULL, at REAL NOT NULL);
        CREATE TABLE publications (once TEXT NOT NULL PRIMARY KEY, first INTEGER NOT NULL, count INTEGER NOT NULL);
        CREATE TABLE groups (name TEXT NOT NULL PRIMARY KEY, pattern TEXT NOT NULL, after INTEGER NOT NULL);
        CREATE TABLE deliveries (grp TEXT NOT NULL, seq INTEGER NOT NULL, until REAL NOT NULL, count INTEGER NOT NULL,
            PRIMARY KEY (grp, seq)) WITHOUT ROWID;
        CREATE TABLE dead (grp TEXT NOT NULL, seq INTEGER NOT NULL, count INTEGER NOT NULL, reason TEXT NOT NULL,
            PRIMARY KEY (grp, seq)) WITHOUT ROWID;
        """,
        "ALTER TABLE deliveries ADD COLUMN since REAL NOT NULL DEFAULT 0",
        "ALTER TABLE entries ADD COLUMN readers TEXT NOT NULL DEFAULT 'public'",
    ),
    place="the file of messages",
    missing="give the path of one, or let it be made",
    resume="then try again",
    copied="the file",
)
_ENTRY = "key, value, version, writer, at, seq, readers"
_MESSAGE = "seq, topic, payload, sender, at"
_SCAN = 1000
"""Messages that are looked at in one step for those that a group wants."""


class SqliteMessaging:
    """A Blackboard and a MessageBus in a file, made where it is not there."""

    def __init__(self, path: Path | str, *, max_lag: int = 100_000, max_deliveries: int = 5, kept_versions: int = 1000):
        """Opens the file.

        Args:
            max_lag: Messages that a group may be behind before publishers of its topics are held back.
            max_deliveries: Deliveries after which a message that was not acknowledged is a dead letter.
            kept_versions: Versions of a key that its history keeps.

        Raises:
            ConfigError: A bound is below 1.
            StoreError: The file is something else, or damaged.
        """
        check_bounds(max_lag=max_lag, max_deliveries=max_deliveries, kept_versions=kept_versions)
        self.max_lag, self.max_deliveries, self.kept_versions = max_lag, max_deliveries, kept_versions
        self._database = Database(Path(path), create=True, schema=SCHEMA)

    def __enter__(self) -> SqliteMessaging:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # -- the blackboard --

    def write(
        self,
        key: str,
        value: str,
        *,
        writer: str,
        expected: int | None = None,
        once: str | None = None,
        readers: Readers = "public",
    ) -> BoardEntry:
        """Keep a new version of a key; see `Blackboard.write`."""
        check_entry(key, value)
        with self._database.write() as connection:
            if once is not None:
                done = connection.execute(f"SELECT {_ENTRY} FROM entries WHERE once = ?", (plain(once),)).fetchone()
                if done is not None:
                    return BoardEntry(*done)
            latest = f"SELECT {_ENTRY} FROM entries WHERE key = ? ORDER BY version DESC LIMIT 1"
            row = connection.execute(latest, (plain(key),)).fetchone()
            there = None if row is None else BoardEntry(*row)
            version = 0 if there is None else there.version
            if expected is not None and expected != version:
                raise conflict(key, expected, there)
            connection.execute(
                "INSERT INTO entries (key, version, value, writer, at, once, readers) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    plain(key),
                    version + 1,
                    plain(value),
                    plain(writer),
                    time.time(),
                    None if once is None else plain(once),
                    readers,
                ),
            )
            if version >= self.kept_versions:  # one that a name protects from being written twice stays
                old = "DELETE FROM entries WHERE key = ? AND version <= ? AND once IS NULL"
                connection.execute(old, (plain(key), version + 1 - self.kept_versions))
            return BoardEntry(*connection.execute(latest, (plain(key),)).fetchone())

    def read(self, key: str) -> BoardEntry | None:
        """The key as it is; None if it was never written."""
        rows = self._database.read(
            f"SELECT {_ENTRY} FROM entries WHERE key = ? ORDER BY version DESC LIMIT 1", (plain(key),)
        )
        return BoardEntry(*rows[0]) if rows else None

    def entries(self, prefix: str = "") -> list[BoardEntry]:
        """The latest entry of each key that begins so, by key."""
        rows = self._database.read(
            f"SELECT {_ENTRY} FROM entries WHERE substr(key, 1, ?) = ? AND NOT EXISTS (SELECT 1 FROM entries later"
            " WHERE later.key = entries.key AND later.version > entries.version) ORDER BY key",
            (len(plain(prefix)), plain(prefix)),
        )
        return [BoardEntry(*row) for row in rows]

    def history(self, key: str) -> list[BoardEntry]:
        """All versions of a key that are kept, the first one first."""
        rows = self._database.read(f"SELECT {_ENTRY} FROM entries WHERE key = ? ORDER BY version", (plain(key),))
        return [BoardEntry(*row) for row in rows]

    def changes(self, after: int = 0, limit: int = 1000) -> list[BoardEntry]:
        """The writes after that place in the sequence, in order."""
        check_bounds(limit=limit)
        rows = self._database.read(f"SELECT {_ENTRY} FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
        return [BoardEntry(*row) for row in rows]

    # -- the bus --

    def publish(self, topic: str, payloads: Sequence[str], *, sender: str = "", once: str | None = None) -> list[int]:
        """Keep messages in order, all or none; returns their offsets; see `MessageBus.publish`."""
        check_topic(topic)
        check_payloads(payloads)
        with self._database.write() as connection:
            if once is not None:
                sql = "SELECT first, count FROM publications WHERE once = ?"
                done = connection.execute(sql, (plain(once),)).fetchone()
                if done is not None:
                    return list(range(done[0], done[0] + done[1]))
            first = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'")
            start = max(int(first.fetchone()[0]), 0) + 1
            for name, pattern, after in connection.execute("SELECT name, pattern, after FROM groups").fetchall():
                if not topic_pattern(pattern).fullmatch(topic):
                    continue
                most = start - 1 - after + self._held(connection, name)  # counting the group's own takes longer
                if most + len(payloads) <= self.max_lag:
                    continue
                if (behind := self._lag(connection, name)) + len(payloads) > self.max_lag:
                    raise BusFull(
                        f"{topic} takes no more messages: the group {name!r} is {behind:,} behind, and "
                        f"{self.max_lag:,} are allowed; let it read, or remove it"
                    )
            now = time.time()
            connection.executemany(
                "INSERT INTO messages (seq, topic, payload, sender, at) VALUES (?, ?, ?, ?, ?)",
                ((start + place, topic, plain(text), plain(sender), now) for place, text in enumerate(payloads)),
            )
            if once is not None:
                connection.execute("INSERT INTO publications VALUES (?, ?, ?)", (plain(once), start, len(payloads)))
            return list(range(start, start + len(payloads)))

    def subscribe(self, group: str, pattern: str, *, after: int | None = None) -> None:
        """Make a group for the topics of a pattern, or move it; see `MessageBus.subscribe`."""
        topic_pattern(pattern)
        check_topic(group)
        with self._database.write() as connection:
            row = connection.execute("SELECT pattern FROM groups WHERE name = ?", (group,)).fetchone()
            if row is not None and row[0] != pattern:
                raise ConfigError(f"the group {group!r} subscribes to {row[0]!r}: give another name for {pattern!r}")
            last = int(connection.execute("SELECT coalesce(max(seq), 0) FROM messages").fetchone()[0])
            if row is None:
                connection.execute(
                    "INSERT INTO groups VALUES (?, ?, ?)", (group, pattern, last if after is None else after)
                )
            elif after is not None:
                connection.execute("UPDATE groups SET after = ? WHERE name = ?", (after, group))
                connection.execute("DELETE FROM deliveries WHERE grp = ?", (group,))
                connection.execute("DELETE FROM dead WHERE grp = ? AND seq > ?", (group, after))

    def unsubscribe(self, group: str) -> None:
        """Remove a group; its messages stay for others and for replays."""
        with self._database.write() as connection:
            for table, column in (("groups", "name"), ("deliveries", "grp"), ("dead", "grp")):
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (plain(group),))

    def fetch(self, group: str, limit: int = 100, *, lease_s: float = 30.0) -> list[Delivery]:
        """The next messages for a group, the oldest first: those whose lease ran out, and new ones."""
        check_fetch(limit, lease_s)
        with self._database.write() as connection:
            pattern, after = self._group(connection, group)
            now = time.time()
            connection.execute(  # given after now: the clock was set back, and the lease begins again
                "UPDATE deliveries SET until = ?1 + until - since, since = ?1 WHERE grp = ?2 AND since > ?1 AND until > ?1",
                (now, group),
            )
            lost = connection.execute(
                "SELECT seq, count FROM deliveries WHERE grp = ? AND until <= ? ORDER BY seq LIMIT ?",
                (group, now, limit),
            ).fetchall()
            given: dict[int, int] = {}
            for seq, count in lost:
                if count >= self.max_deliveries:
                    self._bury(connection, group, seq, count, "it was not acknowledged in time")
                else:
                    given[seq] = count + 1
            wanted = topic_pattern(pattern)
            reached, size = after, min(limit, _SCAN)
            while len(given) < limit:
                rows = connection.execute(
                    "SELECT seq, topic FROM messages WHERE seq > ? ORDER BY seq LIMIT ?", (reached, size)
                ).fetchall()
                for seq, topic in rows:
                    if len(given) >= limit:
                        break
                    reached = seq
                    if wanted.fullmatch(topic):
                        given[seq] = 1
                if len(rows) < size:
                    break
                size = _SCAN  # most of what there is belongs to other groups
            connection.execute("UPDATE groups SET after = ? WHERE name = ?", (reached, group))
            connection.executemany(
                "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?, ?)",
                ((group, seq, now + lease_s, count, now) for seq, count in given.items()),
            )
            chosen = f"SELECT {_MESSAGE} FROM messages WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq"
            return [
                Delivery(BusMessage(*row), given[row[0]]) for row in connection.execute(chosen, (json.dumps([*given]),))
            ]

    def acknowledge(self, group: str, offsets: Sequence[int]) -> int:
        """Say that messages were handled; returns how many of them were still waiting for that."""
        with self._database.write() as connection:
            self._group(connection, group)
            before = connection.total_changes
            connection.executemany(
                "DELETE FROM deliveries WHERE grp = ? AND seq = ?", ((group, offset) for offset in offsets)
            )
            return connection.total_changes - before

    def let_go(self, group: str, offset: int, reason: str = "") -> None:
        """Give a message back, to be delivered again at once, or to become a dead letter."""
        with self._database.write() as connection:
            self._group(connection, group)
            row = connection.execute(
                "SELECT count FROM deliveries WHERE grp = ? AND seq = ?", (group, offset)
            ).fetchone()
            if row is None:
                raise UnknownName(f"the group {group!r} holds no message {offset}")
            if row[0] >= self.max_deliveries:
                self._bury(connection, group, offset, row[0], reason or "it was let go of")
            else:
                connection.execute("UPDATE deliveries SET until = 0 WHERE grp = ? AND seq = ?", (group, offset))

    def replay(self, pattern: str, after: int = 0, limit: int = 1000) -> list[BusMessage]:
        """The messages of a pattern behind an offset, in order, whatever any group has done."""
        wanted, found = topic_pattern(pattern), list[BusMessage]()
        while len(found) < limit:
            rows = self._database.read(
                f"SELECT {_MESSAGE} FROM messages WHERE seq > ? ORDER BY seq LIMIT ?", (after, _SCAN)
            )
            found += [BusMessage(*row) for row in rows if wanted.fullmatch(row[1])]
            if len(rows) < _SCAN:
                break
            after = rows[-1][0]
        return found[:limit]

    def dead_letters(self, group: str) -> list[DeadLetter]:
        """The messages that the group could not handle, the oldest first."""
        rows = self._database.read(
            f"SELECT {', '.join(f'messages.{name}' for name in _MESSAGE.split(', '))}, count, reason FROM dead"
            " JOIN messages USING (seq) WHERE grp = ? ORDER BY seq",
            (plain(group),),
        )
        return [DeadLetter(BusMessage(*row[:5]), group, row[5], row[6]) for row in rows]

    def lag(self, group: str) -> int:
        """The messages that the group has not acknowledged."""
        with self._database.write() as connection:
            self._group(connection, group)
            return self._lag(connection, group)

    # -- inside --

    def _group(self, connection: sqlite3.Connection, name: str) -> tuple[str, int]:
        row = connection.execute("SELECT pattern, after FROM groups WHERE name = ?", (plain(name),)).fetchone()
        if row is None:
            raise UnknownName(f"no group {name[:80]!r}: subscribe it first")
        return row[0], row[1]

    def _lag(self, connection: sqlite3.Connection, name: str) -> int:
        """The messages that were delivered and not acknowledged, and those that are new, at most max_lag + 1 of them."""
        pattern, after = self._group(connection, name)
        held = self._held(connection, name)
        if pattern == ">":
            return int(held + connection.execute("SELECT count(*) FROM messages WHERE seq > ?", (after,)).fetchone()[0])
        wanted = topic_pattern(pattern)
        topics = connection.execute("SELECT topic, count(*) FROM messages WHERE seq > ? GROUP BY topic", (after,))
        return int(held + sum(count for topic, count in topics if wanted.fullmatch(topic)))

    def _held(self, connection: sqlite3.Connection, name: str) -> int:
        """The messages that were delivered and not acknowledged."""
        return int(connection.execute("SELECT count(*) FROM deliveries WHERE grp = ?", (name,)).fetchone()[0])

    def _bury(self, connection: sqlite3.Connection, group: str, seq: int, count: int, reason: str) -> None:
        connection.execute("DELETE FROM deliveries WHERE grp = ? AND seq = ?", (group, seq))
        connection.execute("INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?)", (group, seq, count, plain(reason[:1000])))
