"""The search tools' own parts: passages, files and lines of documents, what comes first, and what is told of errors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ToolError
from firsthand.retrieval.chunk_index import outlines
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.store import document_rows
from firsthand.retrieval.tools import search as search_module
from firsthand.retrieval.tools.search import MAX_K, PASSAGE_CHARS, SearchIndex, search, spans, split


def folder(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def said(act: Any, kind: type[Exception] = ToolError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


def test_passages_are_filled_to_their_length_with_whole_sentences() -> None:
    half = "a" * (PASSAGE_CHARS // 2 - 1) + "."
    exact = f"{half} {'b' * (PASSAGE_CHARS // 2 - 2)}."
    assert len(exact) == PASSAGE_CHARS and spans(exact) == [(0, PASSAGE_CHARS)]
    over = f"{half} {'b' * (PASSAGE_CHARS // 2 - 1)}."
    assert spans(over) == [(0, 400), (401, 801)]
    assert split("  One. Two!\n\n Three  ") == ["One. Two!\n\n Three"] and spans(" \n ") == [] == spans("")
    long = "x" * (2 * PASSAGE_CHARS) + "y" * 5
    assert spans(long) == [(0, 1600), (1600, 1605)]
    assert spans(" " + "x" * 1700 + ". End.") == [(1, 1600), (1600, 1707)]


def test_a_folders_files_are_documents_by_kind_with_titles_of_their_own(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "docs",
        b_md="  # The  Head \ntext of b", a_TXT="# Only first\nx", sub__c_html="<title>t</title><p>Bold <b>word</b></p>",
        d_rst="no\n# heading here", e_py="print()",
        sub__f_jsonl='{"id": 7, "title": "T", "contents": "one"}\n\n{"text": "two", "body": "not this"}\n'
        '{"title": "", "id": "x", "body": "th\\u0000ree"}\n',
    )  # fmt: skip
    (root / "link.md").symlink_to(root / "b.md")
    made = SearchIndex(root)
    found = {each.id: each for each in outlines(made.index)}
    assert {id: each.title for id, each in found.items()} == {
        "a.TXT": "Only first", "b.md": "The  Head", "d.rst": "d", "sub/c.html": "c", "sub/f.jsonl:7": "T",
        "sub/f.jsonl:3": "3", "sub/f.jsonl:x": "x",
    }  # fmt: skip
    assert made.index.document("sub/f.jsonl:x").text == "th ree" and made.index.document("sub/f.jsonl:3").text == "two"
    assert "Bold word" in made.index.document("sub/c.html").text and found["b.md"].source == str(root / "b.md")
    assert found["sub/f.jsonl:7"].meta["file"] == "sub/f.jsonl" and found["b.md"].meta["file"] == "b.md"
    alone = SearchIndex(root / "sub" / "f.jsonl")
    assert sorted(alone.index.hashes()) == ["3", "7", "x"]
    assert [each.meta["file"] for each in outlines(alone.index)] == ["f.jsonl"] * 3


def test_the_document_of_the_title_comes_first_once_and_the_rest_by_score(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", a_md="# Red fox\nnothing", b_md="# B\nred fox red fox", c_md="# C\na red thing here")
    made = SearchIndex(root)
    found = made.find("  RED   fox ", 3)
    assert [(each.id, each.title) for each in found] == [("a.md", "Red fox"), ("b.md", "B"), ("c.md", "C")]
    assert found[0].score > 0, "its place is the title's, its score its own"
    assert [each.id for each in made.find("red fox", 1)] == ["a.md"]
    assert len(made.find("red", MAX_K)) == 3
    assert made.search("thing", 2) == "[c.md] C\n  # C\n  a red thing here"
    assert (
        made.search("zebra " + "x" * 300)
        == f"(nothing was found for {('zebra ' + 'x' * 300)[:200]!r}: try other words)"
    )
    assert [said(lambda k=k: made.find("red", k)) for k in (0, MAX_K + 1)] == [
        f"k is {k}: give 1 to 20" for k in (0, 21)
    ]
    assert said(lambda: made.find("?!")) == "the query '?!' holds no words: give some"


def test_lookup_gives_the_sentences_that_hold_the_text_one_after_the_other(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "d", a_md="# First\n\nA Red  fox ran. It slept. The red FOX ate!", b_md="# Second\n\nNo red fox."
    )
    made = SearchIndex(root)
    assert [made.lookup("red fox", "a.md", n) for n in range(3)] == [
        "(result 1 of 2) [a.md] First\n  A Red  fox ran.", "(result 2 of 2) [a.md] First\n  The red FOX ate!",
        "(no more results: 2 sentences hold 'red fox')",
    ]  # fmt: skip
    assert made.lookup(" RED fox", "second") == "(result 1 of 1) [b.md] Second\n  No red fox."
    assert made.lookup("red fox", after=2) == "(result 3 of 3) [b.md] Second\n  No red fox."
    assert made.lookup("?") == "(no more results: 0 sentences hold '?')"
    assert said(lambda: made.lookup(" ")) == "text is ' ' and after is 0: give words to look for, and 0 or more"
    assert (
        said(lambda: made.lookup("x", after=-1)) == "text is 'x' and after is -1: give words to look for, and 0 or more"
    )
    assert said(lambda: made.lookup("x", "none")) == "no document has the id or title 'none': search for it first"


def test_documents_that_cannot_be_indexed_say_where(tmp_path: Path) -> None:
    assert "no documents at" in said(lambda: SearchIndex(tmp_path / "none"), ConfigError)
    empty = folder(tmp_path / "empty", x_py="x")
    assert said(lambda: SearchIndex(empty), ConfigError) == (
        f"'{empty}' holds no texts: .txt, .md, .rst, .html, .htm, .jsonl are read"
    )
    for line in ('{"text": 3}', "[1]", '"text"', "{", '{"title": "x"}'):
        path = tmp_path / "bad.jsonl"
        path.write_text('{"text": "fine"}\n\n' + line + "\n")
        assert said(lambda p=path: SearchIndex(p), ConfigError) == (
            f"line 3 of '{path}' is no JSON object with a \"text\": every line must be one"
        )
    path.write_text('{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}\n')
    assert said(lambda: SearchIndex(path), ConfigError) == "two documents have the id '1': give each its own"


def test_an_index_in_a_file_follows_its_documents_and_an_index_takes_none(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", a_md="red fox", b_md="blue hen")
    kept = tmp_path / "kept.index"
    SearchIndex(root, kept).index.close()
    again = SearchIndex(root, kept)
    assert sorted(again.index.hashes()) == ["a.md", "b.md"]
    again.index.close()
    (root / "a.md").unlink()
    folder(root, c_md="green owl")
    changed = SearchIndex(root, kept)
    assert sorted(changed.index.hashes()) == ["b.md", "c.md"] and changed.find("owl")[0].id == "c.md"
    changed.index.close()
    with pytest.raises(ConfigError, match="is an index: leave out index='x'"):
        SearchIndex(kept, "x")
    assert SearchIndex(kept).find("hen")[0].text == "blue hen"
    close_corpora()
    first, second = search(str(root))
    assert (first.spec.name, first.effect, first.origin, first.declares.readers) == (
        "search",
        "read",
        "documents in d",
        "user",
    )
    assert second.spec.name == "lookup" and second.declares.readers == "user"
    assert asyncio.run(second({"text": "owl"})) == "(result 1 of 1) [c.md] c\n  green owl"


def test_a_title_is_found_whatever_its_blanks_and_files_up_to_the_limit_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(
        tmp_path / "docs", a_jsonl='{"title": "Old Mill", "text": "rain"}\n{"title": "x", "text": "old mill old"}\n'
    )
    made = SearchIndex(root / "a.jsonl")
    assert [each.id for each in made.find(" old\n  MILL ")] == [
        "1",
        "2",
    ]  # the title first, however often others say it
    exact = folder(
        tmp_path / "exact", a_txt="12345", b_jsonl='{"text": "more than five bytes"}\n', c_JSONL='{"text": "as many"}'
    )
    monkeypatch.setattr(search_module, "MAX_FILE_BYTES", 5)
    assert len(SearchIndex(exact).index) == 3
    (exact / "a.txt").write_text("123456")
    assert said(lambda: SearchIndex(exact), ConfigError) == (
        f"{str(exact / 'a.txt')!r} has more than 5 bytes: split it, or give it as .jsonl"
    )
    monkeypatch.setattr(document_rows, "MAX_TEXT_BYTES", 19)
    assert said(lambda: SearchIndex(exact / "b.jsonl"), ConfigError) == (
        "'1' cannot be indexed: '1' has 20 bytes of text: split it into parts below 19"
    )


def test_several_passages_of_one_document_are_found_and_that_of_its_title_once(tmp_path: Path) -> None:
    text = f"Mill one. {'x' * 790}. Mill two mill. {'y' * 790}."
    made = SearchIndex(folder(tmp_path / "docs", a_txt=text, b_txt="Mill.", mill_txt="Rain. mill"))
    found = made.find("mill", 9)
    assert found[0].id == "mill.txt" and found[0].text == "Rain. mill"
    assert sorted(each.id for each in found) == ["a.txt", "a.txt", "b.txt", "mill.txt"]
    assert len({each.text for each in found}) == 4 and [each.id for each in made.find("mill", 1)] == ["mill.txt"]


def test_a_line_without_an_id_has_its_number_and_any_other_id_stands(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(
        '{"text": "a"}\n\n{"id": 0, "text": "b"}\n{"id": "", "text": "c"}\n{"id": false, "text": "d", "title": "T"}\n'
        '{"id": 0.5, "text": "e", "title": ""}\n{"text": "f", "contents": 3, "body": 4}\n{"text": "", "id": "g"}\n'
    )
    assert list(search_module._lines(path, "p:")) == [
        ("p:1", "1", "a"), ("p:0", "0", "b"), ("p:4", "4", "c"), ("p:False", "T", "d"), ("p:0.5", "0.5", "e"),
        ("p:7", "7", "f"), ("p:g", "g", ""),
    ]  # fmt: skip
    assert list(search_module._lines(path, ""))[1] == ("0", "0", "b")
