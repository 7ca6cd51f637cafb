"""Searches of texts in scripts without blanks, and indexes of the version before them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import StoreError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.store import document_rows, sqlite_index, term_renewal
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.index_file import IndexFile
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.retrieval.store.unspaced_words import has_unspaced, spaced

HEADER = IndexHeader("", "", 0, "c")
TEXTS = {
    "capitals": "东京是日本的首都。北京是中国的首都。",
    "kana": "ニューヨーク・タイムズを読みました。iPhone手机",
    "thai": "กรุงเทพเป็นเมืองหลวงของประเทศไทย",
    "english": "The capital of Japan is Tokyo, a café there",
    "korean": "도쿄는 일본의 수도",
}


def indexed(id: str, text: str, heading: str = "") -> IndexedDocument:
    return IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text, heading)], None)


def filled(path: str | Path = ":memory:") -> SqliteIndex:
    index = open_index(path, HEADER)
    index.put([indexed(id, text) for id, text in TEXTS.items()])
    return index


def found(index: SqliteIndex, text: str) -> list[str]:
    return [hit.chunk.document for hit in index.search_terms(text, 9, {})]


def of_version_1(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index as 0.21 wrote it."""
    with monkeypatch.context() as patched:
        patched.setattr("firsthand.retrieval.store.analyzer.spaced", lambda text, **_: text)
        with closing(filled(path)) as index:
            index.put([indexed("heading", "see below", "首都")])
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA user_version = 1")


def test_words_without_blanks_are_found_by_their_letters() -> None:
    with filled() as index:
        assert [found(index, each) for each in ("东京", "日本的首都", "京", "タイムズ", "読みました", "手机", "iPhone")] == [
            ["capitals"], ["capitals"], ["capitals"], ["kana"], ["kana"], ["kana"], ["kana"]
        ]  # fmt: skip
        assert found(index, "กรุงเทพ") == found(index, "เมืองหลวง") == ["thai"] and found(index, "ฟหก") == []
        assert found(index, "ズ") == found(index, "ทด") == found(index, "数") == []
        assert found(index, "tokyo capitals") == ["english"] and found(index, "수도") == ["korean"]
        assert index.verify() == []
        assert [each.document for each in index.chunks_with(["日本的首都"])] == ["capitals"]
        assert index.chunks_with(["本日"]) == [] and index.chunks_with(["日本", "tokyo"]) == []


def test_words_are_pairs_of_letters_and_single_chinese_characters() -> None:
    assert (
        spaced("在a東京都b") == " 在 a 東京 京都 東 京 都 b" and spaced("猫") == " 猫 " and spaced("ねこ") == " ねこ "
    )
    assert spaced("กรุง") == " กร รง " and spaced("ア・イウ") == " ア ・ イウ " and spaced("\u3099") == "  "
    assert spaced("𠮷野") == " 𠮷野 𠮷 野 " and spaced("ｱｲ") == " ｱｲ "
    for same in ("plain words", "café Ωmega Привет", "a\udc80b", "", "๑๒ 、。"):
        assert spaced(same) == same and not has_unspaced(same)
    assert has_unspaced("a 猫")
    assert Analyzer().counts(["東京 Cars\udc80"])[0] == {"東京": 1, "東": 1, "京": 1, "car": 1}
    assert Analyzer().counts(["東京都 Cars"], form=1)[0] == {"東京都": 1, "car": 1}


def test_other_texts_have_the_words_that_they_had() -> None:
    for text in (TEXTS["english"], "naïve Ärger 24x7 Привет мир αβγ"):
        assert Analyzer().counts([text]) == Analyzer().counts([text], form=1)


def test_an_index_of_the_version_before_is_read_as_it_is_and_renewed_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    of_version_1(path, monkeypatch)
    reader = open_index(path, read_only=True)
    assert found(reader, "東京 tokyo") == ["english"] and found(reader, "东京") == [] and reader.verify() == []
    again = open_index(path)
    assert found(again, "东京") == [] and found(again, "tokyo") == ["english"]
    with open_index(path) as writer:
        assert writer.put([indexed("new", "京都")]).added == ("new",)
        assert (
            found(writer, "东京")[0] == "capitals" and found(writer, "首都")[0] == "heading" and writer.verify() == []
        )
        assert found(writer, "tokyo") == ["english"]
    assert found(reader, "tokyo") == ["english"], "a process that has it open goes on"
    assert again.delete(["capitals"]) == ("capitals",) and found(again, "日本") == [] and again.verify() == []
    assert found(again, "京都")[0] == "new"
    assert (
        set(found(reader, "本的首都")) == {"heading", "new"}
        and found(reader, "京都")[0] == "new"
        and reader.verify() == []
    )
    assert [each.document for each in reader.chunks_with(["首都"])] == ["heading"]
    for each in (reader, again):
        each.close()
    with open_index(path, read_only=True) as reader, closing(sqlite3.connect(path)) as base:
        assert found(reader, "タイムズ") == ["kana"] and base.execute("PRAGMA user_version").fetchone() == (4,)


