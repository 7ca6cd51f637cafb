"""Memories in scripts without blanks are recalled by their words, those that an older version kept too."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.memories.keeping import item_file, item_words
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.kept_item import words_of
from firsthand.memory import MemoryItem
from test_memory_statistics import unwritable

TEXTS = {"cn": "东京是日本的首都", "th": "กรุงเทพเป็นเมืองหลวง", "en": "Tokyo is a café", "cn2": "东京", "bad": "京都"}


def test_the_words_of_a_text_without_blanks_are_its_pairs_of_letters() -> None:
    assert words_of("东京是") == {"东京": 1, "京是": 1, "东": 1, "京": 1, "是": 1}


def of_version_3(path: Path, monkeypatch: pytest.MonkeyPatch, *deleted: str) -> None:
    """A memory as the version before wrote it, which had deleted some: a text without blanks was one word."""
    with monkeypatch.context() as patched:
        patched.setattr("firsthand.retrieval.store.analyzer.spaced", lambda text, **_: text)
        words_of.cache_clear()
        file = ItemFile(path)
        for id, text in TEXTS.items():
            assert file.put("ann", "notes", MemoryItem(id, text), None, None)
        assert file.put("bo", "notes", MemoryItem("x", "东京"), None, None)
        assert all(file.remove("ann", "notes", id) for id in deleted)
        file.close()
    words_of.cache_clear()
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            "UPDATE items SET digest = digest + 1 WHERE id = 'bad'; DROP TABLE renewed; DROP TABLE imported;"
            "PRAGMA user_version = 3"
        )


def sound(path: Path, scope: int) -> bool:
    """True if words, postings and lengths are those of the items' texts as they are counted now."""
    with closing(sqlite3.connect(path)) as base:
        rows = base.execute(
            "SELECT i.id, w.word, p.count, p.length = i.length FROM postings p JOIN words w ON w.number = p.word "
            "JOIN items i ON i.number = p.item WHERE i.scope = ? AND i.id <> 'bad'",
            (scope,),
        ).fetchall()
        items = [id for (id,) in base.execute("SELECT id FROM items WHERE scope = ? AND id <> 'bad'", (scope,))]
        wanted = {(id, word, count, 1) for id in items for word, count in words_of(TEXTS.get(id, "东京")).items()}
        counted = base.execute(
            "SELECT count(*) FROM words w WHERE items <> (SELECT count(*) FROM postings WHERE word = w.number)"
        ).fetchone()[0]
        counted += base.execute(
            "SELECT count(*) FROM postings WHERE item NOT IN (SELECT number FROM items)"
        ).fetchone()[0]
        [sizes] = (base.execute("SELECT words FROM scopes WHERE number = ?", (scope,)).fetchone(),)
        length = base.execute("SELECT total(length) FROM items WHERE scope = ?", (scope,)).fetchone()[0]
    return set(rows) == wanted and counted == 0 and sizes[0] == length


@pytest.mark.parametrize("first", ["search", "put", "remove"])
def test_items_of_the_version_before_are_counted_anew_once_whatever_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    path = tmp_path / "m.db"
    of_version_3(path, monkeypatch)
    file = ItemFile(path)
    scope = file.scope("ann", "notes")
    if first == "search":
        assert file.size(scope).items == 5
    elif first == "put":
        assert file.put("ann", "notes", MemoryItem("new", "东京"), None, None)
    else:
        assert file.remove("ann", "notes", "en")
    assert file.words(scope, ["东京"])["东京"].items == (3 if first == "put" else 2)
    assert file.words(scope, ["日本"])["日本"].items == 1 and sound(path, scope)
    assert file.remove("ann", "notes", "cn") and file.words(scope, ["日本"]) == {} and sound(path, scope)
    assert file.remove("bo", "notes", "x") and sound(path, file.scope("bo", "notes"))
    file.close()
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("SELECT count(*) FROM renewed").fetchone() == (2,)
        assert base.execute("SELECT length FROM items WHERE id = 'bad'").fetchone() == (1,), "a damaged item stays"


def test_the_newest_items_are_counted_anew_though_older_ones_were_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.db"
    of_version_3(path, monkeypatch, "cn", "th", "en")
    file = ItemFile(path)
    for owner, items in (("ann", 2), ("bo", 1)):
        scope = file.scope(owner, "notes")
        assert file.size(scope).items == items and sound(path, scope)
        assert file.words(scope, ["京"])["京"].items == 1
    file.close()


def test_a_memory_of_the_version_before_that_cannot_be_written_is_searched_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.db"
    of_version_3(path, monkeypatch)
    unwritable(path, monkeypatch)
    file = ItemFile(path, create=False)
    scope = file.scope("ann", "notes")
    assert file.size(scope).items == 5 and file.words(scope, ["tokyo", "日本"]).keys() == {"tokyo"}
    with pytest.raises(StoreError, match="cannot be written"):
        file.remove("ann", "notes", "cn")


def test_others_write_between_the_steps_of_a_renewal_which_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.db"
    of_version_3(path, monkeypatch)
    monkeypatch.setattr(item_words, "_AT_ONCE", 1)
    file, other = ItemFile(path), ItemFile(path)
    scope = file.scope("ann", "notes")
    steps: list[float] = []

    def ended(seconds: float) -> None:
        steps.append(seconds)
        with other._database.write():  # nobody holds the file
            pass
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(item_file.time, "sleep", ended)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                file.size(scope)
        assert steps == [item_file._PAUSE_S] * 2 and file.words(scope, ["日本"]) == {}
        assert file._database.read("SELECT item FROM renewed") == [(3,)], "damaged 5, then 4 and English 3"
        for change in (
            lambda: other.put("ann", "notes", MemoryItem("cn", "东京是日本的首都"), None, None),
            lambda: other.put("ann", "notes", MemoryItem("new", "东京"), None, None),
            lambda: other.remove("ann", "notes", "th"),
        ):
            monkeypatch.setattr(other, "_count", lambda scope: None)  # as if its renewal were at the same place
            change()
    assert file.size(scope).items == 5 and sound(path, scope)
    assert file.words(scope, ["日本"])["日本"].items == 1 and file.words(scope, ["กร"]) == {}
    for each in (file, other):
        each.close()


def test_a_renewal_of_texts_in_ascii_is_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.db"
    file = ItemFile(path)
    for number in range(5):
        file.put("ann", "notes", MemoryItem(str(number), "tea"), None, None)
    file.put("ann", "notes", MemoryItem("e", "é"), None, None)
    with file._database.write() as connection:
        connection.execute("DELETE FROM renewed")
    file._counted.clear()
    monkeypatch.setattr(item_words, "_AT_ONCE", 2)
    monkeypatch.setattr(item_file.time, "sleep", lambda _: pytest.fail("it waited"))
    assert file.size(1).items == 6 and file._database.read("SELECT scope, item FROM renewed") == [(1, 0)]
    file.close()
