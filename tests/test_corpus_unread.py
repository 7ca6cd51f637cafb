"""A corpus is searched whole: rows of every layout, and files that are not read are told and never called clean."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import refused
from firsthand.contamination import corpus_texts
from firsthand.contamination.corpus_texts import BETWEEN, pieces
from firsthand.contamination.leak_evidence import Evidence, report
from firsthand.contamination.ngram_overlap import CorpusIndex, overlap_evidence
from firsthand.errors import ConfigError
from firsthand.task import Task

WORDS = " ".join(f"w{at}" for at in range(20))
TASK = Task("t", WORDS)
TURNS = [{"role": "user", "content": WORDS}, {"role": "assistant", "content": "so"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"conversations": [{"from": "human", "value": WORDS}]},
        {"instruction": "Do it.", "input": WORDS, "output": ""},
        {"id": 1, "data": {"deep": [[{"er": ["x", WORDS]}]]}},
        {"text": "", "chosen": TURNS, "rejected": []},
        {"text": None, "body": WORDS, "vector": [0.5, 1.5]},
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.NDJSON", "a.Jsonl.GZ"])
def test_every_text_of_a_row_is_searched_at_any_depth(row: dict[str, Any], name: str, tmp_path: Path) -> None:
    raw = (json.dumps(row) + "\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("GZ") else raw)
    found = overlap_evidence([TASK], corpus=tmp_path)
    assert found.flagged == ("t",) and found.unread == ()
    assert not any(b'"' in piece for piece in pieces(tmp_path / name)), "read as JSON"


def test_texts_of_a_row_stand_in_their_order_known_fields_first(tmp_path: Path) -> None:
    row = {"z": "6", "answer": "3", "list": ["7", {"b": "9", "question": "8"}], "question": {"x": ["1", "2"]}, "n": 4}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert list(pieces(tmp_path / "a.jsonl")) == [b"1\n2\n3\n6\n7\n8\n9"]


UNREAD = {
    "a.txt": (WORDS.encode("utf-16"), "is UTF-16"),
    "b.txt": (b"\xfe\xff" + WORDS.encode("utf-16-be"), "is UTF-16"),
    "c.txt": (WORDS.encode("utf-16-le"), "has zero bytes as no text has"),
    "d.jsonl": (json.dumps({"text": WORDS}).encode("utf-16"), "is UTF-16"),
    "e.txt.bz2": (bz2.compress(WORDS.encode()), "is bzip2"),
    "f.jsonl.xz": (lzma.compress(WORDS.encode()), "is xz"),
    "g.jsonl.zst": (b"\x28\xb5\x2f\xfdxyz", "is zstd"),
    "h.txt": (gzip.compress(WORDS.encode()), "is gzip"),
    "i": (b"PK\x03\x04xyz", "is a zip file"),
    "j": (b"PAR1xyz", "is Parquet"),
    "k.text": (b"%PDF-1.7", "is PDF"),
    "l.PARQUET": (b"x", "is neither text nor .jsonl"),
    "m.zip": (b"x", "is neither text nor .jsonl"),
    "n.bin": (b"x", "is neither text nor .jsonl"),
    "o.npy": (b"x", "is neither text nor .jsonl"),
    "p.txt.gz": (gzip.compress(bz2.compress(b"x")), "is bzip2"),
    "r.jsonl": (b'{"values": [1.5]}', ", line 1: numbers and no text"),
    "s.jsonl": (b'{"ids": [5], "more": []}', ", line 1: numbers and no text"),
    "t.json": (b'[{"text": "x"}, {"text": "cut', ", line 1: not JSON: is the file cut short?"),
    "u.json.gz": (gzip.compress(b'{"text": "x"}\n\nfree text'), ", line 3: not JSON: is the file cut short?"),
    "v.json": (b"[[1, 2], [3]]", ", line 1: numbers and no text"),
    "w.json": (b"[1, 2]", ", line 1: numbers and no text"),
    "x.txt": (b'{"text": "y"}\n{"ids": [4]}', ", line 2: numbers and no text"),
    "q.jsonl": (b'"x"\n{"id": 4, "input_ids": [5, 6]}\n{"ids": [1.5]}\n"y"', ", line 2: numbers and no text"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_file_that_is_not_read_is_told_and_its_corpus_is_not_called_clean(name: str, tmp_path: Path) -> None:
    raw, told = UNREAD[name]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "README.md").write_text("my corpus")
    (corpus / "logo.png").write_bytes(b"\x89PNG\0\0")
    (corpus / ".gitkeep").write_text("")
    clean = overlap_evidence([TASK], corpus=corpus)
    assert clean.unread == () and "not read" not in clean.detail
    assert report("b", "", [clean], corpus="here").verdict == "no overlap"
    (corpus / name).write_bytes(raw)
    CorpusIndex.build(corpus, tmp_path / "index")
    for found in (overlap_evidence([TASK], corpus=corpus), overlap_evidence([TASK], index=tmp_path / "index")):
        (unread,) = found.unread
        assert unread.startswith(f"{corpus / name}") and told in unread and found.to_json()["unread"] == [unread]
        assert f"; 1 file not read whole: {unread}" in found.detail
        made = report("b", "", [found], corpus="here")
        assert made.verdict == "untested" and made.words == (
            f"Not all of here was read: {unread}. No item of b stands in the rest; of what was not read nothing is known."
        )
    (corpus / "leak.txt").write_text(WORDS)
    leaked = overlap_evidence([TASK], corpus=corpus)
    assert leaked.flagged == ("t",) and len(leaked.unread) == 1
    assert report("b", "", [leaked], corpus="here").verdict == "overlap"


def test_what_is_read_of_a_file_with_rows_of_numbers_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"ids": [1]}}\n"{WORDS}"\n')
    found = overlap_evidence([TASK], corpus=tmp_path)
    assert found.flagged == ("t",) and len(found.unread) == 1
    (tmp_path / "a.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"messages": []}\n{}\n{"text": null}\n"x"\n')
    assert overlap_evidence([TASK], corpus=tmp_path).unread == ()
    assert list(pieces(tmp_path / "a.jsonl")) == [BETWEEN.join([b"", b"", b"", b"", b"x"])]
    (tmp_path / "a.jsonl").unlink()
    monkeypatch.setattr(corpus_texts, "PIECE_BYTES", 200)
    for zeros, unread in ((2, 0), (3, 1)):  # up to one byte of a hundred is a slip in a text
        (tmp_path / "a.txt").write_bytes(b"x" * 100 + b"\0" * zeros + b"y" * (100 - zeros) + b"z" * 300)
        assert len(overlap_evidence([TASK], corpus=tmp_path).unread) == unread


def test_of_many_files_that_are_not_read_three_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    for at in range(4):
        (tmp_path / f"{at}.zip").write_text("x")
        found = overlap_evidence([TASK], corpus=tmp_path)
        named = "; ".join(f"{tmp_path / f'{one}.zip'} is neither text nor .jsonl" for one in range(min(3, at + 1)))
        more = "; and 1 more" if at == 3 else ""
        assert found.detail.endswith(f"; {at + 1} file{'s' if at else ''} not read whole: {named}{more}")
    assert ".zip is neither text nor .jsonl, and 3 more. No item" in report("b", "", [found]).words
    two = report("b", "m", [found, Evidence("min-k%", "?", 0.0, 0.5, 9)])
    assert two.verdict == "cleared"


def test_a_corpus_of_which_nothing_is_read_is_refused(tmp_path: Path) -> None:
    for name, told in (("a.zip", "a.zip is neither text nor .jsonl)"), ("a.txt", "(empty)")):
        corpus = tmp_path / name
        corpus.write_text("x" if name == "a.zip" else "")
        for search in (
            lambda corpus=corpus: overlap_evidence([TASK], corpus=corpus),
            lambda corpus=corpus: CorpusIndex.build(corpus, tmp_path / "index"),
        ):
            said = refused(ConfigError, search)
            assert said.startswith(f"{corpus} holds no text that is read: give UTF-8 or .jsonl (") and said.endswith(
                told
            )
            assert not (tmp_path / "index").exists()


SPOKEN = (
    "Сколько будет яблок\nу Маши\tесли у неё было пять\nи ей дали ещё три а потом она съела одно и отдала два другу"
)
ROWS = [{"id": 1, "instruction": "none"}, {"instruction": SPOKEN}]


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "alpaca.json": json.dumps(ROWS),
        "pretty.json": json.dumps(ROWS, indent=2),
        "squad.JSON": json.dumps({"version": "2", "data": ROWS}),
        "lines.json": "\n".join(map(json.dumps, ROWS)),
        "texts.json": json.dumps([SPOKEN]),
        "one.json": json.dumps(SPOKEN),
        "lists.json": json.dumps([[1], ["x", [SPOKEN]]]),
        "bom.json": "\ufeff" + json.dumps(ROWS),
        "packed.json.gz": json.dumps(ROWS),
        "book.ipynb": json.dumps({"cells": ROWS}, indent=1),
        "lines.txt": "\n".join(map(json.dumps, ROWS)),
        "lists.txt": " [\n" + json.dumps(SPOKEN) + "]",
        "nested": json.dumps([[SPOKEN]]),
        "mixed.txt": json.dumps(ROWS[0]) + "\nfree text\n" + json.dumps(ROWS[1]),
        "bom": "\ufeff" + json.dumps(ROWS),
        "commas.txt": ",\n".join(map(json.dumps, ROWS)),
        "cut": json.dumps(ROWS)[:-1],
        "one after another": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    }.items(),
)
def test_escapes_of_json_hide_no_item(name: str, text: str, tmp_path: Path) -> None:
    raw = text.encode()
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    task = Task("t", SPOKEN)
    CorpusIndex.build(corpus, tmp_path / "index")
    for found in (overlap_evidence([task], corpus=corpus), overlap_evidence([task], index=tmp_path / "index")):
        assert found.flagged == ("t",) and (found.unread == ()) == (name != "lists.json")


def test_each_element_of_a_list_is_a_document_and_text_that_is_no_json_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = WORDS.split()
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a\nb"}, "c", 5, None, {"n": 1}]))
    assert list(pieces(tmp_path / "a.json")) == [BETWEEN.join([b"a\nb", b"c", b"", b"", b""])]
    (tmp_path / "a.json").write_text(json.dumps([" ".join(words[:10]), " ".join(words[10:])]))
    assert overlap_evidence([Task("t", " ".join(words[4:17]))], corpus=tmp_path).flagged == ()
    (tmp_path / "a.json").unlink()
    for text in (f'{{"a": "cut\n{WORDS}', f"[[1]] {WORDS}", f"{{{WORDS}}}", f"[1] {WORDS}"):
        (tmp_path / "a.txt").write_text(text)
        found = overlap_evidence([TASK], corpus=tmp_path)
        assert (found.flagged, found.unread) == (("t",), ())
    monkeypatch.setattr(corpus_texts, "PIECE_BYTES", 40)
    assert overlap_evidence([TASK], corpus=tmp_path).flagged == ("t",), "pieces overlap"


def test_a_json_text_larger_than_memory_holds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = corpus_texts._of_json.__defaults__
    assert most == (corpus_texts.MAX_LINE_BYTES,)
    text = json.dumps([{"text": WORDS}], indent=1)
    (tmp_path / "a.json").write_text(text)
    for bytes_, values, is_whole in (
        (len(text), 9, True), (len(text) - 1, 9, False), (2, 9, False), (len(text), 2, True), (len(text), 1, False),
    ):  # fmt: skip
        monkeypatch.setattr(corpus_texts._of_json, "__defaults__", (bytes_,))
        monkeypatch.setattr(corpus_texts, "MAX_LINE_VALUES", values)
        found = overlap_evidence([TASK], corpus=tmp_path)
        assert found.flagged == (("t",) if bytes_ > 2 else ())
        told = f"{tmp_path / 'a.json'}, line 1: larger than {bytes_} bytes or {values} values: give it as .jsonl, "
        told += "one document a line"
        assert found.unread == (() if is_whole else (told,))
    (tmp_path / "a.json").write_text('{"text": ["a", "b", "c"]}')
    assert overlap_evidence([TASK], corpus=tmp_path).unread[0].startswith(f"{tmp_path / 'a.json'}, line 1: larger than")
