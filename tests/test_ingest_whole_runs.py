"""Whole ingests with every option given: two folders through a link, several batches, remarks, failures and removals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError
from firsthand.retrieval import ingest as module
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexHeader, IngestReceipt
from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.folder_files import FolderFilter
from firsthand.retrieval.ingest import IngestProgress, ingest
from firsthand.retrieval.store.sqlite_index import open_index

HEADER = IndexHeader("two", "f", 2, "whole", document_prefix="p: ")
TERMS = IndexHeader("", "", 0, "whole")


def whole(document: Document) -> list[Chunk]:
    return [Chunk(document.id, 0, len(document.text), document.text)]


class Cutting:
    """Cuts texts of more than eight characters, prefix included; a vector tells whether a text has an `a`."""

    name = "cutting"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def embed_counted(self, texts: Sequence[str]) -> Any:
        self.asked.append(list(texts))
        rows = [[1.0, 0.0] if "a" in text else [0.0, 1.0] for text in texts]
        return SimpleNamespace(vectors=np.array(rows, np.float32), truncated=[len(text) > 8 for text in texts])


def folders(tmp_path: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = tmp_path / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_two_folders_are_read_in_batches_with_all_that_is_told_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_CHUNKS", 2)
    monkeypatch.setattr(module, "MOMENT_S", 60.0)
    folders(tmp_path, one__a_txt="aaaaaaa", one__b_jsonl='{"said": "b1", "id": 7}\n{"text": "no"}\n{"said": "b2b2b2b2"}\n',
            one__own_txt="index", one__also_txt="index too",
            one__big_txt="x" * 71, one__left_txt="out", two__a_txt="aaaaaaa", two__c_bin="?",
            two__sub__d_md="d")  # fmt: skip
    (tmp_path / "one" / "lost.txt").symlink_to("none")
    (tmp_path / "link").symlink_to("two")
    (tmp_path / "way").symlink_to("one")
    (tmp_path / "one" / "own.txt").unlink()
    (tmp_path / "one" / "own.txt").symlink_to("lost.txt")  # what is our own is known by its place, a link or not
    embedder, told = Cutting(), list[IngestProgress]()
    index = open_index(tmp_path / "x.index", HEADER)
    made = asyncio.run(
        ingest(
            [str(tmp_path / "one"), tmp_path / "link"], index, embedder, whole,  # type: ignore[arg-type]
            settings=ReadSettings(max_file_bytes=70, text_field="said"),
            chosen=FolderFilter(exclude=("left.*",)), 
            own_files=[tmp_path / "way" / "own.txt", tmp_path / "one" / "also.txt"],
            on_progress=told.append,
        )
    )  # fmt: skip
    assert made == IngestReceipt(
        added=("one/a.txt", "one/b.jsonl:7", "one/b.jsonl:3", "two/a.txt", "two/sub/d.md"),
        failed=(
            ("one/lost.txt", "it is a link to nothing"),
            ("one/b.jsonl:2", "it has no text in a field 'said': name the field by --text-field"),
            ("one/big.txt", "it has 71 bytes, and at most 70 are read: divide it, or raise --max-file-bytes"),
        ),
        embedded=4, reused=1,
        notes=(
            ("two/c.bin", ".bin: not a kind that is read"), ("two/a.txt", "it has the same text as one/a.txt"),
            ("vectors", "2 chunks longer than the model reads, whose ends have no part in their vectors: reindex with a "
             "smaller size, such as --chunker auto:size=500"),
        ),
    )  # fmt: skip
    assert embedder.asked == [["p: aaaaaaa", "p: b1"], ["p: b2b2b2b2"], ["p: d"]]
    sizes = {
        name: (tmp_path / name).stat().st_size for name in ("one/a.txt", "one/b.jsonl", "two/a.txt", "two/sub/d.md")
    }
    total = sum(sizes.values()) + 71
    assert {(each.total_files, each.total_bytes) for each in told} == {(5, total)}
    last = told[-1]
    assert (last.files, last.bytes_done, last.documents, last.chunks) == (5, total, 5, 5)
    assert [each.bytes_done for each in told] == sorted(
        each.bytes_done for each in told
    ) and last.name == "two/sub/d.md"
    ids = [index.chunks(id)[0].id for id in ("one/a.txt", "two/a.txt", "one/b.jsonl:7")]
    assert index.vectors(ids).tolist() == [[1, 0], [1, 0], [0, 1]]
    meta = index.document("one/b.jsonl:3").meta
    assert (meta["file"]["documents"], meta["file"]["failed"], meta["file"]["reader"]) == (2, 1, "jsonl:3:text=said")
    assert index.document("two/sub/d.md").source == str(tmp_path / "two" / "sub" / "d.md")
    index.close()


def run(index: Any, *sources: Path, **options: Any) -> IngestReceipt:
    return asyncio.run(ingest(list(sources), index, None, whole, **options))


def test_a_moment_of_files_that_have_not_changed_is_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path, **{f"many__{n}_txt": f"text {n}" for n in range(6)})
    with open_index(":memory:", TERMS) as index:
        assert len(run(index, tmp_path / "many").added) == 6
        (tmp_path / "many" / "5.txt").write_text("other")
        clock = iter(range(10**6))
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
        monkeypatch.setattr(module, "MOMENT_S", 1.5)  # one file in each moment
        assert run(index, tmp_path / "many").updated == ("5.txt",)


def test_what_is_gone_is_removed_only_if_wanted_and_only_below_the_folders_that_were_given(tmp_path: Path) -> None:
    folders(tmp_path, one__a_txt="a", one__b_jsonl='{"text": "x"}\n{"text": "y"}\n{"text": "z"}\n', oneself__c_txt="c")
    with open_index(":memory:", TERMS) as index:
        assert run(index, tmp_path / "one").added == ("a.txt", "b.jsonl:1", "b.jsonl:2", "b.jsonl:3")
        assert run(index, tmp_path / "oneself").added == ("c.txt",)
        for name in ("one/a.txt", "one/b.jsonl", "oneself/c.txt"):
            (tmp_path / name).unlink()
        for sources, lost in (((tmp_path / "one",), 4), ((tmp_path / "one", tmp_path / "oneself"), 5)):
            with pytest.raises(ConfigError) as refused:
                run(index, *sources)
            assert str(refused.value) == (
                f"{', '.join(map(str, sources))} holds no file to read, and the index has {lost} documents of it: if that "
                "is right, remove the index's file; else see that the folder is mounted"
            )
        assert run(index, tmp_path / "one", removes=False) == IngestReceipt() and len(index.hashes()) == 5
        (tmp_path / "one" / "new.txt").write_text("new")
        assert run(index, tmp_path / "one", removes=False) == IngestReceipt(("new.txt",)) and len(index.hashes()) == 6
        assert run(index, tmp_path / "one") == IngestReceipt(
            unchanged=("new.txt",), removed=("a.txt", "b.jsonl:1", "b.jsonl:2", "b.jsonl:3")
        )
        assert [*index.hashes()] == ["c.txt", "new.txt"], "`oneself` is not below `one`"
        with pytest.raises(ConfigError, match=r"^no folder or file '.*away' can be read: No such file or directory$"):
            run(index, tmp_path / "away")


def test_a_file_that_another_begins_with_is_another_file_and_one_from_elsewhere_keeps_its_id_until_it_is_deleted(
    tmp_path: Path,
) -> None:
    item = json.dumps({"text": "x", "id": "1"})
    folders(tmp_path, one__a_jsonl=item, one__a_jsonl2_txt="t", two__n_txt="two", three__n_txt="three")
    with open_index(":memory:", TERMS) as index:
        assert run(index, tmp_path / "one").added == ("a.jsonl:1", "a.jsonl2.txt")
        (tmp_path / "one" / "a.jsonl").write_text(item + "\n" + json.dumps({"text": "y", "id": "2"}))
        again = run(index, tmp_path / "one")
        assert (again.added, again.updated, again.unchanged) == (("a.jsonl:2",), ("a.jsonl:1",), ("a.jsonl2.txt",))
        assert run(index, tmp_path / "two").added == ("n.txt",)
        refused = run(index, tmp_path / "three")
        assert refused.failed == (
            ("n.txt", f"the index has a document of this id from {tmp_path / 'two' / 'n.txt'}: give this folder an index "
             "of its own"),
        ) and refused.removed == ()  # fmt: skip
        (tmp_path / "two" / "n.txt").unlink()
        assert [id for id, _ in run(index, tmp_path / "three").failed] == ["n.txt"]
        index.delete(["n.txt"])
        assert run(index, tmp_path / "three").added == ("n.txt",)
        assert index.document("n.txt").text == "three"
