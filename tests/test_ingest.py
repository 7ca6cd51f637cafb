"""Ingest: only what has changed, whole documents, nothing in silence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import written_documents as written
from firsthand.errors import ConfigError, ModelError
from firsthand.retrieval.chunk_index import IndexHeader, IngestReceipt
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.chunking.parent_chunks import parent_ids
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.folder_files import FolderFilter
from firsthand.retrieval.ingest import IngestProgress, index_files, ingest
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index

CHUNKER = "auto:size=60:overlap=0"


class WordEmbedder:
    """Vectors of word counts; it remembers what it was asked for."""

    name = "words"

    def __init__(self, dimension: int = 32):
        self.dimension = dimension
        self.asked: list[str] = []
        self.calls = 0

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        self.calls += 1
        rows = []
        for text in texts:
            row = np.zeros(self.dimension)
            for word in text.lower().split():
                row[sum(word.encode()) % self.dimension] += 1
            rows.append((row / np.linalg.norm(row)).tolist())
        return rows


class Folder:
    """A folder with an index in memory or beside it."""

    def __init__(
        self,
        root: Path,
        *,
        chunker: str = CHUNKER,
        vectors: bool = True,
        path: str | Path = ":memory:",
        prefix: str = "",
    ):
        self.root = root
        self.root.mkdir(exist_ok=True)
        self.embedder = WordEmbedder() if vectors else None
        self.chunker = open_chunker(chunker)
        self.path = path
        header = IndexHeader(
            "words" if vectors else "", "f", 32 if vectors else 0, self.chunker.text, document_prefix=prefix
        )
        self.index: SqliteIndex = open_index(path, header)

    def write(self, **files: str | bytes) -> None:
        for name, body in files.items():
            path = self.root / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body.encode() if isinstance(body, str) else body)

    def ingest(self, *sources: Path, **options: Any) -> IngestReceipt:
        return asyncio.run(ingest([*sources] or self.root, self.index, self.embedder, self.chunker.chunk, **options))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "docs")


def test_a_folder_is_indexed_and_found(folder: Folder) -> None:
    folder.write(a_md="# Cats\n\nCats purr softly.", sub__b_txt="Stocks fell.", empty_md="  \n")
    receipt = folder.ingest()
    assert receipt.added == ("a.md", "sub/b.txt") and not receipt.failed and receipt.embedded == 2
    assert receipt.notes == (("empty.md", "it is empty: nothing to index"),)
    (hit, *_) = folder.index.search_terms("purr", 3, {})
    assert hit.chunk.document == "a.md" and hit.chunk.heading == "Cats" and hit.chunk.meta == {"kind": "markdown"}
    document = folder.index.document("a.md")
    assert (
        document.source == str(folder.root / "a.md")
        and document.text[hit.chunk.start : hit.chunk.end] == hit.chunk.text
    )
    assert folder.embedder is not None
    vector = np.array(asyncio.run(folder.embedder.embed(["Cats\n# Cats\n\nCats purr softly."]))[0], np.float32)
    assert folder.index.search_vectors(vector, 1, {})[0].score == pytest.approx(1, abs=1e-3)
    assert folder.index.verify() == []


def test_an_unchanged_folder_is_neither_parsed_nor_embedded(folder: Folder) -> None:
    folder.write(a_md="Cats purr.", b_docx=written.docx(written.paragraph("words")))
    folder.ingest()
    assert folder.embedder is not None
    folder.embedder.asked.clear()
    (folder.root / "a.md").touch()  # another time, the same bytes
    chunker = folder.chunker
    folder.chunker = chunker._replace(chunk=lambda document: pytest.fail("it was chunked"))  # type: ignore[return-value]
    receipt = folder.ingest()
    assert receipt.unchanged == ("a.md", "b.docx") and not (receipt.added + receipt.updated + receipt.failed)
    assert folder.embedder.asked == []


def test_a_changed_document_keeps_the_vectors_of_its_unchanged_chunks(folder: Folder) -> None:
    paragraphs = [f"Paragraph number {n} has words of its own, {'abcdefgh'[n] * 9}." for n in range(6)]
    folder.write(a_txt="\n\n".join(paragraphs))
    assert folder.ingest().embedded == 6
    assert folder.embedder is not None
    folder.embedder.asked.clear()
    paragraphs[3] = "Something else stands here now, for a change of things."
    folder.write(a_txt="\n\n".join(paragraphs))
    receipt = folder.ingest()
    assert (receipt.updated, receipt.embedded, receipt.reused) == (("a.txt",), 1, 5)
    assert folder.embedder.asked == [paragraphs[3]]
    assert folder.index.verify() == []


def test_a_file_of_equal_size_and_time_with_other_bytes_is_read_again(folder: Folder) -> None:
    import os

    folder.write(a_txt="one two")
    folder.ingest()
    status = (folder.root / "a.txt").stat()
    folder.write(a_txt="two one")
    os.utime(folder.root / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert folder.ingest().updated == ("a.txt",)
    assert folder.index.document("a.txt").text == "two one"


def test_documents_whose_files_are_gone_are_removed_and_no_others(folder: Folder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.md").write_text("Elsewhere.")
    folder.write(a_md="One.", sub__b_md="Two.")
    folder.ingest()
    folder.ingest(other)
    (folder.root / "sub/b.md").unlink()
    (other / "c.md").rename(other / "d.md")
    receipt = folder.ingest()
    assert receipt.removed == ("sub/b.md",) and set(folder.index.hashes()) == {"a.md", "c.md"}
    folder.write(sub__b_md="Two.")
    assert folder.ingest(chosen=FolderFilter(include=["sub/*"])).added == ("sub/b.md",)
    assert set(folder.index.hashes()) == {"a.md", "c.md", "sub/b.md"}  # what a filter leaves out is not gone
    (folder.root / "a.md").unlink()
    assert folder.ingest(removes=False).removed == () and "a.md" in folder.index.hashes()


def test_an_empty_folder_does_not_empty_the_index(folder: Folder) -> None:
    folder.write(a_md="One.")
    folder.ingest()
    (folder.root / "a.md").unlink()
    with pytest.raises(ConfigError, match="holds no file to read, and the index has 1 documents"):
        folder.ingest()
    assert list(folder.index.hashes()) == ["a.md"]


def test_a_file_that_fails_now_keeps_what_was_read_before(folder: Folder) -> None:
    folder.write(a_txt="Good words.", b_txt="Others.")
    folder.ingest()
    folder.write(a_txt=b"\x7fELF\0\0\0")
    receipt = folder.ingest()
    ((name, reason),) = receipt.failed
    assert name == "a.txt" and reason.endswith("what was read from it before stays in the index")
    assert folder.index.document("a.txt").text == "Good words." and receipt.unchanged == ("b.txt",)


@pytest.mark.slow
def test_one_bad_file_of_each_kind_is_named_and_the_rest_goes_on(folder: Folder) -> None:
    folder.write(
        a_md="Good.", binary_txt=b"\0\1\2\3" * 1000, broken_docx=b"PK",
        bomb_docx=written.zipped({"word/document.xml": b" " * 12_000_000}),
        table_csv=b"a\n" + b'"' + b"x" * 11_000_000, z_md="Also good.", photo_png=b"",
    )  # fmt: skip
    with (folder.root / "huge.txt").open("wb") as file:
        file.truncate(1 << 30)
    (folder.root / "leaves.md").symlink_to("/etc/hostname")
    receipt = folder.ingest()
    assert receipt.added == ("a.md", "z.md")
    assert sorted(name for name, _ in receipt.failed) == [
        "binary.txt",
        "bomb.docx",
        "broken.docx",
        "huge.txt",
        "leaves.md",
        "table.csv",
    ]
    assert ("photo.png", ".png: not a kind that is read") in receipt.notes


def test_of_two_files_with_one_document_id_the_second_is_named(folder: Folder) -> None:
    item = json.dumps({"id": "n1.txt", "text": "inner words"})
    (folder.root / "f.jsonl").write_text(item)
    (folder.root / "f.jsonl:n1.txt").write_text("outer words")
    for receipt in (folder.ingest(), folder.ingest()):
        assert (
            len(receipt.failed) == 1
            and receipt.failed[0][0] == "f.jsonl:n1.txt"
            and "of this id" in receipt.failed[0][1]
        )
        assert folder.index.document("f.jsonl:n1.txt").text == "inner words"


def test_copies_are_kept_and_noted(folder: Folder) -> None:
    folder.write(a_md="Same words.", b_md="Same words.")
    receipt = folder.ingest()
    assert receipt.added == ("a.md", "b.md") and receipt.notes == (("b.md", "it has the same text as a.md"),)
    assert receipt.embedded == 1


def test_lines_of_jsonl_come_and_go(folder: Folder) -> None:
    def lines(*ids: str) -> str:
        return "".join(json.dumps({"id": id, "text": f"Text of {id}."}) + "\n" for id in ids)

    folder.write(c_jsonl=lines("x", "y"))
    assert folder.ingest().added == ("c.jsonl:x", "c.jsonl:y")
    folder.write(c_jsonl=lines("y", "z"))
    receipt = folder.ingest()
    assert (receipt.added, receipt.removed) == (("c.jsonl:z",), ("c.jsonl:x",))
    folder.write(c_jsonl=lines("z") + "nope\n")
    for _ in range(2):  # a bad line is named each time, and what cannot be told to be gone stays
        receipt = folder.ingest()
        assert [place for place, _ in receipt.failed] == ["c.jsonl:2"] and not receipt.removed
    (folder.root / "c.jsonl").unlink()
    folder.write(a_md="x")
    assert folder.ingest().removed == ("c.jsonl:y", "c.jsonl:z")


def test_a_file_of_many_documents_that_was_stored_in_part_is_completed(folder: Folder) -> None:
    folder.write(c_jsonl="".join(f'{{"id": {n}, "text": "Text {n}."}}\n' for n in range(3)))
    folder.ingest()
    folder.index.delete(["c.jsonl:1"])  # as if an ingest had been killed before it
    receipt = folder.ingest()
    assert receipt.added == ("c.jsonl:1",) and receipt.unchanged == ("c.jsonl:0", "c.jsonl:2")
    assert folder.ingest().unchanged == ("c.jsonl:0", "c.jsonl:1", "c.jsonl:2")


def test_documents_of_one_file_are_stored_in_batches(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.retrieval import ingest as module

    monkeypatch.setattr(module, "BATCH_CHUNKS", 2)
    folder.write(c_jsonl="".join(f'{{"id": {n}, "text": "Text {n}."}}\n' for n in range(5)))
    assert len(folder.ingest().added) == 5
    assert folder.embedder is not None and folder.embedder.calls == 3


def test_other_fields_are_another_text(folder: Folder) -> None:
    folder.write(c_jsonl='{"id": 1, "text": "Text.", "abstract": "Short."}')
    folder.ingest()
    receipt = folder.ingest(settings=ReadSettings(text_field="abstract"))
    assert receipt.updated == ("c.jsonl:1",) and folder.index.document("c.jsonl:1").text == "Short."


def test_two_folders_have_ids_of_their_own(folder: Folder, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(f"Words of {name}.")
    receipt = folder.ingest(tmp_path / "one", tmp_path / "two")
    assert receipt.added == ("one/a.md", "two/a.md")
    folder.ingest(tmp_path / "one")
    receipt = folder.ingest(tmp_path / "two")
    assert receipt.failed[0][0] == "a.md" and "has a document of this id from" in receipt.failed[0][1]
    (tmp_path / "copy" / "one").mkdir(parents=True)
    (tmp_path / "copy" / "one" / "b.md").write_text("x")
    (tmp_path / "one" / "b.md").write_text("y")
    with pytest.raises(ConfigError, match=r"two files would have the id 'one/b.md'"):
        folder.ingest(tmp_path / "one", tmp_path / "copy" / "one")


def test_a_folder_that_moved_with_its_index_is_updated(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "docs", path=tmp_path / "docs.index")
    folder.write(a_md="One.", b_md="Two.")
    own = [folder.root / ".firsthand-index"]
    folder.ingest(own_files=own)
    moved = folder.root.rename(tmp_path / "moved")
    (moved / "b.md").unlink()
    assert folder.embedder is not None
    folder.embedder.asked.clear()
    receipt = folder.ingest(moved, own_files=[moved / ".firsthand-index"])
    assert (receipt.updated, receipt.removed, folder.embedder.asked) == (("a.md",), ("b.md",), [])
    assert folder.index.document("a.md").source == str(moved / "a.md")
    folder.index.close()


def test_a_changed_place_of_the_same_text_is_stored(folder: Folder) -> None:
    folder.write(a_html="<p>Words</p>")
    folder.ingest()
    folder.write(a_html="<!-- a\ncomment -->\n<p>Words</p>")
    assert folder.ingest().updated == ("a.html",)
    assert folder.index.document("a.html").location(0).label == "3"


def test_texts_are_embedded_in_batches_across_documents(folder: Folder) -> None:
    for number in range(40):
        (folder.root / f"{number}.txt").write_text(f"Document {number} is short.")
    told: list[IngestProgress] = []
    folder.ingest(on_progress=told.append)
    assert folder.embedder is not None and folder.embedder.calls <= 4  # one a moment, on a slow machine
    assert (told[-1].files, told[-1].total_files, told[-1].documents, told[-1].chunks) == (40, 40, 40, 40)
    assert told[-1].bytes_done == told[-1].total_bytes > 0
    assert [each.bytes_done for each in told] == sorted(each.bytes_done for each in told)


def test_batches_are_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.retrieval import ingest as module

    monkeypatch.setattr(module, "BATCH_CHUNKS", 4)
    for number in range(10):
        (folder.root / f"{number}.txt").write_text(f"Document {number} is short.")
    sizes: list[int] = []
    put = folder.index.put
    monkeypatch.setattr(folder.index, "put", lambda documents: sizes.append(len(documents)) or put(documents))
    folder.ingest()
    assert sizes == [4, 4, 2]


def test_a_document_prefix_is_embedded_and_not_stored(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "docs", prefix="passage: ")
    folder.write(a_txt="Words.")
    folder.ingest()
    assert folder.embedder is not None and folder.embedder.asked == ["passage: Words."]
    assert folder.index.chunks("a.txt")[0].text == "Words."


def test_parents_are_stored_and_not_embedded(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "docs", chunker="parents:size=40:overlap=0:parent_size=200")
    folder.write(a_txt="\n\n".join(f"Paragraph {n} has words, {n * 7} of them." for n in range(4)))
    receipt = folder.ingest()
    chunks = folder.index.chunks("a.txt")
    parents = parent_ids(chunks)
    assert len(parents) == 1 and receipt.embedded == len(chunks) - 1 == len(folder.index)
    assert not folder.index.vectors(list(parents)).any()
    assert all(hit.chunk.id not in parents for hit in folder.index.search_terms("words", 10, {}))


def test_terms_alone_need_no_embedder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "docs", vectors=False)
    folder.write(a_txt="Words.")
    receipt = folder.ingest()
    assert receipt.added == ("a.txt",) and receipt.embedded == receipt.reused == 0
    assert folder.index.search_terms("words", 1, {})


def test_vectors_of_another_dimension_are_refused(folder: Folder) -> None:
    folder.embedder = WordEmbedder(16)
    folder.write(a_txt="Words.")
    with pytest.raises(ModelError, match=r"shape \(1, 16\)"):
        folder.ingest()
    assert folder.index.hashes() == {}


def test_a_cancelled_ingest_leaves_whole_documents_and_goes_on(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.retrieval import ingest as module

    monkeypatch.setattr(module, "BATCH_CHUNKS", 3)
    for number in range(9):
        (folder.root / f"{number}.txt").write_text(f"Document {number} is short.")

    async def cancelled() -> None:
        def tell(state: IngestProgress) -> None:
            if state.documents >= 3:
                task.cancel()

        task = asyncio.ensure_future(
            ingest(folder.root, folder.index, folder.embedder, folder.chunker.chunk, on_progress=tell)
        )
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    kept = set(folder.index.hashes())
    assert kept and len(kept) < 9 and folder.index.verify() == []
    receipt = folder.ingest()
    assert set(receipt.unchanged) == kept and len(receipt.added) == 9 - len(kept)


def test_the_files_of_an_index_are_its_own() -> None:
    names = {path.name for path in index_files(Path("d/.firsthand-index"))}
    assert {".firsthand-index", ".firsthand-index-wal", ".firsthand-index.lock", ".firsthand-index.new-shm"} <= names
