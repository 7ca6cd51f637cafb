"""Scopes, words and pieces of a memory's file: names and words that UTF-8 does not hold, many numbers at once, gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import StoreError
from firsthand.memories.keeping import item_file
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds, ScopeSize
from firsthand.memories.keeping.kept_item import words_of
from firsthand.memory import MemoryItem

MANY = KeepingBounds()
LONE = "\udc80ann"
"""A name as a terminal of another encoding gives it."""


def item(id: str, text: str, **provenance: Any) -> MemoryItem:
    return MemoryItem(id, text, provenance)


def rows(file: ItemFile, columns: str, table: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in file._database.read(f"SELECT {columns} FROM {table} ORDER BY {columns}")]


def test_an_owner_whose_name_utf_8_does_not_hold_is_looked_up_listed_and_forgotten_as_any_other(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    said = "tea \udcffcup é tea"
    for owner, id in ((LONE, "a"), ("\\udc80bo", "b"), (LONE, "c"), ("ann ", "d"), ("ann", "e")):
        assert file.put(owner, "facts", item(id, said, by=LONE, time=0), None, MANY)
    assert not file.put(LONE, "facts", item("a", "again"), None, MANY)
    scope = file.scope(LONE, "facts")
    assert scope == file.scope("\\udc80ann", "facts") == 1 and file.scope("ann ", "facts") == 3
    assert [file.scope(owner, "facts") for owner in ("Ann", " ann", "ann  ", "", "ann")] == [0, 0, 0, 0, 4]
    assert [owner for owner, _, _ in file.scopes()] == ["\\udc80ann", "\\udc80bo", "ann", "ann "]
    kept = file.with_id(scope, "c")
    assert kept is not None and (kept.item, kept.valid_s) == (item("c", said, by=LONE, time=0), 0.0)
    assert [each.item for each in file.salvage(LONE, "facts", lambda number: None)] == [
        item(id, said, by=LONE, time=0) for id in "ac"
    ]
    words = sorted(words_of(said))
    assert file.words(scope, words).keys() == {word for (word,) in rows(file, "word", f"words WHERE scope = {scope}")}
    assert file.words(scope, ["\udcff", "tea", "none"]).keys() == {"tea"}
    assert file.remove(LONE, "facts", "a") and not file.remove(LONE, "facts", "\udcff") and file.size(scope).items == 1
    assert file.with_id(scope, "\udcff") is None
    assert file.remove(LONE, "facts", "c") and file.size(scope) == ScopeSize(0, 0, 0)
    assert rows(file, "word", f"words WHERE scope = {scope}") == [], "the words of the last item went with it"
    assert len(rows(file, "word, item", "postings")) == 3 * len(words)


def test_many_numbers_are_read_in_pieces_of_500_and_joined(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    with file._database.write() as connection:
        connection.execute("INSERT INTO sqlite_sequence VALUES ('items', 499)")
    for number in range(500, 504):
        file.put("ann", "facts", item(f"i{number}", f"tea {'tea ' * (number - 500)}", n=number), "k", MANY)
    (word,) = (row.number for row in file.words(1, ["tea"]).values())
    some = [503, *range(1_000, 1_498), 502, 500, *range(2_000, 2_498), 501]
    assert (some.index(502), some.index(500), some.index(501)) == (499, 500, 999), "the last and the first of a piece"
    assert file.ids(some) == {number: f"i{number}" for number in range(500, 504)}
    found = file.numbered(some)
    assert {number: kept.item.provenance for number, kept in found.items()} == {n: {"n": n} for n in range(500, 504)}
    assert {kept.number for kept in found.values()} == {*found} and all(kept.key == "k" for kept in found.values())
    assert sorted(file.postings_of(word, some)) == [(500 + n, n + 1, n + 1) for n in range(4)]
    assert (file.ids([]), file.numbered([]), file.postings_of(word, [])) == ({}, {}, [])
    assert sorted(file.postings(word, 502)) == [(500, 1, 1), (501, 2, 2), (502, 3, 3)]


def test_a_salvage_goes_on_over_gaps_and_ends_after_ten_thousand_numbers_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert item_file._MOST_MISSES == 10_000
    monkeypatch.setattr(item_file, "_MOST_MISSES", 10)
    file = ItemFile(tmp_path / "m.db")
    for last, id in ((6, "a"), (14, "b"), (24, "c"), (32, "d")):
        file.put("ann" if id != "b" else "bo", "facts", item(id, "tea"), None, MANY)
        with file._database.write() as connection:
            connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'items'", (last,))
    file.put("ann", "facts", item("e", "tea"), None, MANY)
    assert rows(file, "number, id", "items") == [(1, "a"), (7, "b"), (15, "c"), (25, "d"), (33, "e")]
    told: list[int] = []

    def saved() -> list[str]:
        return [kept.item.id for kept in file.salvage("ann", "facts", told.append)]

    assert saved() == ["a", "c", "d", "e"] and told == [], "the item of another owner ends a gap too"
    with file._database.write() as connection:
        connection.execute("UPDATE items SET length = 2 WHERE number = 33")
    assert saved() == ["a", "c", "d"] and told == [33], "the last number is read"
    file.remove("ann", "facts", "d")
    with file._database.write() as connection:
        connection.execute("UPDATE items SET length = 2 WHERE number = 15")
        connection.execute("UPDATE items SET length = 1 WHERE number = 33")
    assert saved() == ["a"] and told == [33, 15], "one that cannot be read counts: 8 to 14, 16 and 17 are not there"


def test_each_connection_that_deletes_is_told_to_overwrite_what_it_deletes(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    ItemFile(path).put("ann", "facts", item("a", "secret plan"), None, MANY)

    def secure(file: ItemFile) -> int:
        return int(file._database.read("PRAGMA secure_delete")[0][0])

    for change in (
        lambda file: file.put("ann", "facts", item("b", "x"), None, MANY),
        lambda file: file.remove("ann", "facts", "b"),
        lambda file: file.put_vectors(1, "m", {1: b"v"}),
    ):
        file = ItemFile(path)
        with file._database.write() as connection:
            connection.execute("PRAGMA secure_delete = OFF")
        change(file)
        assert secure(file) == 1
        file.close()
    file = ItemFile(path)
    assert b"secret plan" in path.read_bytes() + path.with_name("m.db-wal").read_bytes()
    assert file.remove("ann", "facts", "a")
    file.checkpoint()
    left = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert b"secret" not in left and b"plan" not in left and path.with_name("m.db-wal").stat().st_size == 0


def test_vectors_of_other_scopes_and_models_may_be_of_other_lengths(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    for owner, id in (("ann", "a"), ("bo", "a"), ("ann", "b")):
        file.put(owner, "facts", item(id, f"{owner} {id}"), None, MANY)
    file.put_vectors(1, "m", {1: b"11", 3: b"33", 2: b"of bo"})
    file.put_vectors(2, "m", {2: b"2222", 3: b"no"})
    file.put_vectors(1, "n", {3: b"333"})
    assert (file.vectors(1, "m", 0), file.vectors(2, "m", 0)) == ([(1, b"11"), (3, b"33")], [(2, b"2222")])
    assert file.vectors(1, "n", 2) == [(3, b"333")] and file.vectors(1, "n", 3) == [] == file.vectors(1, "none", 0)
    assert file.without_vector(1, "n", 5) == [(1, "ann a")] and file.without_vector(2, "n", 1) == [(2, "bo a")]
    file.put("ann", "facts", item("0", "the last"), None, MANY)
    assert file.without_vector(1, "none", 2) == [(1, "ann a"), (3, "ann b")], "in the order of writing"
    file.put_vectors(1, "m", {1: b"1"})
    for after, fails in ((0, True), (1, False), (3, False)):
        if fails:
            with pytest.raises(StoreError, match="its vectors are not all of one length"):
                file.vectors(1, "m", after)
        else:
            assert file.vectors(1, "m", after) == [(3, b"33")][after // 3 :]


def test_a_newer_version_saves_a_fact_of_its_own_scope_and_key_alone_from_nothing(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    three = KeepingBounds(3, 1 << 20)
    for owner, kind, id, key, at in (
        ("ann", "facts", "old", "k", -9), ("bo", "facts", "x", "k", 99), ("ann", "past", "y", "k", 99),
        ("ann", "facts", "b", "j", 0), ("ann", "facts", "c", "j", 7), ("ann", "facts", "d", None, -5),
    ):  # fmt: skip
        file.put(owner, kind, item(id, "tea", time=at), key, three)
    left = [kept.item.id for kept in file.newest_first(1, 99, None, 9)]
    assert left == ["c", "d", "old"], "b was replaced; the newer facts of k are of other scopes"
    file.put("ann", "facts", item("e", "tea", time=-5), None, three)
    assert [kept.item.id for kept in file.newest_first(1, 99, None, 9)] == ["c", "d", "e"]
    assert [(kept.item.id, kept.valid_s) for kept in file.newest_first(1, 99, (7.0, "c"), 1)] == [("d", -5.0)]
    assert file.latest_s(1, 99) == 7.0 and file.latest_s(2, 99) == 99.0
    file.put("cy", "facts", item("z", "tea", time=0), None, three)
    assert file.latest_s(file.scope("cy", "facts"), 99) == 0.0, "the time 0 is a time"
