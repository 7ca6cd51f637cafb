"""Statistics of a memory's file, which have no checksums: sizes are those of the items, and counts of words are counts."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import StoreError
from firsthand.memories.episodic import episodic
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds, ScopeSize
from firsthand.memories.keeping.stored_memory import StoredMemory
from firsthand.memory import MemoryItem
from firsthand.runs.database import Database, checksum

FIVE = KeepingBounds(5, 1 << 20)


def item(id: str, text: str = "tea cup", **provenance: Any) -> MemoryItem:
    return MemoryItem(id, text, provenance)


def changed(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for each in statements:
            connection.execute(each)
    connection.close()


def filled(path: Path) -> None:
    file = ItemFile(path)
    for id in "abc":
        file.put("", "episodic", item(id), None, FIVE)
    file.put("ann", "episodic", item("x", "tea"), None, FIVE)
    file.put("bo", "episodic", item("y"), None, FIVE)
    file.remove("bo", "episodic", "y")
    file.close()


SIZES = [("", ScopeSize(3, 6, 42)), ("ann", ScopeSize(1, 1, 10)), ("bo", ScopeSize(0, 0, 0))]


@pytest.mark.parametrize("column", ["items", "words", "bytes"])
@pytest.mark.parametrize("value", ["1000000000", "-10", "'x'", "x'00'", "1e308", "items + 1", "4"])
def test_a_wrong_size_is_put_right_when_it_is_first_used(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "m.db"
    filled(path)
    changed(path, f"UPDATE scopes SET {column} = {value}")
    file = ItemFile(path, create=False)
    assert [(owner, size) for owner, _, size in file.scopes()] == SIZES
    assert {type(each) for _, _, size in file.scopes() for each in size} == {int}
    file.close()
    changed(path, f"UPDATE scopes SET {column} = {value}")
    memory = episodic(str(path), max_items=5)
    assert len(asyncio.run(memory.search("tea", 9))) == 3
    changed(path, f"UPDATE scopes SET {column} = {value}")
    memory = episodic(str(path), max_items=5)
    asyncio.run(memory.write(item("d")))
    assert [each.id for each in asyncio.run(memory.list())] == ["a", "b", "c", "d"], "nothing is deleted for it"


def test_right_sizes_are_left_alone_and_a_file_that_is_in_use_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firsthand.runs.database._BUSY_TIMEOUT_S", 3)
    path = tmp_path / "m.db"
    filled(path)
    changed(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    writer = sqlite3.connect(path)
    writer.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    file = ItemFile(path, create=False)
    assert time.monotonic() - started < 2 and [(owner, size) for owner, _, size in file.scopes()] == SIZES
    writer.rollback(), writer.close(), file.close()
    assert path.read_bytes() == before


def test_a_salvage_changes_no_size(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    filled(path)
    changed(path, "UPDATE scopes SET items = 7")
    file = ItemFile(path, create=False, salvage=True)
    assert {size.items for _, _, size in file.scopes()} == {7}
    assert [kept.item.id for kept in file.salvage("", "episodic", print)] == ["a", "b", "c"]
    file.close()


def test_sizes_are_counted_whatever_the_lengths_of_forged_items_are(tmp_path: Path) -> None:
    for number, length in enumerate(("9223372036854775807", "9e999", "'x'", "-5", "2.5")):
        path = tmp_path / f"{number}.db"
        filled(path)
        changed(path, f"UPDATE items SET length = {length}")
        file = ItemFile(path, create=False)
        size = file.size(1)
        assert (size.items, size.size_bytes) == (3, 42) and type(size.words) is int
        file.close()


@pytest.mark.parametrize("column", ["items", "bytes"])
def test_a_size_that_becomes_wrong_while_the_file_is_open_ends_no_write(tmp_path: Path, column: str) -> None:
    path = tmp_path / "m.db"
    filled(path)
    file = ItemFile(path)
    assert file.size(file.scope("ann", "episodic")).items == 1
    changed(path, f"UPDATE scopes SET {column} = 1000000000 WHERE owner = 'ann'")
    assert not file.put("ann", "episodic", item("z"), None, FIVE), "it goes with all others"
    assert file.newest_first(file.scope("ann", "episodic"), 99, None, 9) == [] and file.last_number() == 3
    file.close()


@pytest.mark.parametrize(
    "change",
    [
        "words SET items = 'x'", "words SET items = 0", "words SET items = -0.5", "words SET items = 1.5",
        "postings SET count = 'x'", "postings SET length = 'x'", "postings SET count = 0", "postings SET count = 1.5",
        "postings SET count = length + 1", "postings SET length = -1e308", "postings SET count = 9e999, length = 9e999",
        "postings SET count = x'01'", "postings SET count = -1, length = 1", "postings SET length = 2.5",
    ],
)  # fmt: skip
def test_counts_of_words_that_are_none_are_a_sentence(tmp_path: Path, change: str) -> None:
    path = tmp_path / "m.db"
    filled(path)
    memory: StoredMemory = episodic(str(path))
    assert len(asyncio.run(memory.search("tea", 9))) == len(asyncio.run(memory.search("cup", 9))) == 3
    changed(path, f"UPDATE {change}")
    for query in ("tea", "tea cup"):
        with pytest.raises(StoreError, match="is damaged: the counts of its words are no such counts"):
            asyncio.run(memory.search(query, 9))
    assert len(asyncio.run(memory.list())) == 3


def test_counts_of_the_items_found_by_a_rarer_word_are_checked_too(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    file.put("", "facts", item("a", "tea tea"), None, FIVE)
    word = file.words(1, ["tea"])["tea"].number
    assert file.postings_of(word, [1]) == [(1, 2, 2)] == file.postings(word, 9)
    changed(tmp_path / "m.db", "UPDATE postings SET count = 3")
    for read in (lambda: file.postings_of(word, [1]), lambda: file.postings(word, 9)):
        with pytest.raises(StoreError, match="no such counts"):
            read()
    file.close()


@pytest.mark.parametrize("length", ["'x'", "-1", "1.5", "9e999"])
def test_an_item_whose_length_is_none_is_damaged(tmp_path: Path, length: str) -> None:
    path = tmp_path / "m.db"
    filled(path)
    changed(path, f"UPDATE items SET length = {length} WHERE number = 1")
    with sqlite3.connect(path) as connection:
        row = connection.execute("SELECT scope, id, body, key, valid_s, stored_s, length FROM items").fetchone()
        connection.execute("UPDATE items SET digest = ? WHERE number = 1", (checksum(*row),))
    connection.close()
    file = ItemFile(path)
    with pytest.raises(StoreError, match="item 1 has an id, key, time or length of another type"):
        file.numbered([1])
    file.close()


def test_an_item_without_words_is_read_and_counted(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    file.put("", "facts", item("a", "?!"), None, FIVE)
    assert file.numbered([1])[1].item == item("a", "?!") and file.size(1)[:2] == (1, 0)
    file.close()


def test_a_size_that_becomes_wrong_before_the_write_of_another_process_is_put_right_in_it(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    filled(path)

    class Late(ItemFile):
        def _count(self, scope: int) -> None:
            changed(path, "UPDATE scopes SET items = 1000000000")

    file = Late(path)
    assert file.put("", "episodic", item("d"), None, FIVE) and file.with_id(1, "a") is not None
    file.close()


def test_damage_of_one_owners_items_leaves_the_others_to_be_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    file = ItemFile(path)
    for number in range(40):
        owner = "ann" if number < 20 else "bo"
        file.put(owner, "notes", item(f"{number}", f"n{number} {'x' * 3000}"), None, FIVE._replace(items=99))
    file.close()
    raw = bytearray(path.read_bytes())
    page = raw.find(b"n30 xxx") // 4096 * 4096
    raw[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(raw)
    changed(path, "UPDATE scopes SET items = 7 WHERE owner = 'ann'")
    file = ItemFile(path, create=False)
    assert [size.items for _, _, size in file.scopes()] == [20, 20]
    assert len(file.newest_first(1, 99, None, 99)) == 20 and file.put("ann", "notes", item("new"), None, FIVE)
    with pytest.raises(StoreError, match="is damaged"):
        file.put("bo", "notes", item("new"), None, FIVE)
    assert file.size(1).items == 5 and file.size(2).items == 20
    file.close()


def unwritable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files of memories read-only, for root too."""
    connect = Database._connect_as
    monkeypatch.setattr(Database, "_connect_as", lambda self, mode: connect(self, "ro&immutable=1"))


