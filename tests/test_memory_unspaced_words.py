"""Memories in scripts without blanks are recalled by their words, those that an older version kept too."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.kept_item import words_of
from firsthand.memory import MemoryItem
from test_memory_statistics import unwritable

TEXTS = {"cn": "东京是日本的首都", "th": "กรุงเทพเป็นเมืองหลวง", "en": "Tokyo is a café", "cn2": "东京", "bad": "京都"}


def test_the_words_of_a_text_without_blanks_are_its_pairs_of_letters() -> None:
    assert words_of("东京是") == {"东京": 1, "京是": 1, "东": 1, "京": 1, "是": 1}


def of_version_3(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory as the version before wrote it: a text without blanks was one word."""
    with monkeypatch.context() as patched:
        patched.setattr("firsthand.retrieval.store.analyzer.spaced", lambda text: text)
        words_of.cache_clear()
        file = ItemFile(path)
        for id, text in TEXTS.items():
            assert file.put("ann", "notes", MemoryItem(id, text), None, None)
        assert file.put("bo", "notes", MemoryItem("x", "东京"), None, None)
        file.close()
    words_of.cache_clear()
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            "UPDATE items SET digest = digest + 1 WHERE id = 'bad'; DROP TABLE renewed; PRAGMA user_version = 3"
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
