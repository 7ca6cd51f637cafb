"""The rows of a memory's file after each write, what beyond its bounds is deleted, and what is saved of a damaged one."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.memories.keeping.item_file import _LOG_WAIT_S, ItemFile, KeepingBounds, ScopeSize, WordRow
from firsthand.memories.keeping.item_removal import delete_item
from firsthand.memories.keeping.item_words import put_words
from firsthand.memories.keeping.kept_item import KeptItem
from firsthand.memory import MemoryItem
from firsthand.runs.database import checksum

MANY = KeepingBounds()
WITH_WORDS = "postings JOIN words ON words.number = postings.word"


def item(id: str, text: str, **provenance: Any) -> MemoryItem:
    return MemoryItem(id, text, provenance)


def put(
    file: ItemFile, id: str, text: str, key: str | None = None, owner: str = "ann", bounds: Any = MANY, **more: Any
) -> bool:
    return file.put(owner, "facts", item(id, text, **more), key, bounds)


def rows(file: ItemFile, columns: str, table: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in file._database.read(f"SELECT {columns} FROM {table} ORDER BY {columns}")]


def ids(file: ItemFile) -> list[str]:
    return [id for (id,) in rows(file, "id", "items")]


def test_each_item_is_a_row_with_its_words_and_counts_in_the_size_of_its_scope(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "new" / "deep" / "m.db")
    before = time.time()
    assert put(file, "a", "tea Tea cup", "k", time=5) and put(file, "b", "cup é", owner="bo") and put(file, "c", "tea")
    assert not put(file, "a", "another text", "k2") and put(file, "a", "tea", owner="bo")
    after = time.time()
    bodies = {1: b'["tea Tea cup",{"time":5}]', 2: '["cup é",{}]'.encode(), 3: b'["tea",{}]', 5: b'["tea",{}]'}
    found = rows(file, "number, scope, id, body, key, valid_s, stored_s, length, digest", "items")
    assert [row[:5] for row in found] == [
        (1, 1, "a", bodies[1], "k"), (2, 2, "b", bodies[2], None), (3, 1, "c", bodies[3], None),
        (5, 2, "a", bodies[5], None),
    ]  # fmt: skip
    assert [row[7] for row in found] == [3, 2, 1, 1] and found[0][5] == 5.0
    for row in found:
        assert before <= row[6] <= after and row[5] in (5.0, row[6])
        assert row[8] == checksum(row[1], row[2], row[3], row[4], row[5], row[6], row[7])
    assert rows(file, "scope, word, items", "words") == [
        (1, "cup", 1), (1, "tea", 2), (2, "cup", 1), (2, "e", 1), (2, "tea", 1),
    ]  # fmt: skip
    assert rows(file, "scope, words.word, item, count, length", WITH_WORDS) == [
        (1, "cup", 1, 1, 3), (1, "tea", 1, 2, 3), (1, "tea", 3, 1, 1), (2, "cup", 2, 1, 2), (2, "e", 2, 1, 2),
        (2, "tea", 5, 1, 1),
    ]  # fmt: skip
    one = ScopeSize(2, 4, len(bodies[1]) + len(bodies[3]))
    two = ScopeSize(2, 3, len(bodies[2]) + len(bodies[5]))
    assert file.scopes() == [("ann", "facts", one), ("bo", "facts", two)]
    assert (file.size(1), file.size(2), file.size(3), file.last_number()) == (one, two, ScopeSize(0, 0, 0), 5)
    assert (
        file.scope("ann", "facts"),
        file.scope("bo", "facts"),
        file.scope("bo", "x"),
        file.scope("cy", "facts"),
    ) == (1, 2, 0, 0)
    assert (
        file.words(1, ["tea", "none", "cup"])
        == {
            word: WordRow(number, items)
            for number, word, items in rows(file, "number, word, items", "words WHERE scope = 1")
        }
        and file.words(1, []) == {}
    )
    assert file.words(2, ["e", "none"])["e"].items == 1 and file.words(1, ["e"]) == {}
    assert file.with_id(1, "a") == KeptItem(item("a", "tea Tea cup", time=5), 1, "k", 5.0, found[0][6])
    assert file.with_id(2, "c") is None and file.ids([5, 3, 9]) == {5: "a", 3: "c"}
    assert {n: kept.item.id for n, kept in file.numbered([3, 5, 9]).items()} == {3: "c", 5: "a"}


def test_a_removed_item_takes_its_words_vectors_and_size_with_it(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    put(file, "a", "tea tea cup")
    put(file, "b", "cup é")
    put(file, "c", "tea")
    put(file, "a", "tea cup", owner="bo")
    file.put_vectors(1, "m", {1: b"11", 2: b"22", 4: b"44"})
    assert (
        file.remove("ann", "facts", "b")
        and not file.remove("ann", "facts", "b")
        and not file.remove("cy", "facts", "a")
    )
    assert ids(file) == ["a", "a", "c"]
    assert rows(file, "scope, word, items", "words") == [(1, "cup", 1), (1, "tea", 2), (2, "cup", 1), (2, "tea", 1)]
    assert [row[:2] for row in rows(file, "item, count", "postings")] == [(1, 1), (1, 2), (3, 1), (4, 1), (4, 1)]
    assert rows(file, "item, model, body", "vectors") == [(1, "m", b"11")]
    assert file.size(1) == (2, 4, len('["tea tea cup",{}]') + len('["tea",{}]'))
    assert file.size(2) == (1, 2, len('["tea cup",{}]'))
    with file._database.write() as connection:
        cup = connection.execute("SELECT number FROM words WHERE scope = 2 AND word = 'cup'").fetchone()
        put_words(connection, 2, {9: {"cup": 1, "new": 2}})
        new = connection.execute("SELECT number FROM words WHERE scope = 2 AND word = 'new'").fetchone()
        delete_item(connection, 2, 4)
    assert rows(file, "word, count, length", "postings WHERE item = 9") == [(cup[0], 1, 3), (new[0], 2, 3)]
    assert rows(file, "scope, word, items", "words") == [
        (1, "cup", 1), (1, "tea", 2), (2, "cup", 1), (2, "new", 1),
    ]  # fmt: skip
    assert ids(file) == ["a", "c"] and file.size(2) == (0, 0, 0) and file.last_number() == 3


def test_scopes_are_listed_by_owner_and_kind_and_are_apart(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    for owner, kind, text in (("bo", "b", "x y"), ("bo", "a", "x"), ("al", "z", "x y z"), ("é", "a", "x")):
        assert file.put(owner, kind, item("same", text), None, MANY)
    sizes = [(owner, kind, size.items, size.words) for owner, kind, size in file.scopes()]
    assert sizes == [("al", "z", 1, 3), ("bo", "a", 1, 1), ("bo", "b", 1, 2), ("é", "a", 1, 1)]
    numbers = [
        file.scope(owner, kind) for owner, kind in (("bo", "b"), ("bo", "a"), ("al", "z"), ("é", "a"), ("al", "a"))
    ]
    assert numbers == [1, 2, 3, 4, 0]
    texts = [kept.item.text for number in numbers if (kept := file.with_id(number, "same")) is not None]
    assert texts == ["x y", "x", "x y z", "x"] and file.remove("bo", "a", "same") and file.size(1).items == 1
    file.put("al", "z", item("t", "x", time=4), "k", MANY)
    file.put("al", "z", item("u", "x", time=2), "k", MANY)
    assert (
        sorted(kept.item.id for kept in file.with_keys(3, ["k"], 9)) == ["t", "u"] and file.with_keys(1, ["k"], 9) == []
    )
    assert [kept.item.id for kept in file.with_keys(3, ["k"], 5)] == ["t"] and file.latest_s(3, 0) is None
    newest = file.latest_s(3, 9)
    assert newest is not None and newest > 4 and file.latest_s(2, 9) is None
    assert [kept.item.id for kept in file.newest_first(3, 9, (4.0, "t"), 1)] == ["u"]
    assert [kept.item.id for kept in file.newest_first(3, 9, (2.0, "t"), 9)] == ["u"]
    assert file.newest_first(3, 9, (2.0, "u"), 9) == [] and len(file.newest_first(3, 9, None, 2)) == 2


def test_vectors_are_of_the_scope_s_own_items_by_model_and_number(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    for id in "abcd":
        put(file, id, f"text {id}")
    put(file, "x", "of bo", owner="bo")
    assert file.without_vector(1, "m", 3) == [(1, "text a"), (2, "text b"), (3, "text c")]
    file.put_vectors(1, "m", {2: b"bb", 1: b"aa", 5: b"xx", 9: b"zz"})
    file.put_vectors(1, "other", {3: b"three"})
    assert file.vectors(1, "m", 0) == [(1, b"aa"), (2, b"bb")] and file.vectors(1, "m", 1) == [(2, b"bb")]
    assert file.vectors(1, "m", 2) == [] == file.vectors(2, "m", 0) and file.vectors(1, "other", 0) == [(3, b"three")]
    assert file.without_vector(1, "m", 9) == [(3, "text c"), (4, "text d")]
    assert file.without_vector(2, "m", 9) == [(5, "of bo")]
    file.put_vectors(1, "m", {1: b"AA", 4: b"dd"})
    assert file.vectors(1, "m", 0) == [(1, b"AA"), (2, b"bb"), (4, b"dd")]
    file.put_vectors(1, "m", {3: b"ccc"})
    assert file.vectors(1, "m", 3) == [(4, b"dd")]
    with pytest.raises(StoreError, match="its vectors are not all of one length"):
        file.vectors(1, "m", 0)


def test_beyond_the_bounds_replaced_items_go_oldest_first_then_the_oldest_of_all(tmp_path: Path) -> None:
    file, four = ItemFile(tmp_path / "m.db"), KeepingBounds(4, 1 << 20)
    for id, key, at in (("b", "k", 5), ("a", "k", 5), ("c", None, 1), ("d", "j", 9)):
        put(file, id, "tea", key, bounds=four, time=at)
    assert ids(file) == ["a", "b", "c", "d"], "four are allowed"
    put(file, "e", "tea", "i", bounds=four, time=3)
    assert ids(file) == ["a", "b", "d", "e"], "of one time none is replaced, so the oldest goes"
    put(file, "f", "tea", "k", bounds=four, time=6)
    assert ids(file) == ["a", "d", "e", "f"], "a and b are replaced; of one time the first that was written goes"
    put(file, "g", "tea", "j", bounds=four, time=10)
    assert ids(file) == ["d", "e", "f", "g"], "a is replaced too, and older than d"
    put(file, "x", "tea", "k", owner="bo", bounds=KeepingBounds(1, 1 << 20), time=0)
    assert ids(file) == ["d", "e", "f", "g", "x"], "a scope has bounds of its own"
    put(file, "h", "tea", None, bounds=KeepingBounds(2, 1 << 20), time=0)
    assert ids(file) == ["f", "g", "x"], "d is replaced; h and e are older than f and g"
    assert file.size(1).items == 2


def test_beyond_the_bytes_as_many_go_as_are_needed_and_a_hundredth_more(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    one = len(b'["tea",{"time":0}]')  # 18
    full = KeepingBounds(100, 11 * one)
    for number in range(11):
        put(file, f"{number:02}", "tea", bounds=full, time=number % 10)
    assert file.size(1) == (11, 11, 11 * one), "exactly as many bytes as there may be"
    put(file, "11", "tea", bounds=full, time=9)
    # 198 - 1 bytes are left at most, so 10 items; the oldest are those of time 0, by id
    assert file.size(1) == (10, 10, 10 * one) and ids(file) == [f"{number:02}" for number in (*range(1, 10), 11)]
    large = "tea " * 40
    put(file, "big", large, bounds=KeepingBounds(100, 250), time=0)
    assert file.size(1).size_bytes <= 248 and "big" not in ids(file), "the oldest, though it is new"
    assert len(ids(file)) == 10


def test_what_can_be_read_of_a_damaged_file_is_saved_and_the_rest_is_told_by_number(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    for number, owner in enumerate(("ann", "ann", "bo", "ann", "ann"), 1):
        put(file, f"i{number}", f"text {number}", owner=owner, n=number)
    with file._database.write() as connection:
        connection.execute("UPDATE items SET valid_s = valid_s + 1 WHERE number = 2")
        connection.execute("UPDATE items SET valid_s = valid_s + 1 WHERE number = 3")
    lost: list[int] = []
    assert [kept.item for kept in file.salvage("ann", "facts", lost.append)] == [
        item(f"i{number}", f"text {number}", n=number) for number in (1, 4, 5)
    ]
    assert lost == [2]
    assert list(file.salvage("bo", "facts", lost.append)) == [] and lost == [2, 3]
    assert list(file.salvage("cy", "facts", lost.append)) == [] and lost == [2, 3]
    with pytest.raises(StoreError, match="item 2 does not have the checksum it was stored with"):
        file.numbered([1, 2])
    file.close()
    copied = ItemFile(tmp_path / "m.db", create=False, salvage=True)
    kept = next(copied.salvage("ann", "facts", lost.append))
    assert (kept.number, kept.key, json.loads(json.dumps(kept.item.to_json()))["text"]) == (1, None, "text 1")
    assert copied._copies is not None and Path(copied._copies.name).is_dir() and copied.path == tmp_path / "m.db"
    copied.close()
    assert not Path(copied._copies.name).exists() and (tmp_path / "m.db").exists()


def test_a_file_is_made_with_its_folders_only_where_that_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        ItemFile(tmp_path)
    assert str(told.value) == f"{tmp_path} is a folder: give the file of a memory, such as {tmp_path / 'memory.db'}"
    with pytest.raises(StoreError):
        ItemFile(tmp_path / "none" / "m.db", create=False)
    assert not (tmp_path / "none").exists()
    (tmp_path / "plain").write_text("x")
    with pytest.raises(StoreError, match=r"plain/under/m\.db cannot be made: (Not a directory|File exists)$"):
        ItemFile(tmp_path / "plain" / "under" / "m.db")
    with pytest.raises(StoreError, match=r"none cannot be copied to be read: No such file or directory$"):
        ItemFile(tmp_path / "none", create=False, salvage=True)


def test_what_is_forgotten_is_in_no_file_while_the_program_goes_on_and_goes_later_where_another_reads(
    tmp_path: Path,
) -> None:
    def on_disk(word: bytes) -> bool:
        return any(word in each.read_bytes() for each in copied(tmp_path))

    file, other = ItemFile(tmp_path / "m.db"), sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    assert put(file, "a", "quuxfrob 1") and put(file, "b", "wibble 2") and put(file, "c", "kept 3")
    assert on_disk(b"quuxfrob") and on_disk(b"wibble")
    assert file.remove("ann", "facts", "a") and not on_disk(b"quuxfrob") and on_disk(b"wibble")
    assert put(file, "d", "new 4")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM items").fetchall()
    began = time.monotonic()
    assert file.remove("ann", "facts", "b") and ids(file) == ["c", "d"] and on_disk(b"wibble")
    assert time.monotonic() - began < 5, "it waits for nobody for long"
    other.execute("COMMIT")
    assert put(file, "e", "new 5") and not on_disk(b"wibble") and on_disk(b"kept 3")
    [(wait,)] = file._database.read("PRAGMA busy_timeout")
    assert wait == 10_000, "other writes wait as before"
    other.close()
    file.close()


def test_a_long_reader_does_not_hold_up_writes_and_closing_empties_the_log(tmp_path: Path) -> None:
    file, other = ItemFile(tmp_path / "m.db"), sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    assert put(file, "a", "quuxfrob 1")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM items").fetchall()
    assert file.remove("ann", "facts", "a")
    began = time.monotonic()
    for number in range(60):
        assert put(file, f"b{number}", "new")
    assert time.monotonic() - began < 60 * _LOG_WAIT_S, "no write waits for the reader"
    other.execute("COMMIT")
    assert any(b"quuxfrob" in each.read_bytes() for each in copied(tmp_path))
    file.close()
    assert not any(b"quuxfrob" in each.read_bytes() for each in copied(tmp_path)), "the other still has it open"
    other.close()


def copied(folder: Path) -> list[Path]:
    """Copies of its files, made by another process: closing a file here would drop SQLite's locks."""
    (folder / "copies").mkdir(exist_ok=True)
    for each in folder.glob("m.db*"):
        subprocess.run(["cp", str(each), str(folder / "copies")], check=True)
    return sorted((folder / "copies").iterdir())
