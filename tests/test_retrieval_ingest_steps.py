"""The steps of an ingest one by one: which files are found, what waits, what is stored, what is taken for gone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.chunking.text_spans import FILE_META
from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.folder_files import FolderFile, LeftOut
from firsthand.retrieval.ingest import IngestProgress, _Ingest
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.stored_files import StoredDocument

TERMS = IndexHeader("", "", 0, "halves")
VECTORS = IndexHeader("two", "f", 2, "halves", document_prefix="p: ")


def halves(document: Document) -> list[Chunk]:
    cut = len(document.text) // 2
    return [Chunk(document.id, a, b, document.text[a:b]) for a, b in ((0, cut), (cut, len(document.text)))]


class Embedder:
    name = "two"

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] if "a" in text else [0.0, 1.0] for text in texts]


class Steps(_Ingest):
    """An ingest into an index in memory, whose progress is kept."""

    def __init__(self, *sources: Path, header: IndexHeader = TERMS, embedder: Any = None, settings: Any = None):
        self.told: list[IngestProgress] = []
        index = open_index(":memory:", header)
        super().__init__(sources, index, embedder, halves, settings or ReadSettings(), self.told.append)

    def store(self, id: str, source: Path | str, mark: Any = None, text: str = "old text") -> None:
        document = Document(id, text, source=str(source), meta={} if mark is None else {FILE_META: mark})
        self.index.put([IndexedDocument(document, halves(document), None)])

    def names(self, own: Sequence[Path] = ()) -> list[str]:
        return [name for name, _ in self._found(frozenset(own))]

    def file(self, name: str) -> FolderFile:
        found = dict(self._found(frozenset()))[name]
        assert isinstance(found, FolderFile)
        return found


def folder(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_files_of_several_folders_are_named_after_them_and_no_name_twice(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", a_txt="1", b_bin="x"), folder(tmp_path / "two", a_txt="2", sub__c_txt="3")
    assert Steps(one).names() == ["a.txt", "b.bin"] and Steps(two / "a.txt").names() == ["a.txt"]
    assert Steps(one, two).names([two / "a.txt"]) == ["one/a.txt", "one/b.bin", "two/sub/c.txt"]
    assert Steps(one, two / "a.txt").names() == ["one/a.txt", "one/b.bin", "a.txt"]
    found = dict(Steps(one)._found(frozenset()))
    assert found["b.bin"] == LeftOut("b.bin", ".bin: not a kind that is read", False)
    with pytest.raises(ConfigError) as twice:
        Steps(one, folder(tmp_path / "other" / "one", a_txt="x")).names()
    assert (
        str(twice.value) == "two files would have the id 'one/a.txt': index their folders one by one, each in its own"
    )
    with pytest.raises(ConfigError, match="no folder or file"):
        Steps(tmp_path / "none").names()


def test_a_file_is_read_where_its_bytes_reader_or_number_of_documents_changed(tmp_path: Path) -> None:
    root = folder(tmp_path / "docs", a_txt="new text", b_txt=" \n")
    work = Steps(root, settings=ReadSettings(text_field="body"))
    file = work.file("a.txt")
    mark = {
        "sha256": hashlib.sha256(b"new text").hexdigest(),
        "reader": f"text:{file.format.version}:text=body",
        "documents": 1,
    }
    for changed, is_read in (
        ({}, False),
        ({"sha256": "0"}, True),
        ({"reader": "text:0:"}, True),
        ({"documents": 2}, True),
    ):
        work = Steps(root, settings=ReadSettings(text_field="body"))
        work.store("a.txt", file.path, mark | changed)
        work.store("a.txt2", root / "a.txt2", mark)
        work.stored.read_index(work.index)
        assert [*work._read("a.txt", file)] == [None] * is_read
        assert (work.tally.unchanged, len(work.waiting)) == ([] if is_read else ["a.txt"], int(is_read))
        assert work.tally.removed == []
    ((document, chunks),) = work.waiting
    assert document.source == str(file.path) and document.meta == {"kind": "text", FILE_META: mark}
    assert [each.text for each in chunks] == ["new ", "text"]
    assert (work.waiting_chunks, work.waiting_chars) == (2, 8)
    assert work.texts == {document.sha256: "a.txt"} and work.taken == {"a.txt": str(file.path)}
    assert [*work._read("b.txt", work.file("b.txt"))] == []
    assert work.tally.notes == [("b.txt", "it is empty: nothing to index")]


def test_items_that_a_file_no_longer_has_are_removed_unless_one_of_it_failed(tmp_path: Path) -> None:
    lines = '{"id": "x", "text": "one"}\n{"id": "y", "text": "two"}\n'
    for text, removed, failed in ((lines, ["f.jsonl:z"], 0), (lines + "no\n", [], 1)):
        root = folder(tmp_path / "docs", f_jsonl=text)
        work = Steps(root)
        file = work.file("f.jsonl")
        for id in ("f.jsonl:x", "f.jsonl:z", "g.jsonl:z"):
            work.store(id, file.path if id[0] == "f" else root / "g.jsonl", {"documents": 2})
        work.stored.read_index(work.index)
        assert [*work._read("f.jsonl", file)] == [None, None] and work.tally.removed == removed
        assert len(work.tally.failed) == failed and [each.id for each, _ in work.waiting] == ["f.jsonl:x", "f.jsonl:y"]
        marks = [each.meta[FILE_META] for each, _ in work.waiting]
        assert all(each["documents"] == 2 and each.get("failed", 0) == failed for each in marks)


def test_a_document_waits_unless_its_id_is_another_files(tmp_path: Path) -> None:
    root = folder(tmp_path / "docs", a_txt="x")
    work = Steps(root)
    work.stored.documents = {
        "a": StoredDocument("s", str(root / "a.txt"), {}),
        "b": StoredDocument("s", str(root / "gone.txt"), {}),
    }
    work._take(Document("a", "text", source="/elsewhere"))
    work._take(Document("b", "text", source="/elsewhere"))
    work._take(Document("b", "more", source="/third"))
    work._take(Document("c", "text", source="/c"))
    assert work.tally.failed == [
        ("a", f"the index has a document of this id from {root / 'a.txt'}: give this folder an index of its own"),
        ("b", "/elsewhere has a document of this id, and /third was left out: rename one of the files"),
    ]
    assert [each.id for each, _ in work.waiting] == ["b", "c"] and work.tally.notes == [
        ("c", "it has the same text as b")
    ]
    assert (work.waiting_chunks, work.waiting_chars) == (4, 8), "of both that wait"
    work._unchanged(["a"])
    assert work.tally.unchanged == ["a"] and work.texts["s"] == "a" and work.taken["a"] == str(root / "a.txt")


def test_what_waits_is_embedded_in_one_call_and_each_document_gets_its_own_rows(tmp_path: Path) -> None:
    work = Steps(tmp_path, header=VECTORS, embedder=Embedder())
    for id, text in (("1", "abcc"), ("2", "ccaa")):
        work._take(Document(id, text, source=f"/{id}"))
    work.waiting_bytes, work.files, work.total_files, work.total_bytes, work.at = 9, 2, 3, 20, "2.txt"
    asyncio.run(work._flush())
    assert work.told == [IngestProgress(2, 3, 9, 20, 2, 4, "2.txt")]
    assert (work.tally.added, work.tally.embedded, work.tally.reused) == (["1", "2"], 3, 0)  # "cc" is in both
    for id, rows in (("1", [[1, 0], [0, 1]]), ("2", [[0, 1], [1, 0]])):
        found = work.index.vectors([each.id for each in work.index.chunks(id)])  # type: ignore[attr-defined]
        assert np.array_equal(found, rows)
    assert work.waiting == [] and work.waiting_bytes == work.waiting_chunks == work.waiting_chars == 0
    work.waiting_bytes = 5
    asyncio.run(work._flush())
    assert work.told[1:] == [IngestProgress(2, 3, 14, 20, 2, 4, "2.txt")], "without documents bytes count too"
    work._take(Document("1", "abcc", source="/1"))
    work._take(Document("2", "aacc", source="/2"))
    asyncio.run(work._flush())
    assert (work.tally.unchanged, work.tally.updated, work.tally.reused) == (["1"], ["2"], 3)
    assert work.chunks == 8 and work.told[-1].documents == 4


def test_only_documents_below_the_folders_whose_files_are_gone_are_removed(tmp_path: Path) -> None:
    root, beside = folder(tmp_path / "docs", a_txt="x"), folder(tmp_path / "docs2", b_txt="x")
    work = Steps(root)
    sources = {"here": root / "a.txt", "gone": root / "g.txt", "failed": root / "h.txt", "kept": root / "i.txt",
               "beside": beside / "z.txt", "none": ""}  # fmt: skip
    for id, source in sources.items():
        work.store(id, source)
    work.stored.read_index(work.index)
    assert work.stored.documents["gone"] == StoredDocument(
        hashlib.sha256(b"old text").hexdigest(), str(root / "g.txt"), {}
    )
    assert dict(work.stored.below()) == {str(root / f"{name}.txt"): [id] for name, id in
                                   (("a", "here"), ("g", "gone"), ("h", "failed"), ("i", "kept"))}  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        work._refuse_empty()
    assert str(refused.value) == (
        f"{root} holds no file to read, and the index has 4 documents of it: if that is right, remove the index's file; "
        "else see that the folder is mounted"
    )
    work.tally.failed, work.tally.unchanged = [("failed", "why")], ["kept"]
    work._remove_gone()
    assert work.tally.removed == ["gone"] and "gone" not in work.index.hashes() and len(work.index.hashes()) == 5
    work.index_folders = {root}
    work._remove_gone()
    assert work.tally.removed == ["gone"], "a folder that holds the index has not moved if files were read where it is"
    assert sorted(work.index.hashes()) == ["beside", "failed", "here", "kept", "none"]


def test_a_file_counts_when_its_last_document_was_read_and_one_that_fails_counts_too(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "f", a_jsonl='{"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n', b_json="{", c_txt="12345"
    )
    work = Steps(root)
    work.store("b.json:1", root / "b.json")
    work.stored.read_index(work.index)
    files = [(name, work.file(name)) for name in ("a.jsonl", "b.json", "c.txt")]
    sizes = [file.size_bytes for _, file in files]
    seen = []
    for _ in work._reading(files):
        seen.append((work.at, work.files, work.waiting_bytes, [document.id for document, _ in work.waiting]))
    one, two, text = "a.jsonl:1", "a.jsonl:2", "c.txt"
    assert seen == [
        ("a.jsonl", 1, 0, [one]), ("a.jsonl", 1, 0, [one, two]), ("a.jsonl", 1, sizes[0], [one, two]),
        ("b.json", 2, sum(sizes[:2]), [one, two]), ("c.txt", 3, sum(sizes[:2]), [one, two, text]),
        ("c.txt", 3, sum(sizes), [one, two, text]),
    ]  # fmt: skip
    ((name, told),) = work.tally.failed
    assert name == "b.json" and told.startswith("it is no JSON: ")
    assert told.endswith("; what was read from it before stays in the index")
    (root / "c.txt").unlink()
    list(work._reading(files[2:]))
    assert work.tally.failed[-1] == ("c.txt", "it cannot be read: No such file or directory")


def test_a_file_whose_items_all_failed_is_not_called_empty_and_one_of_blanks_is(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", a_jsonl="5\n", b_jsonl='{"id": 1, "text": " "}\n', c_txt=" \n")
    work = Steps(root)
    for name in ("a.jsonl", "b.jsonl", "c.txt"):
        assert list(work._read(name, work.file(name))) == []
    assert [name for name, _ in work.tally.failed] == ["a.jsonl:1"]
    empty = "it is empty: nothing to index"
    assert work.tally.notes == [("b.jsonl", empty), ("c.txt", empty)] and work.waiting == []
    (root / "a.jsonl").write_text('{}\n{"id": 7, "text": "x"}\n')
    list(work._read("a.jsonl", work.file("a.jsonl")))
    ((document, _),) = work.waiting
    mark = document.meta[FILE_META]
    assert isinstance(mark, dict) and (mark["documents"], mark["failed"], document.source) == (
        1,
        1,
        str(root / "a.jsonl"),
    )
    assert (
        mark["reader"] == "jsonl:3:" and mark["sha256"] == hashlib.sha256((root / "a.jsonl").read_bytes()).hexdigest()
    )


def test_a_folder_is_named_as_it_is_and_not_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = folder(tmp_path / "one", a_txt="1"), folder(tmp_path / "two", b_txt="2")
    (tmp_path / "link").symlink_to(two)
    monkeypatch.chdir(one)
    assert Steps(Path(), tmp_path / "link", tmp_path / "two" / "b.txt").names() == ["one/a.txt", "two/b.txt", "b.txt"]
    assert Steps(tmp_path / "link").names() == ["b.txt"]
    with pytest.raises(
        ConfigError, match=r"^two files would have the id 'two/b\.txt': index their folders one by one, each"
    ):
        Steps(two, tmp_path / "link").names()


def test_of_unchanged_copies_the_first_is_the_one_that_later_ones_are_copies_of(tmp_path: Path) -> None:
    work = Steps(folder(tmp_path / "f"))
    work.stored.documents = {id: StoredDocument(sha, f"/{id}", {}) for id, sha in (("a", "s"), ("b", "s"), ("c", "z"))}
    work.taken["b"] = "/elsewhere"
    work._unchanged(["a", "b"])
    work._unchanged(["c"])
    assert work.texts == {"s": "a", "z": "c"} and work.tally.unchanged == ["a", "b", "c"]
    assert work.taken == {"a": "/a", "b": "/elsewhere", "c": "/c"}


def test_documents_of_files_that_are_gone_are_not_told_as_left_out_this_time(tmp_path: Path) -> None:
    root = folder(tmp_path / "docs", a_txt="x", b_txt="y")
    work = Steps(root)
    for id in ("a", "b", "gone"):
        work.store(id, root / f"{id}.txt", {"sha256": "s", "reader": "r"})
    work.store("url", "https://h/page")
    work.stored.read_index(work.index)
    work.read.hashes[str(root / "a.txt")] = "s"
    assert list(work.stored.not_read(work.read)) == ["b"], (
        "a was read, gone has no file, url is of none of these folders"
    )
