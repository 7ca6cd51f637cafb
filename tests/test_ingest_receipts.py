"""Receipts, progress and messages of an ingest as whole values, at the edges where files fail, move and go."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.retrieval import ingest as module
from firsthand.retrieval.chunk_index import IngestReceipt
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.folder_files import read_bytes
from firsthand.retrieval.ingest import NOT_THERE, IngestProgress, _Tally, index_files, ingest
from firsthand.retrieval.moved_folders import is_gone
from firsthand.retrieval.store import document_rows
from test_ingest import Folder, WordEmbedder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "docs")
    yield made
    made.index.close()


def lines(*items: tuple[str, str]) -> str:
    return "".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in items)


def test_a_tally_becomes_the_receipt_of_the_same_fields() -> None:
    tally = _Tally(["a"], ["b"], ["c"], ["d"], [("e", "why")], [("f", "note")], 7, 8)
    assert tally.receipt() == IngestReceipt(
        ("a",), ("b",), ("c",), ("d",), (("e", "why"),), embedded=7, reused=8, notes=(("f", "note"),)
    )


def test_a_second_ingest_names_each_document_by_what_became_of_it(folder: Folder) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta one.", c_txt="Gamma.", d_txt="Delta.", e_txt=" \n")
    first = folder.ingest()
    assert first == IngestReceipt(
        ("a.txt", "b.txt", "c.txt", "d.txt"), embedded=4, notes=(("e.txt", "it is empty: nothing to index"),)
    )
    folder.write(b_txt="Beta two.", f_txt="Alpha.")
    (folder.root / "d.txt").unlink()
    again = folder.ingest()
    assert again == IngestReceipt(
        ("f.txt",), ("b.txt",), ("a.txt", "c.txt"), ("d.txt",), (), 1, 1,
        (("e.txt", "it is empty: nothing to index"), ("f.txt", "it has the same text as a.txt")),
    )  # fmt: skip
    assert folder.embedder is not None and folder.embedder.asked[4:] == ["Beta two."]


def test_progress_counts_files_bytes_documents_and_chunks(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_CHUNKS", 1)
    folder.write(
        a_txt="Alpha.", b_txt="", c_jsonl=lines(("x", "One."), ("y", "Two.")), d_bin="no", e_txt=b"\x7fELF\0\0\0"
    )
    size = (folder.root / "c.jsonl").stat().st_size
    total = 6 + size + 7
    told: list[IngestProgress] = []
    receipt = folder.ingest(on_progress=told.append)
    assert receipt.added == ("a.txt", "c.jsonl:x", "c.jsonl:y") and [name for name, _ in receipt.failed] == ["e.txt"]
    assert ("d.bin", ".bin: not a kind that is read") in receipt.notes
    assert {(each.total_files, each.total_bytes) for each in told} == {(4, total)}
    # the bytes of a file of several documents count when its last one is stored
    assert told[-1] == IngestProgress(4, 4, total, total, 3, 3, "e.txt")
    stored = [each for each, before in zip(told[1:], told, strict=False) if each.chunks > before.chunks]
    assert [each.chunks for each in stored] == [1, 2, 3] and [each.documents for each in stored] == [1, 2, 3]
    assert [each.bytes_done for each in told] == sorted(each.bytes_done for each in told)
    told.clear()
    folder.ingest(on_progress=told.append)
    assert (told[-1].documents, told[-1].chunks, told[-1].bytes_done) == (3, 0, total)


def test_batches_end_at_their_characters_too(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_CHARS", 12)
    folder.write(a_txt="123456", b_txt="123457", c_txt="123458", d_txt="12345", e_txt="1234")
    sizes: list[list[str]] = []
    put = folder.index.put
    monkeypatch.setattr(
        folder.index, "put", lambda given: sizes.append([each.document.id for each in given]) or put(given)
    )
    folder.ingest()
    assert sizes == [["a.txt", "b.txt"], ["c.txt", "d.txt", "e.txt"]]


def test_chunks_that_are_cut_are_counted_in_one_note(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuts(WordEmbedder):
        async def embed_counted(self, texts: Sequence[str]) -> Any:
            return SimpleNamespace(vectors=await self.embed(texts), truncated=[len(text) > 6 for text in texts])

    folder.embedder = Cuts()
    folder.write(a_txt="Alpha.", b_txt="Longer.")
    ends = (
        "longer than the model reads, whose ends have no part in their vectors: reindex with a smaller size, such as "
    )
    assert folder.ingest().notes == (("vectors", f"1 chunk {ends}--chunker auto:size=500"),)
    folder.write(c_txt="Longest.", d_txt="Longer too.")
    assert folder.ingest().notes == (("vectors", f"2 chunks {ends}--chunker auto:size=500"),)
    assert folder.ingest().notes == ()


def test_an_item_that_is_gone_from_its_file_is_removed_unless_another_failed(folder: Folder) -> None:
    folder.write(a_jsonl=lines(("x", "One."), ("y", "Two."), ("z", "Three.")))
    folder.ingest()
    folder.write(a_jsonl=lines(("x", "One."), ("y", "Changed.")) + "{broken\n")
    receipt = folder.ingest()
    assert receipt.updated == ("a.jsonl:x", "a.jsonl:y") and receipt.removed == () and len(receipt.failed) == 1
    assert folder.ingest().failed == receipt.failed, "it is read again, and named again"
    folder.write(a_jsonl=lines(("y", "Changed.")))
    assert folder.ingest().removed == ("a.jsonl:x", "a.jsonl:z") and list(folder.index.hashes()) == ["a.jsonl:y"]


def test_a_reader_s_own_fault_is_named_and_the_rest_goes_on(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.")
    work = module._Ingest([folder.root], folder.index, folder.embedder, folder.chunker.chunk, ReadSettings(), print)
    asked: list[Any] = []

    def broken(data: bytes, name: str, settings: Any) -> Any:
        asked.append((data, name, settings))
        raise KeyError("cell")

    file: Any = SimpleNamespace(format=SimpleNamespace(isolated=lambda size: size > 3, read=broken, name="odd"))
    with pytest.raises(DataError, match=r"^its reader failed, which is a fault of ours: KeyError: 'cell'$"):
        work._content(b"123", "a", file)
    assert asked == [(b"123", "a", ReadSettings())]
    monkeypatch.setattr(work.parser, "parse", lambda *given: given)
    assert work._content(b"1234", "a", file) == ("odd", b"1234", "a")
    refuses: Any = SimpleNamespace(
        format=SimpleNamespace(isolated=lambda size: False, read=lambda *given: (_ for _ in ()).throw(DataError("own")))
    )
    with pytest.raises(DataError, match=r"^own$"):
        work._content(b"1", "a", refuses)
    work.parser.close()


def test_an_id_of_another_place_is_refused_until_its_document_is_deleted(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(a_txt="Alpha.")
    folder.ingest()
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("Other words.")
    read: list[Path] = []
    monkeypatch.setattr(module, "read_bytes", lambda path, most: (read.append(path), read_bytes(path, most))[1])
    receipt = asyncio.run(ingest(other, folder.index, folder.embedder, folder.chunker.chunk))
    assert read == [other / "a.txt"], "once: whether a folder moved does not matter while the other file is there"
    told = f"the index has a document of this id from {folder.root / 'a.txt'}: give this folder an index of its own"
    assert receipt == IngestReceipt(failed=(("a.txt", told),)) and folder.index.document("a.txt").text == "Alpha."
    (folder.root / "a.txt").unlink()
    receipt = asyncio.run(ingest(other, folder.index, folder.embedder, folder.chunker.chunk))
    assert [id for id, _ in receipt.failed] == ["a.txt"] and folder.index.document("a.txt").text == "Alpha."
    folder.index.delete(["a.txt"])
    receipt = asyncio.run(ingest(other, folder.index, folder.embedder, folder.chunker.chunk))
    assert receipt.added == ("a.txt",) and folder.index.document("a.txt").source == str(other / "a.txt")


def test_two_files_of_one_id_and_folders_of_one_name_are_refused(folder: Folder, tmp_path: Path) -> None:
    for parent in ("x", "y"):
        (tmp_path / parent / "same").mkdir(parents=True)
        (tmp_path / parent / "same" / "a.txt").write_text(parent)
    with pytest.raises(
        ConfigError, match=r"^two files would have the id 'same/a\.txt': index their folders one by one, "
    ):
        folder.ingest(tmp_path / "x" / "same", tmp_path / "y" / "same")
    receipt = folder.ingest(tmp_path / "x" / "same", tmp_path / "y" / "same" / "a.txt")
    assert receipt.added == ("same/a.txt", "a.txt")  # a file has no folder before it
    assert folder.index.document("a.txt").text == "y"


def test_only_what_lay_below_the_given_folders_goes(folder: Folder, tmp_path: Path) -> None:
    other = tmp_path / "docs2"  # begins with the name of the first
    other.mkdir()
    (other / "b.txt").write_text("Beta.")
    folder.write(a_txt="Alpha.", z_txt="Zeta.", sub__y_txt="Ypsilon.", sub__x_txt="Xi.")
    folder.ingest(folder.root, other)
    for path in (folder.root / "a.txt", other / "b.txt"):
        path.unlink()
    with pytest.raises(
        ConfigError, match=r"docs2 holds no file to read, and the index has 1 documents of it: if that is"
    ):
        folder.ingest(other)
    assert folder.ingest(other, removes=False) == IngestReceipt()
    renamed = folder.root.rename(tmp_path / "moved")
    (renamed / "z.txt").rename(renamed / "docs2.txt")
    assert sorted(folder.index.hashes()) == [
        "docs/a.txt",
        "docs/sub/x.txt",
        "docs/sub/y.txt",
        "docs/z.txt",
        "docs2/b.txt",
    ]
    receipt = folder.ingest(renamed, own_files=[renamed / ".index"])
    # a folder that holds its index has moved with it: half of its files are the same
    assert receipt.added == ("docs2.txt", "sub/x.txt", "sub/y.txt")
    assert receipt.removed == ("docs/a.txt", "docs/sub/x.txt", "docs/sub/y.txt", "docs/z.txt")
    assert receipt.notes == (("docs2/b.txt", NOT_THERE),)


def test_a_path_is_gone_where_nothing_is_and_where_its_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    paths = ["none", "file", "file/below", "none/below", "dangling", "a" * 300, "nul\0"]
    assert [is_gone(str(tmp_path / path)) for path in paths] == [True, False, True, True, False, False, False]


def test_the_files_of_an_index_are_named_in_full() -> None:
    endings = ["", "-wal", "-shm", "-journal", ".lock", ".lock.holder", ".lock.holder.new", ".ann", ".terms"]
    assert index_files(Path("d/i")) == [
        Path(f"d/i{new}{ending}") for new in ("", ".new", ".graph") for ending in endings
    ]


def test_other_settings_or_a_newer_reader_read_a_file_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(a_txt="Alpha.")
    folder.ingest()
    meta = folder.index.document("a.txt").meta[module.FILE_META]
    assert sorted(meta) == ["documents", "reader", "sha256"] and meta["documents"] == 1
    assert meta["reader"].startswith("text:") and meta["reader"].endswith(f":{ReadSettings().fields}")
    walk = module.walk

    def newer(*given: Any) -> Any:
        for each in walk(*given):
            yield replace(each, format=each.format._replace(version=99))

    monkeypatch.setattr(module, "walk", newer)
    assert folder.ingest().updated == ("a.txt",)
    assert ":99:" in folder.index.document("a.txt").meta[module.FILE_META]["reader"]
    assert folder.ingest().unchanged == ("a.txt",)


def test_a_document_that_is_being_stored_when_its_ingest_is_cancelled_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path / "docs", vectors=False)
    folder.write(a_txt="\n\n".join(f"Paragraph {number} is about nothing else at all." for number in range(50)))
    begun, go = threading.Event(), threading.Event()
    stored: list[str] = []
    text_hash = document_rows.text_hash

    def held(text: str) -> bytes:
        stored.append(text)
        begun.set()
        assert go.wait(10)
        return text_hash(text)

    monkeypatch.setattr(document_rows, "text_hash", held)

    async def cancelled() -> None:
        task = asyncio.ensure_future(ingest(folder.root, folder.index, None, folder.chunker.chunk))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert len(stored) == 1 and folder.index.hashes() == {} and folder.index.verify() == []
    assert folder.ingest().added == ("a.txt",) and len(stored) > 20
    folder.index.close()
