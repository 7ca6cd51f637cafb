"""Korean with its particles, Greek in capitals, ligatures, and wide and narrow letters: searched in indexes and memories."""

from __future__ import annotations

import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memory import MemoryItem
from firsthand.retrieval.chunk_index import of_length_one
from firsthand.retrieval.store.analyzer import Analyzer, has_older_forms
from firsthand.retrieval.store.index_file import LAST_CHUNK, NEWEST_VERSION, renewed_up_to, set_renewed_up_to
from firsthand.retrieval.store.letter_forms import plain_letters
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.store.unspaced_words import has_unspaced, spaced
from test_unspaced_words import HEADER, found, indexed

TEXTS = {
    "ko": "서울은 대한민국의 수도이다. 물 위에",
    "nfd": unicodedata.normalize("NFD", "부산에서 만나요"),
    "el": "Αθήνα είναι πρωτεύουσα, ὁδός",
    "ligature": "eﬃcient ﬁnal ＡＢＣ１２３",
    "kana": "ﾊﾟｿｺﾝを使う",
    "ar": "\ufedf\ufe8e دار",
    "sign": "Foo™ costs 5 m²",
}
SEARCHES = [
    ("서울", "ko"), ("수도", "ko"), ("수도이다", "ko"), ("물", "ko"), ("부산", "nfd"), ("ΑΘΗΝΑ", "el"), ("αθηνα", "el"),
    ("Αθήνα", "el"), ("ΠΡΩΤΕΥΟΥΣΑ", "el"), ("ΟΔΟΣ", "el"), ("οδός", "el"), ("efficient", "ligature"),
    ("eﬃcient", "ligature"), ("final", "ligature"), ("abc123", "ligature"),
    ("パソコン", "kana"), ("ﾊﾟｿｺﾝ", "kana"), ("لا", "ar"), ("foo", "sign"),
]  # fmt: skip


def test_words_are_found_in_each_of_their_forms() -> None:
    with open_index(":memory:", HEADER) as index:
        index.put([indexed(id, text) for id, text in TEXTS.items()])
        for asked, id in SEARCHES:
            assert found(index, asked) == [id], asked
            assert [each.document for each in index.chunks_with([asked])] == [id], asked
        assert index.verify() == [] and found(index, "울서") == found(index, "footm") == []


def test_other_letters_stay_as_they_are() -> None:
    for same in ("plain", "café Привет 東京", "Foo™ m² ½ № ①", "", "a\udc80"):
        assert plain_letters(same) == same and not has_unspaced("서울")
    assert plain_letters("ᾳΐς ﷺ") == "αισ صلى الله عليه وسلم" and plain_letters("𝐀x") == "Ax"
    assert spaced("서울은") == " 서울 울은 " and spaced("서울은", hangul=False) == "서울은"
    assert Analyzer().counts(["서울은"], form=3)[0] == {"서울은": 1} and has_older_forms("서울은")


@pytest.mark.parametrize("version", [3, 2**30 + 2, 2**31 - 2])
def test_an_index_of_the_version_before_is_searched_and_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    path = tmp_path / "x.db"
    with monkeypatch.context() as patched:
        patched.setattr("firsthand.retrieval.store.analyzer.plain_letters", lambda text: text)
        patched.setattr("firsthand.retrieval.store.analyzer.spaced", lambda text, **_: spaced(text, hangul=False))
        with open_index(path, HEADER) as index:
            index.put([indexed(id, text) for id, text in TEXTS.items()])
    with closing(sqlite3.connect(path)) as base:
        base.execute(f"PRAGMA user_version = {version}")
    with open_index(path, read_only=True) as reader:
        assert found(reader, "서울") == [] and found(reader, "서울은") == ["ko"] and found(reader, "Αθήνα") == ["el"]
        assert reader.needs_renewal() and reader.verify() == []
    with open_index(path) as index:
        index.renew_words()
        assert [found(index, asked) for asked, _ in SEARCHES] == [[id] for _, id in SEARCHES]
        assert not index.needs_renewal() and index.verify() == []
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (NEWEST_VERSION,)


def test_an_index_half_renewed_is_searched_and_refused_by_the_version_before(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as base:
        for number in (0, 1, LAST_CHUNK - 1, LAST_CHUNK):
            set_renewed_up_to(base, number)
            assert renewed_up_to(base) == number
            [version] = base.execute("PRAGMA user_version").fetchone()
            assert 3 < version < 2**30, "0.26 reads 1 to 3, those below 0, and those from 2**30 on"
        for older in (1, 3, -5, 2**30, 2**30 + 7, 2**31 - 2):
            base.execute(f"PRAGMA user_version = {older}")
            assert renewed_up_to(base) == 0


def test_a_memory_of_the_version_before_is_counted_anew(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    file.put("ann", "notes", MemoryItem("x", "서울은"), None, None)
    scope = file.scope("ann", "notes")
    assert file.words(scope, ["서울"])["서울"].items == 1
    file.close()
    with closing(sqlite3.connect(tmp_path / "m.db")) as base:
        assert base.execute("SELECT count(*) FROM renewed").fetchone() == (1,)
        base.execute("PRAGMA user_version = 7")
    file = ItemFile(tmp_path / "m.db")
    with closing(sqlite3.connect(tmp_path / "m.db")) as base:
        assert base.execute("SELECT count(*) FROM renewed").fetchone() == (0,)
    assert file.size(scope).items == 1 and file.words(scope, ["서울"])["서울"].items == 1
    file.close()


def test_a_korean_word_written_in_parts_is_looked_up(tmp_path: Path) -> None:
    with open_index(tmp_path / "x.db", HEADER) as index:
        index.put([indexed("ko", "서울은 좋다")])
        assert len(index.chunks_with([unicodedata.normalize("NFD", "서울은")])) == 1


def test_a_query_of_zeros_stays_one() -> None:
    assert not of_length_one(np.zeros(3, np.float32)).any()
