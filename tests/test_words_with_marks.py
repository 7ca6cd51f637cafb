"""Words with vowel signs and points are found whole, in indexes and memories of older versions too."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.memories.keeping import item_words
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.kept_item import words_of
from firsthand.memories.notes import notes
from firsthand.memory import MemoryItem
from firsthand.retrieval.store import term_renewal
from firsthand.retrieval.store.analyzer import Analyzer, has_older_forms
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.records import Record
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.store.word_marks import _COMPOSED, _NEAR, marked, marks, words_with_marks
from firsthand.retrieval.tools.search import SearchIndex
from listed_records import ListedRecords
from test_unspaced_words import HEADER, found, indexed

TEXTS = {
    "time": "काल",
    "nail": "कील",
    "fort": "किला",
    "tamil": "தமிழ் மொழி",
    "arabic": "كِتَابٌ جَدِيدٌ",
    "hebrew": "שָׁלוֹם",
    "japanese": "東京都",
    "mixed": "東京都 किला",
    "english": "The café co\u00adoperates",
    "plain": "tea",
}
_KEPT = "firsthand.retrieval.store.analyzer"


def of_version(path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index as an older version wrote it: below 0, one that was renewing it from the first form to the second."""
    with closing(open_index(path, HEADER)) as index:
        for number, (id, text) in enumerate(TEXTS.items(), 1):
            with monkeypatch.context() as patched:
                patched.setattr(f"{_KEPT}.marked", lambda text, **_: text)
                if version == 1 or number > -version > 0:
                    patched.setattr(f"{_KEPT}.spaced", lambda text, **_: text)
                index.put([indexed(id, text)])
    with closing(sqlite3.connect(path)) as base:
        base.execute(f"PRAGMA user_version = {version}")


def test_words_of_other_vowels_are_others_and_points_are_none() -> None:
    with open_index(":memory:", HEADER) as index:
        index.put([indexed(id, text) for id, text in TEXTS.items()])
        assert found(index, "काल") == ["time"] and found(index, "कील") == ["nail"]
        assert sorted(found(index, "किला")) == ["fort", "mixed"] and found(index, "कुल") == found(index, "क") == []
        assert found(index, "தமிழ்") == ["tamil"] and found(index, "தமழ") == []
        assert found(index, "كتاب") == found(index, "كِتَابٌ") == found(index, "كتـــاب") == ["arabic"]
        assert found(index, "שלום") == ["hebrew"] and found(index, "cooperate") == ["english"]
        assert [each.document for each in index.chunks_with(["கொடி"])] == []
        assert [each.document for each in index.chunks_with(["தமிழ்", "மொழி"])] == ["tamil"]
        assert [each.document for each in index.chunks_with(["மொழி", "தமி"])] == ["tamil"], "a beginning"
        assert [each.document for each in index.chunks_with(["東京", "किला"])] == ["mixed"]
        assert index.verify() == []


def test_a_word_is_alike_in_every_text() -> None:
    for word, spelled in (
        ("स\u095cक", "सड\u093cक"), ("\u09df", "\u09af\u09bc"), ("\ufb2a", "\u05e9"), ("क्\u200dष", "क्ष"),
        ("\u0929", "न\u093c")
    ):  # fmt: skip
        assert marked(word) == marked(spelled) and marked(f"किला {word}") == f"{marked('किला')} {marked(spelled)}"
    decomposed = "\u1112\u1161\u11ab"  # a Korean syllable as three letters
    assert marked(f"{decomposed} किला") == f"{decomposed} {marked('किला')}"
    assert not any(map(has_older_forms, ("café cafe\u0301", "Привет", "كتاب", "שלום", "می‌خواهم")))
    assert words_with_marks("किला, क्\u200dष_1 तक! it's") == ["किला", "क्ष_1", "तक", "it", "s"]


