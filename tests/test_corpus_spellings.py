"""Items are found in a corpus in any case, Unicode form, blanks and marks, and other encodings are never called clean."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from firsthand.contamination import corpus_texts
from firsthand.contamination.leak_evidence import report
from firsthand.contamination.ngram_overlap import CorpusIndex, overlap_evidence
from firsthand.contamination.plain_words import plain_words
from firsthand.task import Task

FRENCH = "L'élève François a acheté huit pâtisseries à la boulangerie près de l'école, où sa mère était allée hier."
RUSSIAN = "Мария купила 13 яблок на рынке, отдала три яблока своей сестре и после этого купила ещё двенадцать яблок."
GERMAN = "Die große Straße führt über neun Brücken, außerdem liegen dort zwölf Häuser; wie viele heißen danach anders?"
INPUTS = {"fr": FRENCH, "ru": RUSSIAN, "de": GERMAN}


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    "spelt",
    [
        str.upper, str.lower, nfd, lambda text: nfd(text.upper()),
        lambda text: text.replace(" ", "\u00a0"), lambda text: text.replace(" ", "\u202f"),
        lambda text: text.replace(" ", "\u200b "), lambda text: text.replace("ss", "s\u00ads").replace("ти", "т\u2060и"),
        lambda text: "\u200b".join(text), lambda text: text.replace("'", "’").replace(",", "，"),
        lambda text: f"«\u00a0{text.replace(',', ' –')}…\u00a0»", lambda text: text.replace(" ", " \u200e"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", INPUTS)
def test_an_item_is_found_however_it_is_spelt(spelt: Callable[[str], str], language: str, tmp_path: Path) -> None:
    item = INPUTS[language]
    (tmp_path / "a.txt").write_text(f"x {spelt(item)} y", encoding="utf-8")
    (tmp_path / "b.txt").write_text(item)
    CorpusIndex.build(tmp_path / "a.txt", tmp_path / "index")
    for tasks, corpus in (([Task("t", item)], "a.txt"), ([Task("t", spelt(item))], "b.txt")):
        assert overlap_evidence(tasks, corpus=tmp_path / corpus).flagged == ("t",)
    assert overlap_evidence([Task("t", item)], index=tmp_path / "index").flagged == ("t",)


def test_words_have_one_spelling() -> None:
    for text, words in (
        ("ASCII, as it IS", "ASCII, as it IS"), ("Ünit e\u0301 STRASSE Straße", "ünit é strasse strasse"),
        ("ｶﾞか\u3099字", "ガ が  字  "), ("a\u00a0b½", "a b1 2"), ("i\ufe0fj\u00adk\U000e0101l\u034fm", "ijklm"),
        ("日。本", "日  本 "), ("a\u2028b", "a b"),
        ("ﬁn ² ﾊﾟ", "fin 2 パ "), ("가까\u1112\u1161\u11ab", "가까한"), ("ก็", "ก ็ "), ("€x×y‘z’", " x y z "),
    ):  # fmt: skip
        assert plain_words(text.encode()).decode() == words, text
        assert plain_words(words.encode()).decode().split() == words.split(), "the same again"
    assert plain_words(b"a\xff\xe9b") == b"a\xff\xe9b", "no UTF-8"


def test_words_of_long_texts_are_spelt_as_those_of_short_ones() -> None:
    few, many = f"{FRENCH.upper()}\u00a0«x»\u00ad 漢… ", f"{FRENCH}{''.join(map(chr, range(0x4E00, 0x4E40)))}，"
    for part in (few, many, nfd(many), RUSSIAN, "ｶﾞ ½ ", "a\udcff\u200b"):
        piece = part.encode("utf-8", "surrogateescape")
        assert plain_words(piece * 200) == plain_words(piece) * 200, part


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "gbk", "shift_jis"])
def test_a_file_in_another_encoding_is_not_read(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = {
        "cp1251": RUSSIAN.replace("ё", "е"),
        "gbk": "小明有三个苹果，他给了小红两个。",
        "shift_jis": "リンゴが三つあります。",
    }
    text = item.get(encoding, FRENCH)
    for size in (8, 1 << 20):
        monkeypatch.setattr(corpus_texts, "PIECE_BYTES", size)
        for name, raw in (
            ("a.txt", f"x {text}".encode(encoding)),
            ("a.md", json.dumps({"text": text}, ensure_ascii=False).encode(encoding)),
        ):
            path = tmp_path / name
            path.write_bytes(raw)
            told = report("b", "", [overlap_evidence([Task("t", text)], corpus=path)], corpus="c")
            assert told.verdict == "untested" and "has bytes that are not UTF-8: give it as UTF-8" in told.words
    monkeypatch.setattr(corpus_texts, "PIECE_BYTES", 5)
    for raw in (FRENCH.encode(), RUSSIAN.encode(), "é".encode()[:1] + b"", b"\xef\xbb\xbf" + FRENCH.encode()):
        (tmp_path / "b.txt").write_bytes(raw)
        assert overlap_evidence([Task("t", "w " * 13)], corpus=tmp_path / "b.txt").unread == ()