def of_version(path: Path, version: int) -> None:
    """Make the file one of an older version."""
    tables = [f"DROP TABLE {name}" for name in ("imported", "renewed", "commits", "vectors")[: 5 - version]]
    changed(path, *tables, f"PRAGMA user_version = {version}")


def test_a_memory_of_0_21_that_cannot_be_written_is_listed_searched_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., tuple[int, str, str]]
) -> None:
    path = tmp_path / "m.db"
    filled(path)
    of_version(path, 2)
    before = path.read_bytes()
    unwritable(path, monkeypatch)
    assert "tea cup" in cli("memory", "list", str(path), "--query", "tea")[1]
    assert cli("memory", "export", str(path))[1].count("tea") == 4
    code, _, said = cli("memory", "forget", str(path), "a")
    assert code != 0 and "cannot be written" in said and path.read_bytes() == before
    with pytest.raises(StoreError, match="cannot be written"):
        ItemFile(path)
    monkeypatch.undo()
    file = ItemFile(path, create=False)
    assert file.put("", "episodic", item("d"), None, FIVE, once="a") and not file.remove("", "episodic", "d", once="a")
    file.close()


def test_a_memory_that_lacks_what_readers_need_or_has_other_tables_is_refused_where_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, other = tmp_path / "old.db", tmp_path / "other.db"
    for path, version in ((old, 1), (other, 2)):
        filled(path)
        of_version(path, version)
    changed(other, "CREATE TABLE more (x)")
    unwritable(old, monkeypatch)
    for path, why in ((old, "cannot be written"), (other, "its tables are not those of a memory")):
        with pytest.raises(StoreError, match=why):
            ItemFile(path, create=False)