@pytest.mark.parametrize("version", [1, 2, -7, -8])
def test_an_index_of_an_older_version_is_searched_as_it_is_and_renewed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    path = tmp_path / "x.db"
    of_version(path, version, monkeypatch)
    monkeypatch.setattr(term_renewal, "_AT_ONCE", 3)
    monkeypatch.setattr("firsthand.retrieval.store.document_rows._WORDS_AT_ONCE", 2)

    def end_it(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with open_index(path, read_only=True) as reader:
        assert reader.verify() == [] and "fort" in found(reader, "किला") and found(reader, "كِتَابٌ") == ["arabic"]
        assert {"japanese", "mixed"} == {*found(reader, "東京都")} and found(reader, "cafe") == ["english"]
        assert [each.document for each in reader.chunks_with(["東京都"])] == ["japanese", "mixed"]
        assert [each.document for each in reader.chunks_with(["tea"])] == ["plain"]
        with open_index(path) as index:
            assert index.needs_renewal()
            with pytest.raises(KeyboardInterrupt):
                index.renew_words(end_it)
            assert index._file._connection.execute("PRAGMA user_version").fetchone() == (2**29 + 3,)
        with open_index(path) as index:
            assert index.verify() == []
            for each in (reader, index):
                assert "fort" in found(each, "किला")
                assert {"japanese", "mixed"} == {*found(each, "東京都")}, "not renewed yet"
                assert [each.document for each in each.chunks_with(["किला"])] == ["fort"]
                assert [each.document for each in each.chunks_with(["東京都"])] == ["japanese", "mixed"]
            assert "nail" in found(index, "कील")
            index.renew_words()
            assert not index.needs_renewal()
        with open_index(path) as index:
            assert index.verify() == []
            for each in (reader, index):
                assert found(each, "कील") == ["nail"] and found(each, "क") == []
                assert found(each, "كتاب") == ["arabic"] and sorted(found(each, "京都")) == ["japanese", "mixed"]
            assert index.delete(["mixed"]) == ("mixed",) and index.verify() == [] and found(index, "किला") == ["fort"]


@pytest.mark.parametrize("words", [b"", b"x", (7).to_bytes(4, "little") + (9).to_bytes(4, "little")])
def test_a_chunk_whose_words_no_version_wrote_is_damaged_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    path = tmp_path / "x.db"
    of_version(path, 2, monkeypatch)
    with closing(sqlite3.connect(path)) as base:
        base.execute("UPDATE chunks SET words = ? WHERE number = 2", (words,))
        base.commit()
    with open_index(path) as index, pytest.raises(StoreError, match=r"is damaged: (the chunk 2 has other words|a row)"):
        index.renew_words()
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (2,)


def test_versions_between_the_newest_and_those_of_a_renewal_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    open_index(path, HEADER).close()
    for version, is_known in (
        (3, True),
        (4, True),
        (5, False),
        (2**29 - 1, False),
        (2**29, True),
        (2**30, True),
        (2**31 - 2, True),
        (2**31 - 1, False),
    ):
        with closing(sqlite3.connect(path)) as base:
            base.execute(f"PRAGMA user_version = {version}")
        if is_known:
            with open_index(path) as index:
                assert index.needs_renewal() == (version != 4)
        else:
            with pytest.raises(StoreError, match=f"has schema version {version}, and this firsthand knows 4"):
                open_index(path)


def test_scores_of_other_texts_in_an_older_index_are_those_of_a_new_one(tmp_path: Path) -> None:
    scores = []
    for version in (2, 3):
        with open_index(tmp_path / f"{version}.db", HEADER) as index:
            index.put([indexed("a", "tea with 東京 and tea"), indexed("b", "coffee")])
            index._file._connection.execute(f"PRAGMA user_version = {version}")
            scores.append([hit.score for hit in index.search_terms("tea tea 東京", 9, {})])
    assert scores[0] == scores[1] and len(scores[0]) == 1


@pytest.mark.parametrize("form", [1, 2])
def test_memories_of_an_older_version_are_counted_anew_at_their_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: int
) -> None:
    path = tmp_path / "m.db"
    with monkeypatch.context() as patched:
        patched.setattr(f"{_KEPT}.marked", lambda text, **_: text)
        if form == 1:
            patched.setattr(f"{_KEPT}.spaced", lambda text, **_: text)
        words_of.cache_clear()
        with closing(ItemFile(path)) as file:
            for id, text in TEXTS.items():
                assert file.put("ann", "notes", MemoryItem(id, text), None, None)
            scope = file.scope("ann", "notes")
            assert file.size(scope).items == len(TEXTS)
    monkeypatch.setattr(item_words, "_AT_ONCE", 1)  # so that some items have the words of the newest form before others
    words_of.cache_clear()
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("SELECT item FROM renewed").fetchall() == [(0,)], "as that version had it: done"
        base.execute("PRAGMA user_version = 6")
    with closing(ItemFile(path)) as file:
        assert file.size(scope).words == sum(sum(words_of(text).values()) for text in TEXTS.values())
        known = {word for text in TEXTS.values() for word in words_of(text)}
        assert {word: row.items for word, row in file.words(scope, [*known]).items()} == {
            word: sum(word in words_of(text) for text in TEXTS.values()) for word in known
        }
        assert file.words(scope, ["क", "ल", "ك", "東京都"]) == {}
        assert file.remove("ann", "notes", "fort") and file.words(scope, [*words_of("किला")])
        assert file.remove("ann", "notes", "mixed") and file.words(scope, [*words_of("किला")]) == {}
        assert all(file.remove("ann", "notes", id) for id in TEXTS if id not in ("fort", "mixed"))
        assert file._database.read("SELECT count(*) FROM words") == [(0,)]
        assert file._database.read("SELECT count(*) FROM postings") == [(0,)]