def test_an_index_is_renewed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    of_version_1(path, monkeypatch)
    with closing(sqlite3.connect(path)) as base:
        base.execute("UPDATE chunks SET text = 7 WHERE id = (SELECT id FROM chunks ORDER BY number DESC LIMIT 1)")
        base.execute("UPDATE chunks SET text = CAST(x'ff' AS BLOB) WHERE number = 4")
        base.commit()
    with open_index(path) as index:
        with pytest.raises(StoreError, match=r"x\.db is damaged: a row cannot be read"):
            index.delete(["english"])
        assert not index._file.has_newest_words() and "english" in index.hashes()


def test_documents_are_renewed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    of_version_1(path, monkeypatch)
    calls: list[IndexFile] = []
    renew = sqlite_index.renew_terms

    def counted(file: IndexFile, *more: Any) -> None:
        calls.append(file)
        renew(file, *more)

    monkeypatch.setattr(sqlite_index, "renew_terms", counted)
    for _ in range(2):
        with open_index(path) as index:
            index.put([indexed("a", "b")])
            index.put([indexed("a", "c")])
    assert len(calls) == 1


def test_a_renewal_that_was_ended_goes_on_where_it_was_and_is_searched_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    of_version_1(path, monkeypatch)
    monkeypatch.setattr(term_renewal, "_AT_ONCE", 2)
    told: list[tuple[int, int]] = []

    def end_it(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with open_index(path, read_only=True) as reader, open_index(path) as index:
        assert found(reader, "東京 tokyo") == ["english"] and found(reader, "กรุงเทพเป็นเมืองหลวงของประเทศไทย") == ["thai"]
        with pytest.raises(KeyboardInterrupt):
            index.renew_words(end_it)
        version = index._file._connection.execute("PRAGMA user_version").fetchone()[0]
        assert version == 2**29 + 2 and not index._file.has_newest_words() and index.verify() == []
        for each in (reader, index):
            assert found(each, "tokyo") == ["english"]
            assert found(each, "กรุงเทพเป็นเมืองหลวงของประเทศไทย") == ["thai"], "not renewed yet"
        assert found(index, "日本") == ["capitals"] and index.chunks_with(["日本"])
        with open_index(path, read_only=True) as later:
            assert found(later, "日本") == ["capitals"] and found(later, TEXTS["thai"]) == ["thai"]
        index.renew_words(lambda *state: told.append(state))
        assert told == [(2, 6), (4, 6), (6, 6), (6, 6)] and index._file.has_newest_words()
        for each in (reader, index):
            assert found(each, "เมืองหลวง") == ["thai"] and found(each, "日本") == ["capitals"] and each.verify() == []


def test_a_chunk_with_a_number_that_no_version_can_say_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    of_version_1(path, monkeypatch)
    with closing(sqlite3.connect(path)) as base:
        base.execute("UPDATE chunks SET number = 536870911 WHERE number = 6")
        base.commit()
    with open_index(path) as index, pytest.raises(StoreError, match=r"damaged: a chunk has the number 536870911"):
        index.renew_words()


def test_many_new_words_of_a_document_take_few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_rows, "_WORDS_AT_ONCE", 3)
    with open_index(":memory:", HEADER) as index:
        queries: list[str] = []
        index._file._connection.set_trace_callback(lambda sql: queries.append(sql[:20]))
        index.put([indexed("a", "b c d e f g")])
        assert queries.count("SELECT word, number ") == 2
        index._words.clear()
        index.put([indexed("b", "g h b a"), indexed("c", "a h z")])
        assert index.verify() == [] and sorted(found(index, "g")) == ["a", "b"] and found(index, "h z") == ["c", "b"]


def test_words_of_a_document_that_was_not_stored_are_stored_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_index(":memory:", HEADER) as index:
        index.put([indexed("a", "fox")])
        with monkeypatch.context() as patched:
            patched.setattr(document_rows, "put_document", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                index.put([indexed("b", "hen owl")])
        index.put([indexed("c", "ant bee"), indexed("b", "hen owl")])
        assert index.verify() == [] and found(index, "owl") == ["b"] and found(index, "bee") == ["c"]