@pytest.mark.parametrize("column", ["items", "words", "bytes"])
def test_a_wrong_size_that_cannot_be_put_right_is_read_if_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    path = tmp_path / "m.db"
    filled(path)
    changed(path, f"UPDATE scopes SET {column} = 7")
    with monkeypatch.context() as here:
        unwritable(path, here)
        file = ItemFile(path, create=False)
        assert getattr(file.size(1), "size_bytes" if column == "bytes" else column) == 7
        file.close()
    changed(path, f"UPDATE scopes SET {column} = 'x'")
    with monkeypatch.context() as here:
        unwritable(path, here)
        file = ItemFile(path, create=False)
        with pytest.raises(StoreError, match="the size of what an owner has is no size"):
            file.size(1)
        assert len(file.newest_first(1, 99, None, 9)) == 3
        file.close()


@pytest.mark.slow
def test_a_file_of_a_hundred_thousand_items_is_counted_in_a_fraction_of_a_second(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    filled(path)
    with sqlite3.connect(path) as connection:
        rows = ((f"{number:016x}", b"x" * 400) for number in range(100_000))
        connection.executemany("INSERT INTO items VALUES (NULL, 1, ?, ?, NULL, 1.5, 1.5, 20, 5)", rows)
    connection.close()
    ItemFile(path).close()
    started = time.process_time()
    file = ItemFile(path)
    assert file.names()[0] == ("", "episodic") and time.process_time() - started < 0.02, "opening counts nothing"
    assert file.size(1).items == 100_003 and time.process_time() - started < 0.5
    file.close()