def test_notes_are_found_by_words_with_their_marks() -> None:
    async def asked(query: str) -> list[str]:
        kept = notes()
        for text in ("काल", "किला", "كِتَابٌ"):
            await kept.write(MemoryItem(text, text))
        return [item.text for item in await kept.search(query, 1)]

    assert asyncio.run(asked("किला")) == ["किला"] and asyncio.run(asked("كتاب")) == ["كِتَابٌ"]


def test_words_are_counted_by_any_form_for_an_index_of_several() -> None:
    assert Analyzer().counts_of_any_form("東京都 कि tea tea").keys() >= {"東京都", "東京", "क", "tea", marked("कि")}
    assert Analyzer().counts_of_any_form("tea tea") == {"tea": 2}


def test_a_server_with_chunks_of_an_older_version_is_searched_in_all_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ListedRecords()
    index = RecordIndex(store, "the shelf", HEADER)
    with monkeypatch.context() as patched:
        patched.setattr(f"{_KEPT}.marked", lambda text, **_: text)
        index.put([indexed("fort", TEXTS["fort"]), indexed("plain", "tea")])
    for name, record in store.records.items():
        fields = {key: value for key, value in record.fields.items() if key != "form"}
        store.records[name] = Record(name, fields, record.payload, record.vector)
    assert [hit.chunk.document for hit in index.search_terms("किला", 9, {})] == ["fort"]
    index.put([indexed("nail", TEXTS["nail"])])
    assert {hit.chunk.document for hit in index.search_terms("कील", 9, {})} == {"nail", "fort"}
    index.delete(["fort", "plain"])
    assert index.search_terms("किला", 9, {}) == [] and index.search_terms("क", 9, {}) == []
    assert [hit.chunk.document for hit in index.search_terms("कील", 9, {})] == ["nail"]


def test_the_search_tools_take_words_with_their_marks(tmp_path: Path) -> None:
    for id in ("time", "nail", "fort"):
        (tmp_path / f"{id}.txt").write_text(f"{TEXTS[id]}_x।")
    made = SearchIndex(tmp_path)
    assert [hit.id for hit in made.find("किला")] == ["fort.txt"]
    assert "fort.txt" in made.lookup("किला_x") and "result 1 of 1" in made.lookup("किला")


def test_the_ranges_that_are_looked_for_first_hold_all_marks() -> None:
    composed = [chr(place) for first, last in _COMPOSED for place in range(first, last + 1)]
    assert all(_NEAR.search(each) for each in [*marks(), *composed])
    assert not _NEAR.search("café “quoted” — it’s Привет 東京 Ελλάς 한국어 5 €")
