"""ItemFile: memory items in one SQLite file, which many processes may write.

    scopes     an owner and a kind: everything else belongs to one, and no search crosses it
    items      text and provenance (JSON), key, both times, a checksum
    words      the number of items of a scope that have a word
    postings   the items of a word, with its count there and the item's length in words
    vectors    float16 embeddings of items, by the fingerprint of their model; there once a search wanted them
    commits    hashes of the changes of attempts that were made here, so that none is made again, not even when its item is
               forgotten by then
    renewed    scopes whose words are in the form that searches look for, but for those of items up to the number `item`,
               which are still as an older version counted them
    imported   items that an import brought, by its number: their place in the order of writing is among those

WAL: a write that returned survives `kill -9` of every process; a power cut may take the last ones. Deleted bytes are
overwritten (`secure_delete`).
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any, NamedTuple

from firsthand.errors import ConfigError, StoreError
from firsthand.memories.keeping.cut_file import padded_copy, refuse_cut_short
from firsthand.memories.keeping.item_removal import delete_item, keep_within
from firsthand.memories.keeping.item_statistics import (
    count_anew,
    expect_postings,
    expect_sizes,
    expect_words,
    put_right,
)
from firsthand.memories.keeping.item_words import begin_renewal, put_words, renew_words
from firsthand.memories.keeping.kept_item import KeptItem, body_of, item_of, time_of, words_of
from firsthand.memory import MemoryItem
from firsthand.runs.database import Database, Schema, checksum, plain
from firsthand.system.own_file import expect_own_file

MEMORY_SCHEMA = Schema(
    "a memory",
    0x66736D65,  # "fsme"
    (
        """
        CREATE TABLE scopes (number INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, kind TEXT NOT NULL,
            items INTEGER NOT NULL, words INTEGER NOT NULL, bytes INTEGER NOT NULL, UNIQUE (owner, kind));
        CREATE TABLE items (number INTEGER PRIMARY KEY AUTOINCREMENT, scope INTEGER NOT NULL, id TEXT NOT NULL,
            body BLOB NOT NULL, key TEXT, valid_s REAL NOT NULL, stored_s REAL NOT NULL, length INTEGER NOT NULL,
            digest INTEGER NOT NULL, UNIQUE (scope, id));
        CREATE INDEX items_by_key ON items (scope, key, valid_s);
        CREATE INDEX items_by_time ON items (scope, valid_s);
        CREATE TABLE words (number INTEGER PRIMARY KEY AUTOINCREMENT, scope INTEGER NOT NULL, word TEXT NOT NULL,
            items INTEGER NOT NULL, UNIQUE (scope, word));
        CREATE TABLE postings (word INTEGER NOT NULL, item INTEGER NOT NULL, count INTEGER NOT NULL,
            length INTEGER NOT NULL, PRIMARY KEY (word, item)) WITHOUT ROWID;
        """,
        """
        CREATE TABLE vectors (item INTEGER NOT NULL, model TEXT NOT NULL, body BLOB NOT NULL,
            PRIMARY KEY (item, model)) WITHOUT ROWID;
        """,
        """
        CREATE TABLE commits (scope INTEGER NOT NULL, change BLOB NOT NULL, PRIMARY KEY (scope, change)) WITHOUT ROWID;
        """,
        """
        CREATE TABLE renewed (scope INTEGER PRIMARY KEY);
        """,
        """
        ALTER TABLE renewed ADD COLUMN item INTEGER NOT NULL DEFAULT 0;
        """,
        """
        CREATE TABLE imported (item INTEGER PRIMARY KEY, batch INTEGER NOT NULL);
        """,
        """
        DELETE FROM renewed;
        """,
        """
        DELETE FROM renewed;
        """,
    ),
    place="the file of a memory",
    missing="`firsthand run --memory KIND:FILE` makes one",
    reads_from=2,
    resume="then try again",
    copied="it",
)
COLUMNS = "number, id, body, key, valid_s, stored_s, length, digest"
_AT_ONCE = 500
_PAUSE_S = 0.03
"""Between two steps of a renewal, for others to write: SQLite has them look every 0.1 s at most."""
_MOST_MISSES = 10_000
"""Numbers in a row without a readable item at which a salvage ends."""
_LOG_WAIT_S = 0.05
"""Seconds that `remove` waits for readers in other processes before it leaves the log as it is."""


class KeepingBounds(NamedTuple):
    """The most that a scope holds. Beyond it, replaced items go first, oldest first, then the oldest of all."""

    items: int = 100_000
    size_bytes: int = 256 << 20


class ItemTimes(NamedTuple):
    """The times of an item that was stored before, in seconds since 1970."""

    valid_s: float
    """For an item whose provenance has no `time`."""
    stored_s: float
    batch: int = 0
    """The import that brings it: a number that no other import has; 0 for what is written here."""


class ScopeSize(NamedTuple):
    """Items of a scope, their words together, and the bytes of their bodies."""

    items: int
    words: int
    size_bytes: int


class WordRow(NamedTuple):
    """A word of a scope: its number, and how many items have it."""

    number: int
    items: int


class ItemFile:
    """The file, for use from any thread and process."""

    def __init__(self, path: Path, *, create: bool = True, salvage: bool = False):
        """With `salvage` a copy is opened, filled up with zeros if the file is cut short, for `salvage` to read.

        Otherwise the size of a scope, which has no checksum, is compared with its items when it is first used, and put right
        if it differs and the file can be written.
        """
        try:
            if path.is_dir():
                raise ConfigError(f"{path} is a folder: give the file of a memory, such as {path / 'memory.db'}")
            expect_own_file(path)
            if create and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{str(path)[:200]} cannot be made: {error.strerror or error}") from None
        self.path = path
        self._copies = tempfile.TemporaryDirectory() if salvage else None
        if self._copies is not None:
            path = padded_copy(path, Path(self._copies.name))
        refuse_cut_short(path)
        self._database = Database(path, create=create, schema=MEMORY_SCHEMA)
        self._batch = "0"
        """The SQL of an item's batch; a file of an older version that cannot be written has none."""
        if self._database.read("SELECT 1 FROM sqlite_master WHERE name = 'imported'"):
            self._batch = "coalesce((SELECT batch FROM imported WHERE item = number), 0)"
        self._secured: object = None
        self._counted: set[int] = set()
        """Scopes whose sizes are those of their items."""
        self._log_holds_deleted = False

    # -- writing --

    def put(
        self,
        owner: str,
        kind: str,
        item: MemoryItem,
        key: str | None,
        bounds: KeepingBounds | None,
        *,
        times: ItemTimes | None = None,
        once: str = "",
    ) -> bool:
        """Store an item unless its id is there; True if it was new and is kept. On the disk when this returns.

        Args:
            bounds: What is beyond them is deleted, the item itself if it is the first to go; None deletes nothing.
            times: When it was stored first; None: now.
            once: The name of this change: one that was made under that name is not made again.
        """
        if self._log_holds_deleted:
            self._empty_log(0)  # a long reader does not hold up every write
        body, counts, given = body_of(item), words_of(item.text), time_of(item)
        length = sum(counts.values())
        self._count(self.scope(owner, kind))
        with self._database.write() as connection:
            self._secure(connection)
            scope = self._scope(connection, owner, kind, make=True)
            if scope not in self._counted:
                put_right(connection, scope)
            begin_renewal(connection, scope)
            if once and not _is_first(connection, scope, once):
                return False
            if times is None:
                now_s = round(time.time(), 6)  # to the microsecond, as an export writes it
                times = ItemTimes(now_s, now_s)
            stored_s = times.stored_s
            valid_s = times.valid_s if given is None else given
            digest = checksum(scope, item.id, body, key, valid_s, stored_s, length)
            added = connection.execute(
                "INSERT OR IGNORE INTO items (scope, id, body, key, valid_s, stored_s, length, digest) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (scope, item.id, body, key, valid_s, stored_s, length, digest),
            )
            if not added.rowcount:
                return False
            number = int(added.lastrowid or 0)
            put_words(connection, scope, {number: counts})
            if times.batch:
                connection.execute("INSERT INTO imported VALUES (?, ?)", (number, times.batch))
            connection.execute(
                "UPDATE scopes SET items = items + 1, words = words + ?, bytes = bytes + ? WHERE number = ?",
                (length, len(body), scope),
            )
            return bounds is None or number not in keep_within(connection, scope, bounds.items, bounds.size_bytes)

    def remove(self, owner: str, kind: str, id: str, *, once: str = "") -> bool:
        """Delete an item for good; False if it is not there, or if a change of the name `once` was made before.

        Its bytes leave the file and the log beside it; while another process is reading, with a later write or `close`.
        """
        self._count(self.scope(owner, kind))
        with self._database.write() as connection:
            self._secure(connection)
            scope = self._scope(connection, owner, kind, make=bool(once))
            if once and not _is_first(connection, scope, once):
                return False
            found = connection.execute(
                "SELECT number FROM items WHERE scope = ? AND id = ?", (scope, plain(id))
            ).fetchone()
            if found is None:
                return False
            begin_renewal(connection, scope)
            delete_item(connection, scope, found[0])
        self._empty_log()
        return True

    def _empty_log(self, wait_s: float = _LOG_WAIT_S) -> None:
        self._log_holds_deleted = True
        with suppress(StoreError):  # a full disk; the item is deleted all the same
            self._log_holds_deleted = not self._database.empty_log(wait_s)

    def _count(self, scope: int) -> None:
        """Put right the size of a scope, once. Where that cannot be read or written, it stays as it is for readers."""
        if scope not in self._counted and self._copies is None:
            with suppress(StoreError):
                count_anew(self._database, scope)
                done = "SELECT 1 FROM renewed WHERE scope = ? AND item = 0"
                while scope and not self._database.read(done, (scope,)):
                    with self._database.write() as connection:
                        self._secure(connection)
                        more = renew_words(connection, scope)
                    if more:
                        time.sleep(_PAUSE_S)
                self._counted.add(scope)

    def _secure(self, connection: Connection) -> None:
        """Have deleted bytes overwritten, on a connection that was not told yet."""
        if self._secured is not connection:
            connection.execute("PRAGMA secure_delete = ON")
            self._secured = connection

    def _scope(self, connection: Connection, owner: str, kind: str, *, make: bool = False) -> int:
        """The number of a scope; 0 if there is none and none is made."""
        named = (plain(owner), kind)
        found = connection.execute("SELECT number FROM scopes WHERE owner = ? AND kind = ?", named).fetchone()
        if found is not None or not make:
            return int(found[0]) if found is not None else 0
        return int(connection.execute("INSERT INTO scopes VALUES (NULL, ?, ?, 0, 0, 0)", named).lastrowid or 0)

    # -- reading --

    def scopes(self) -> list[tuple[str, str, ScopeSize]]:
        """Owner, kind and size of everything that is kept."""
        rows = self._database.read("SELECT owner, kind, number FROM scopes ORDER BY owner, kind")
        return [(owner, kind, self.size(number)) for owner, kind, number in rows]

    def names(self) -> list[tuple[str, str]]:
        """Owner and kind of everything that is kept."""
        return [(row[0], row[1]) for row in self._database.read("SELECT owner, kind FROM scopes ORDER BY owner, kind")]

    def scope(self, owner: str, kind: str) -> int:
        """The number of a scope, which `size`, `matching` and the other readers take; 0 before its first item."""
        found = self._database.read("SELECT number FROM scopes WHERE owner = ? AND kind = ?", (plain(owner), kind))
        return int(found[0][0]) if found else 0

    def size(self, scope: int) -> ScopeSize:
        """The size of a scope. StoreError if it is none, and cannot be put right."""
        self._count(scope)
        found = self._database.read("SELECT items, words, bytes FROM scopes WHERE number = ?", (scope,))
        expect_sizes(self._database, found[0] if found else ())
        return ScopeSize(*found[0]) if found else ScopeSize(0, 0, 0)

    def last_number(self) -> int:
        """The number of the last item that was written."""
        return int(self._database.read("SELECT coalesce(max(number), 0) FROM items")[0][0])

    def words(self, scope: int, words: Sequence[str]) -> dict[str, WordRow]:
        """Those of the words that items of the scope have."""
        marks = ",".join("?" * len(words))
        rows = self._database.read(
            f"SELECT word, number, items FROM words WHERE scope = ? AND word IN ({marks})", (scope, *map(plain, words))
        )
        expect_words(self._database, rows)
        return {word: WordRow(number, items) for word, number, items in rows}

    def postings(self, word: int, last: int) -> list[tuple[int, int, int]]:
        """(item, count, length) of a word, of items up to number `last`."""
        found = self._database.read(
            "SELECT item, count, length FROM postings WHERE word = ? AND item <= ?", (word, last)
        )
        expect_postings(self._database, found)
        return found

    def postings_of(self, word: int, items: Sequence[int]) -> list[tuple[int, int, int]]:
        """(item, count, length) of a word, of those items that have it."""
        found: list[tuple[int, int, int]] = []
        for first in range(0, len(items), _AT_ONCE):
            some = items[first : first + _AT_ONCE]
            marks = ",".join("?" * len(some))
            found += self._database.read(
                f"SELECT item, count, length FROM postings WHERE word = ? AND item IN ({marks})", (word, *some)
            )
        expect_postings(self._database, found)
        return found

    def ids(self, numbers: Sequence[int]) -> dict[int, str]:
        """The ids of the items of those numbers that are there."""
        found: dict[int, str] = {}
        for first in range(0, len(numbers), _AT_ONCE):
            some = numbers[first : first + _AT_ONCE]
            marks = ",".join("?" * len(some))
            found.update(self._database.read(f"SELECT number, id FROM items WHERE number IN ({marks})", some))
        return found

    def numbered(self, numbers: Sequence[int]) -> dict[int, KeptItem]:
        """The items of those numbers that are there."""
        found: dict[int, KeptItem] = {}
        for first in range(0, len(numbers), _AT_ONCE):
            some = numbers[first : first + _AT_ONCE]
            for kept in self._kept(f"number IN ({','.join('?' * len(some))})", some):
                found[kept.number] = kept
        return found

    def with_keys(self, scope: int, keys: Sequence[str], last: int) -> list[KeptItem]:
        """The items that have one of the keys, up to number `last`."""
        found: list[KeptItem] = []
        for first in range(0, len(keys), _AT_ONCE):
            some = keys[first : first + _AT_ONCE]
            marks = ",".join("?" * len(some))
            found += self._kept(f"scope = ? AND key IN ({marks}) AND number <= ?", (scope, *some, last))
        return found

    def with_id(self, scope: int, id: str) -> KeptItem | None:
        """The item of an id."""
        return next(iter(self._kept("scope = ? AND id = ?", (scope, plain(id)))), None)

    def newest_first(self, scope: int, last: int, before: tuple[float, str] | None, limit: int) -> list[KeptItem]:
        """Items of a scope by valid time, the newest first, ties by id: a page that begins after (time, id) `before`."""
        after = "" if before is None else " AND (valid_s < ? OR valid_s = ? AND id > ?)"
        values = () if before is None else (before[0], before[0], before[1])
        order = " ORDER BY valid_s DESC, id LIMIT ?"
        return list(self._kept(f"scope = ? AND number <= ?{after}{order}", (scope, last, *values, limit)))

    def without_vector(self, scope: int, model: str, limit: int) -> list[tuple[int, str]]:
        """Numbers and texts of the first items of a scope that have no vector of a model."""
        missing = "NOT EXISTS (SELECT 1 FROM vectors WHERE item = items.number AND model = ?)"
        found = self._kept(f"scope = ? AND {missing} ORDER BY number LIMIT ?", (scope, model, limit))
        return [(kept.number, kept.item.text) for kept in found]

    def put_vectors(self, scope: int, model: str, vectors: Mapping[int, bytes]) -> None:
        """Keep the vectors of items, by number; those of items that are gone by now are dropped."""
        with self._database.write() as connection:
            self._secure(connection)
            connection.executemany(
                "INSERT OR REPLACE INTO vectors SELECT number, ?, ? FROM items WHERE number = ? AND scope = ?",
                ((model, body, number, scope) for number, body in vectors.items()),
            )

    def vectors(self, scope: int, model: str, after: int) -> list[tuple[int, bytes]]:
        """The vectors of a scope's items behind a number, in order. StoreError if they are not of one length."""
        rows = self._database.read(
            "SELECT items.number, vectors.body FROM items JOIN vectors ON vectors.item = items.number"
            " WHERE items.scope = ? AND vectors.model = ? AND items.number > ? ORDER BY items.number",
            (scope, model, after),
        )
        if not all(isinstance(body, bytes) for _, body in rows) or len({len(body) for _, body in rows}) > 1:
            raise self._database.damaged("its vectors are not all of one length")
        return [(int(number), body) for number, body in rows]

    def count_of(self, scope: int) -> int:
        """The number of items of a scope."""
        found = self._database.read("SELECT items FROM scopes WHERE number = ?", (scope,))
        return int(found[0][0]) if found else 0

    def latest_s(self, scope: int, last: int) -> float | None:
        """The latest valid time of a scope."""
        found = self._database.read("SELECT max(valid_s) FROM items WHERE scope = ? AND number <= ?", (scope, last))
        return None if found[0][0] is None else float(found[0][0])

    def _kept(self, where: str, values: Sequence[Any]) -> Iterator[KeptItem]:
        for row in self._database.read(f"SELECT {self._batch}, scope, {COLUMNS} FROM items WHERE {where}", values):
            yield self._read(row[1:], batch=row[0])

    def _read(self, row: Sequence[Any], *, batch: int = 0) -> KeptItem:
        """An item of a row. StoreError if the row was changed by anything but this code."""
        scope, number, id, body, key, valid_s, stored_s, length, digest = row
        if checksum(scope, id, body, key, valid_s, stored_s, length) != digest:
            raise self._database.damaged(f"item {number} does not have the checksum it was stored with")
        are_times = type(valid_s) is type(stored_s) is float
        if not (
            isinstance(id, str) and isinstance(key, str | None) and are_times and type(length) is int and length >= 0
        ):
            raise self._database.damaged(f"item {number} has an id, key, time or length of another type")
        try:
            return KeptItem(item_of(id, body), number, key, valid_s, stored_s, batch)
        except (ValueError, ConfigError) as error:
            raise self._database.damaged(f"item {number} cannot be read: {error}") from None

    def salvage(self, owner: str, kind: str, lost: Callable[[int], None]) -> Iterator[KeptItem]:
        """The items of a scope that can still be read, one at a time; `lost` is told the number of each that cannot."""
        last = 1 << 40
        with suppress(StoreError):
            last = self.last_number()
        scope = self.scope(owner, kind)
        number, misses = 0, 0
        while number < last and misses < _MOST_MISSES:
            number += 1
            try:
                found = self._database.read(f"SELECT scope, {COLUMNS} FROM items WHERE number = ?", (number,))
                misses = 0 if found else misses + 1
                if found and found[0][0] == scope:
                    yield self._read(found[0], batch=self._batch_of(number))
            except StoreError:
                misses += 1
                lost(number)

    def _batch_of(self, number: int) -> int:
        """The batch of an item; 0 where that cannot be read."""
        with suppress(StoreError, TypeError, ValueError):
            return int(self._database.read(f"SELECT {self._batch} FROM (SELECT ? AS number)", (number,))[0][0])
        return 0

    def checkpoint(self) -> None:
        """Move what was written into the file itself, so that nothing of a deleted item stays beside it."""
        self._database.empty_log()

    def close(self) -> None:
        """Close the file, and empty its log if something that was forgotten is still there."""
        if self._log_holds_deleted:
            self._empty_log()
        self._database.close()
        if self._copies is not None:
            self._copies.cleanup()


def _is_first(connection: Connection, scope: int, name: str) -> bool:
    """True if no change of that name was made in a scope before; from now on one was."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:16]
    return bool(connection.execute("INSERT OR IGNORE INTO commits VALUES (?, ?)", (scope, digest)).rowcount)
