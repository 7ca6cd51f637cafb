"""The search tool over an index that is kept: a file that goes, a long titled document, titles that are empty, failures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, ToolError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.tools import search as search_tool
from firsthand.retrieval.tools.search import MAX_K, SearchIndex, _indexed, _is_whole, _name, spans


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_corpora()


def folder(root: Path, **texts: str) -> Path:
    root.mkdir(exist_ok=True)
    for name, text in texts.items():
        (root / name.replace("_", ".")).write_text(text)
    return root


def ids(root: Path, kept: Path) -> list[str]:
    made = SearchIndex(root, kept)
    found = sorted(made.index.hashes())
    made.index.close()
    return found


@pytest.mark.slow
def test_a_file_that_goes_is_gone_from_the_kept_index_and_one_that_comes_or_is_touched_is_read(tmp_path: Path) -> None:
    root, kept = (
        folder(tmp_path / "d", a_md="red", b_jsonl='{"text": "x"}\n{"text": "y"}', c_txt="green"),
        tmp_path / "k",
    )
    assert ids(root, kept) == ["a.md", "b.jsonl:1", "b.jsonl:2", "c.txt"]
    (root / "b.jsonl").unlink()
    assert ids(root, kept) == ["a.md", "c.txt"], "nothing else has changed"
    folder(root, e_txt="new")
    assert ids(root, kept) == ["a.md", "c.txt", "e.txt"]
    os.utime(root / "a.md", ns=(3, 3))
    assert ids(root, kept) == ["a.md", "c.txt", "e.txt"]
    (root / "a.md").write_text("rad")
    os.utime(root / "a.md", ns=(3, 4))  # as long as before
    made = SearchIndex(root, kept)
    assert [hit.id for hit in made.find("rad")] == ["a.md"] and made.index.document("a.md").meta == {
        "file": "a.md", "stamp": "3 bytes, 4 ns", "documents": 1
    }  # fmt: skip
    made.index.close()
    for each in root.iterdir():
        each.unlink()
    (root / "x.bin").write_text("x")
    with pytest.raises(
        ConfigError, match=r"holds no texts: \.txt, \.md, \.rst, \.html, \.htm, \.jsonl are read$"
    ) as none:
        SearchIndex(root, kept)
    held = [os.path.realpath(each) for each in Path("/dev/fd").iterdir()]
    assert none.tb is not None and str(kept) not in held, "the index that was refused is closed"
    assert _name(root, root / "x" / "y\udcff.md") == "x/y?.md" and _name(root / "a", root / "a") == "a"


def test_of_the_document_with_the_title_the_first_passage_comes_first_and_the_best_follow(tmp_path: Path) -> None:
    filler = "z" * 700
    mill = f"Rain {filler}. Snow {filler}. Hail {filler} mill."
    root = folder(tmp_path / "d", Mill_txt=mill, a_txt="mill mill", b_txt="mill hen")
    made = SearchIndex(root)
    assert [hit.text[:4] for hit in made.find("MILL", 2)] == ["Rain", "mill"]
    found = made.find("mill", MAX_K)
    ranked = made.index.search_terms("mill", MAX_K, {})  # every passage has the title's word in its heading
    assert {hit.chunk.text[:4] for hit in ranked} == {"Rain", "Snow", "Hail", "mill"} and len(ranked) == 5
    first = [hit for hit in ranked if hit.chunk.text.startswith("Rain")]
    expected = first + [hit for hit in ranked if hit not in first]
    assert [(hit.id, hit.text, hit.score) for hit in found] == [
        (hit.chunk.document, hit.chunk.text.strip(), hit.score) for hit in expected
    ]
    assert expected != ranked and {hit.title for hit in found} == {"Mill", "a", "b"}
    for k in (0, MAX_K + 1):
        with pytest.raises(ToolError, match=rf"^k is {k}: give 1 to {MAX_K}$"):
            made.find("mill", k)
    assert made.search("?! yak") == "(nothing was found for '?! yak': try other words)"
    with pytest.raises(ToolError, match=r"^the query '\?!' holds no words: give some$"):
        made.search("?!")


def test_a_document_without_a_title_is_looked_up_by_its_id_and_told_by_it(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    with open_index(path, IndexHeader("", "", 0, "whole")) as index:
        index.put([
            IndexedDocument(Document(id, text, title), [Chunk(id, 0, len(text), text)], None)
            for id, title, text in (
                ("a", "", "One mill. Two  MILLS here! Three."), ("b", "a", "A mill too."), ("c", "B", "No."),
            )
        ])  # fmt: skip
    made = SearchIndex(path)
    assert made.lookup("mill", "a") == "(result 1 of 2) [a] a\n  One mill."
    assert made.lookup(" two\nmills ", "a", 0) == "(result 1 of 1) [a] a\n  Two  MILLS here!"
    assert made.lookup("mill", "a", 2) == "(no more results: 2 sentences hold 'mill')"
    assert made.lookup("mill", "b") == "(result 1 of 1) [b] a\n  A mill too.", "an id before a title"
    assert made.lookup("mill", after=2) == "(result 3 of 3) [b] a\n  A mill too."
    assert made.lookup("no", "c") == "(result 1 of 1) [c] B\n  No." and made.find("three")[0].title == "a"
    with pytest.raises(ToolError, match=r"^no document has the id or title 'zz': search for it first$"):
        made.lookup("mill", "zz")
    for text, after in ((" ", 0), ("mill", -1)):
        with pytest.raises(ToolError, match=rf"and after is {after}: give words to look for, and 0 or more$"):
            made.lookup(text, after=after)
    assert made.lookup("?!") == "(no more results: 0 sentences hold '?!')"
    assert spans("") == spans(" \n ") == [] and spans(" a. b ") == [(1, 5)]


def lines(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def stopped_after(source: Path, kept: Path, most: int) -> None:
    """Leaves the index that an opening leaves which was killed when so many documents were stored."""
    index = open_index(kept, search_tool._HEADER)
    files = sorted(search_tool._files(source))
    stamps = {_name(source, file): search_tool._stamp(file) for file in files}
    index.put([each for each, _ in zip(_indexed(source, files, stamps, set()), range(most), strict=False)])
    index.close()


@pytest.mark.parametrize("most", [1, 2, 3])
def test_an_index_in_which_an_opening_left_a_part_of_a_file_is_not_taken_for_whole(tmp_path: Path, most: int) -> None:
    source = lines(tmp_path / "d.jsonl", "red", "green", "blue")
    stopped_after(source, tmp_path / "k", most)
    assert ids(source, tmp_path / "k") == ["1", "2", "3"]


def test_a_file_that_grew_is_read_whole_though_all_its_former_lines_were_stored_again(tmp_path: Path) -> None:
    source, kept = lines(tmp_path / "d.jsonl", "red", "green"), tmp_path / "k"
    assert ids(source, kept) == ["1", "2"]
    lines(source, "red", "green", "blue")
    stopped_after(source, kept, 2)
    assert ids(source, kept) == ["1", "2", "3"]


def test_a_wrong_line_is_told_at_every_opening(tmp_path: Path) -> None:
    source = lines(tmp_path / "d.jsonl", "red", "green")
    source.write_text(source.read_text() + "{broken\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^line 3 of"):
            SearchIndex(source, tmp_path / "k")


def test_a_whole_index_is_not_read_again_and_one_that_lacks_a_document_or_has_one_more_is_no_whole(
    tmp_path: Path,
) -> None:
    source, kept = lines(tmp_path / "d.jsonl", "red", "green"), tmp_path / "k"
    assert ids(source, kept) == ["1", "2"]
    with open_index(kept, search_tool._HEADER) as index:
        documents = {each.id: each.meta for each in index.outlines()}
    stamps = {"d.jsonl": search_tool._stamp(source)}
    assert [meta.get("documents") for meta in documents.values()] == [None, 2]
    assert _is_whole(documents.values(), stamps), "so that it is left as it is"
    assert not _is_whole([documents["2"]], stamps), "one is missing"
    assert not _is_whole([documents["1"]], stamps)
    assert not _is_whole([*documents.values(), documents["1"]], stamps), "one too many"
    assert not _is_whole(documents.values(), {"d.jsonl": "other"})
    assert not _is_whole(documents.values(), {**stamps, "e.jsonl": "new"})
