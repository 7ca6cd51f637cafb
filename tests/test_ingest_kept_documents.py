"""What an ingest does with documents of files that it does not read, or reads under another name."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.errors import ConfigError
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.folder_files import FolderFilter
from firsthand.retrieval.ingest import NONE_READ, NOT_READ, NOT_THERE
from test_ingest import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "docs")


@pytest.fixture
def more(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "u.txt").write_text("Usb.")
    return tmp_path / "more"


def test_a_file_has_one_document_whatever_folders_it_is_read_with(folder: Folder, more: Path) -> None:
    folder.write(a_txt="Limit 100.", f_jsonl='{"id": "x", "text": "one"}\n')
    folder.ingest()
    assert folder.embedder is not None
    folder.embedder.asked.clear()
    receipt = folder.ingest(folder.root, more)
    assert receipt.added == ("docs/a.txt", "docs/f.jsonl:x", "more/u.txt")
    assert receipt.removed == ("a.txt", "f.jsonl:x") and folder.embedder.asked == ["Usb."]
    assert [*folder.index.hashes()] == ["docs/a.txt", "docs/f.jsonl:x", "more/u.txt"]
    folder.write(a_txt="Limit 250.")
    assert folder.ingest(folder.root, more).updated == ("docs/a.txt",)
    assert folder.ingest(removes=False).removed == ("docs/a.txt", "docs/f.jsonl:x")
    assert [*folder.index.hashes()] == ["a.txt", "f.jsonl:x", "more/u.txt"]


def test_copies_that_an_older_version_left_go_although_the_file_is_unchanged(folder: Folder) -> None:
    folder.write(a_txt="Alpha.")
    folder.ingest()
    mine = folder.index.document("a.txt")
    from dataclasses import replace

    from firsthand.retrieval.chunk_index import IndexedDocument

    for id, meta in (("docs/a.txt", mine.meta), ("a summary", {})):
        made = replace(mine, id=id, meta=meta)
        chunks = folder.chunker.chunk(made)
        folder.index.put(
            [IndexedDocument(made, chunks, folder.index.vectors([c.id for c in folder.index.chunks("a.txt")]))]
        )
    receipt = folder.ingest()
    assert receipt.unchanged == ("a.txt",) and receipt.removed == ("docs/a.txt",)
    assert [*folder.index.hashes()] == ["a summary", "a.txt"], "a document that no ingest made is not a file's"


def test_what_a_file_was_stays_until_its_new_documents_are_stored(folder: Folder, more: Path) -> None:
    folder.write(f_jsonl='{"id": "x", "text": "one"}\n', g_txt="Gamma.")
    folder.ingest()
    folder.write(f_jsonl='{"id": "x", "text": "one"}\nno\n')
    (folder.root / "g.txt").write_bytes(b"")
    receipt = folder.ingest(folder.root, more)
    assert receipt.removed == ("g.txt",), (
        "an empty file has no document; one with a bad line may have lost what it holds"
    )
    assert [*folder.index.hashes()] == ["docs/f.jsonl:x", "f.jsonl:x", "more/u.txt"]


def test_a_document_stays_whose_file_has_an_id_of_another_file_now(folder: Folder, tmp_path: Path) -> None:
    folder.write(a_txt="Alpha.")
    outer = tmp_path / "outer"
    (outer / "docs").mkdir(parents=True)
    (outer / "docs" / "a.txt").write_text("Another.")
    folder.ingest(outer)
    folder.ingest()
    (tmp_path / "more").mkdir()
    receipt = folder.ingest(folder.root, tmp_path / "more")
    assert [id for id, _ in receipt.failed] == ["docs/a.txt"] and receipt.removed == ()
    assert [*folder.index.hashes()] == ["a.txt", "docs/a.txt"]


def test_a_file_in_two_of_the_folders_is_read_once(folder: Folder) -> None:
    folder.write(sub__b_txt="Beta.")
    for _ in range(2):
        receipt = folder.ingest(folder.root, folder.root / "sub")
        assert receipt.notes == (("sub/b.txt", "it is read as docs/sub/b.txt"),) and receipt.removed == ()
        assert [*folder.index.hashes()] == ["docs/sub/b.txt"]


def test_an_index_in_its_folder_keeps_documents_of_a_folder_that_is_not_mounted(folder: Folder, more: Path) -> None:
    folder.write(a_txt="Alpha.")
    (more / "v.txt").write_text("Vau.")
    own = [folder.root / ".index"]
    folder.ingest(own_files=own)
    folder.ingest(more)
    away = more.rename(more.parent / "unplugged")
    (folder.root / "u.txt").write_bytes((away / "u.txt").read_bytes())
    receipt = folder.ingest(own_files=own)
    assert receipt.removed == () and receipt.notes[-1] == ("v.txt", NOT_THERE)
    assert "v.txt" in folder.index.hashes() and folder.ingest(own_files=[more / "i"]).notes[1:] == ()


def test_a_folder_that_moves_with_its_index_takes_what_is_gone_of_its_own_alone(folder: Folder, more: Path) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.", sub__c_txt="Gamma.")
    (more / "a.txt").write_text("Alpha.")
    folder.ingest()
    folder.ingest(more / "u.txt")
    root = folder.root.rename(folder.root.parent / "moved")
    more.rename(more.parent / "unplugged")
    (root / "b.txt").unlink()
    receipt = folder.ingest(root, own_files=[root / ".index"])
    assert receipt.removed == ("b.txt",) and receipt.notes == (("u.txt", NOT_THERE),)
    assert [*folder.index.hashes()] == ["a.txt", "sub/c.txt", "u.txt"]


def test_a_moved_folder_is_known_by_bytes_at_their_place_and_never_by_names_alone(folder: Folder, more: Path) -> None:
    (more / "v.txt").write_text("Vau.")
    folder.ingest(more)
    more.rename(more.parent / "unplugged")
    folder.write(u_txt="Another.", copy_txt="Usb.")
    receipt = folder.ingest(own_files=[folder.root / ".index"])
    assert receipt.removed == () and ("v.txt", NOT_THERE) in receipt.notes
    assert receipt.updated == () and [id for id, _ in receipt.failed] == ["u.txt"]


def test_a_few_files_that_two_folders_share_make_none_the_former_place_of_the_other(folder: Folder, more: Path) -> None:
    for name in ("LICENSE.txt", "NOTICE.txt", "x.txt", "y.txt"):
        (more / name).write_text(f"{name} of all.")
    folder.ingest(more)
    away = more.rename(more.parent / "unplugged")
    for name in ("LICENSE.txt", "NOTICE.txt"):
        (folder.root / name).write_bytes((away / name).read_bytes())
    receipt = folder.ingest(own_files=[folder.root / ".index"])
    assert receipt.removed == () and receipt.updated == ("LICENSE.txt", "NOTICE.txt"), "two of five"
    assert [each for each in receipt.notes if each[1] == NOT_THERE] == [
        (id, NOT_THERE) for id in ("u.txt", "x.txt", "y.txt")
    ]


def test_a_document_of_a_folder_that_is_not_mounted_is_not_replaced_by_another_folders(
    folder: Folder, more: Path
) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.", c_jsonl='{"id": "x", "text": "one"}\n')
    folder.ingest()
    folder.root.rename(folder.root.parent / "unplugged")
    (more / "a.txt").write_text("Another.")
    (more / "b.txt").write_text("Beta.")
    (more / "c.jsonl").write_text('{"id": "x", "text": "two"}\nno\n')
    receipt = folder.ingest(more)
    assert receipt.added == ("u.txt",) and receipt.updated == ("b.txt",), "the same bytes may be of a file that moved"
    a, x = str(folder.root / "a.txt"), str(folder.root / "c.jsonl")
    assert [(id, told) for id, told in receipt.failed if id in ("a.txt", "c.jsonl:x")] == [
        (id, f"the index has a document of this id from {source}, which is not there: if its folder was moved or made "
        "anew here, index again with --moved-from and the former folder; if the file was deleted, remove the document with "
        "`firsthand rag delete` and index this file again; if its folder is not mounted, give this folder an index of its "
        "own")
        for id, source in (("a.txt", a), ("c.jsonl:x", x))
    ]  # fmt: skip
    assert len(receipt.failed) == 3, "the line that is no JSON is told once"
    assert folder.index.document("a.txt").text == "Alpha." and folder.index.document("c.jsonl:x").text == "one"
    folder.index.delete(["a.txt"])
    assert folder.ingest(more).added == ("a.txt",)


def test_a_folder_that_moved_replaces_its_documents_wherever_the_index_lies(folder: Folder) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.", c_txt="Gamma.", d_txt="Delta.")
    folder.ingest()
    root = folder.root.rename(folder.root.parent / "moved")
    (root / "a.txt").write_text("Another.")
    (root / "b.txt").write_text("Changed.")
    progress: list[tuple[int, int, str]] = []
    receipt = folder.ingest(root, on_progress=lambda told: progress.append((told.bytes_done, told.files, told.name)))
    assert receipt.failed == () and receipt.updated == ("c.txt", "d.txt", "a.txt", "b.txt")
    assert progress[-1] == (len("Another.Changed.Gamma.Delta."), 4, "b.txt")
    assert folder.index.document("a.txt").text == "Another."


def test_a_link_to_nothing_in_the_place_of_a_file_is_there(folder: Folder, more: Path) -> None:
    folder.write(u_txt="Alpha.")
    folder.ingest()
    (folder.root / "u.txt").unlink()
    (folder.root / "u.txt").symlink_to("nothing")
    told = f"the index has a document of this id from {folder.root / 'u.txt'}: give this folder an index of its own"
    assert folder.ingest(more).failed == (("u.txt", told),)


def test_a_file_that_cannot_be_read_is_named_once_and_a_file_of_no_text_has_failed_if_it_was_asked_for(
    folder: Folder,
) -> None:
    folder.write(a_txt="Alpha.", b_jsonl='{"x": 1}\n')
    first = folder.ingest()
    assert first.failed == () and [id for id, _ in first.notes] == ["b.jsonl"]
    assert [id for id, _ in folder.ingest(folder.root / "b.jsonl").failed] == ["b.jsonl"]
    receipt = folder.ingest(settings=ReadSettings(max_file_bytes=5))
    assert [id for id, _ in receipt.failed] == ["a.txt", "b.jsonl"] and receipt.notes == ()


def test_a_document_of_a_deleted_file_of_the_same_folder_is_replaced(folder: Folder) -> None:
    folder.write(**{"f.jsonl:x_txt": "Alpha."})
    folder.ingest()
    (folder.root / "f.jsonl:x.txt").unlink()
    folder.write(f_jsonl='{"id": "x.txt", "text": "one"}\n')
    receipt = folder.ingest()
    assert receipt.failed == () and receipt.updated == ("f.jsonl:x.txt",) and receipt.removed == ()


def test_half_of_the_files_read_at_a_place_are_enough_to_know_a_folder_that_moved(folder: Folder) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.", sub__c_jsonl='{"id": "x", "text": "one"}\n', d_txt="Delta.")
    folder.ingest()
    root = folder.root.rename(folder.root.parent / "moved")
    (root / "b.txt").unlink()
    (root / "d.txt").write_text("Changed.")
    receipt = folder.ingest(root, own_files=[root / ".index"])
    assert receipt.removed == ("b.txt",) and receipt.updated == ("a.txt", "sub/c.jsonl:x", "d.txt")


def test_a_folder_that_was_read_beside_others_is_known_where_it_moved(folder: Folder, more: Path) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.")
    folder.ingest(folder.root, more)
    root = folder.root.rename(folder.root.parent / "moved")
    more.rename(more.parent / "unplugged")
    (root / "b.txt").unlink()
    receipt = folder.ingest(root, own_files=[root / ".index"])
    assert receipt.removed == ("docs/a.txt", "docs/b.txt") and receipt.notes == (("more/u.txt", NOT_THERE),)
    assert [*folder.index.hashes()] == ["a.txt", "more/u.txt"]


def test_a_moved_folder_takes_nothing_that_was_read_from_another_above_or_below_it(
    folder: Folder, tmp_path: Path
) -> None:
    """Folders of a disk that is not mounted, each of which was indexed: their parent was not."""
    mnt = tmp_path / "mnt"
    for name in ("wiki/w1.txt", "wiki/w2.txt", "papers/p.txt"):
        (mnt / name).parent.mkdir(parents=True, exist_ok=True)
        (mnt / name).write_text(f"Text of {name}.")
    for name in ("wiki", "papers"):
        folder.ingest(mnt / name)
    away = mnt.rename(tmp_path / "unplugged")
    folder.write(wiki__w1_txt="", wiki__w2_txt="")
    for name in ("wiki/w1.txt", "wiki/w2.txt"):
        (folder.root / name).write_bytes((away / name).read_bytes())
    receipt = folder.ingest(own_files=[folder.root / ".index"])
    assert receipt.removed == () and ("p.txt", NOT_THERE) in receipt.notes
    assert [*folder.index.hashes()] == ["p.txt", "w1.txt", "w2.txt", "wiki/w1.txt", "wiki/w2.txt"]


def test_a_folder_that_was_copied_has_not_moved(folder: Folder, tmp_path: Path) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.")
    folder.ingest()
    (folder.root / "b.txt").unlink()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a.txt").write_text("Alpha.")
    receipt = folder.ingest(copy, own_files=[copy / ".index"])
    assert receipt.removed == () and receipt.notes == (("b.txt", NOT_THERE),)


def test_a_moved_folder_leaves_a_disk_that_was_mounted_in_it_and_others_that_share_a_file(
    folder: Folder, more: Path
) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.", u_txt="Usb.")
    (more / "v.txt").write_text("Vau.")
    folder.ingest(more, folder.root)
    folder.write(disk__d_txt="Disk.")
    folder.ingest(folder.root / "disk")
    root = folder.root.rename(folder.root.parent / "moved")
    more.rename(more.parent / "unplugged")
    (root / "disk").rename(more.parent / "disk")
    receipt = folder.ingest(root, own_files=[root / ".index"])
    assert receipt.removed == ("docs/a.txt", "docs/b.txt", "docs/u.txt")
    assert receipt.notes == tuple((id, NOT_THERE) for id in ("d.txt", "more/u.txt", "more/v.txt"))


def test_a_moved_folder_is_known_by_odd_names_and_beside_documents_that_no_ingest_made(folder: Folder) -> None:
    from dataclasses import replace

    from firsthand.retrieval.chunk_index import IndexedDocument

    folder.write(b_txt="Beta.")
    (folder.root / "caf\udce9.txt").write_text("Alpha.")
    folder.ingest()
    odd = next(id for id in folder.index.hashes() if id != "b.txt")
    made = replace(folder.index.document(odd), id="A summary", meta={})
    vectors = folder.index.vectors([each.id for each in folder.index.chunks(odd)])
    folder.index.put([IndexedDocument(made, folder.chunker.chunk(made), vectors)])
    root = folder.root.rename(folder.root.parent / "moved")
    (root / "b.txt").unlink()
    receipt = folder.ingest(root, own_files=[root / ".index"])
    assert "b.txt" in receipt.removed and receipt.updated == (odd,)


def test_documents_of_files_that_are_left_out_now_are_named_and_stay(folder: Folder) -> None:
    folder.write(a_txt="Alpha.", salaries_txt="Anna 93000.", c_txt="Gamma.", d_txt="Delta.")
    folder.ingest()
    for chosen in (FolderFilter(exclude=["salaries*", "c*", "d*"]), FolderFilter(include=["a*"])):
        receipt = folder.ingest(chosen=chosen)
        assert receipt.notes == tuple((id, NOT_READ) for id in ("c.txt", "d.txt", "salaries.txt"))
        assert receipt.unchanged == ("a.txt",) and receipt.removed == ()
    (folder.root / "c.txt").unlink()
    (folder.root / "c.txt").mkdir()
    (folder.root / "d.txt").rename(folder.root.parent / "d.txt")
    (folder.root / "d.txt").symlink_to(folder.root.parent / "d.txt")
    (folder.root / "salaries.txt").write_bytes(b"\xff\x00" * 50)
    receipt = folder.ingest()
    assert [id for id, reason in receipt.notes if reason == NOT_READ] == ["c.txt", "d.txt"]
    assert folder.index.delete(["c.txt", "d.txt"]) and NOT_READ not in [reason for _, reason in folder.ingest().notes]


def test_what_a_folder_lacks_that_moved_goes_only_with_an_index_that_moved_with_it(folder: Folder) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.")
    folder.ingest()
    root = folder.root.rename(folder.root.parent / "moved")
    (root / "b.txt").unlink()
    assert folder.ingest(root).removed == () and [*folder.index.hashes()] == ["a.txt", "b.txt"]


def test_a_file_replaces_the_document_of_its_id_that_was_put_with_a_url(folder: Folder) -> None:
    from dataclasses import replace

    from firsthand.retrieval.chunk_index import IndexedDocument

    folder.write(a_txt="Alpha.", b_txt="Beta.")
    folder.ingest()
    for id, text in (("a.txt", "From the web."), ("c.txt", "Only there.")):
        document = replace(
            folder.index.document("a.txt"), id=id, text=text, source=f"https://example.com/{id}", meta={}
        )
        chunks = folder.chunker.chunk(document)
        vectors = folder.index.vectors([each.id for each in folder.index.chunks("b.txt")])
        folder.index.put([IndexedDocument(document, chunks, vectors)])
    receipt = folder.ingest(own_files=[folder.root / ".index"])
    assert receipt.failed == () and receipt.updated == ("a.txt",) and receipt.notes == (), "no file of it is missing"
    assert folder.index.document("a.txt").text == "Alpha." and folder.index.document("c.txt").text == "Only there."


def test_a_folder_that_is_said_to_have_moved_replaces_its_documents_and_takes_those_that_it_lacks(
    folder: Folder, more: Path
) -> None:
    folder.write(
        a_txt="Alpha.", b_txt="Beta.", gone_txt="Gone.", f_jsonl='{"id": "x", "text": "1"}\n{"id": "y", "text": "2"}\n'
    )
    folder.ingest()
    folder.ingest(more)
    folder.root.rename(folder.root.parent / "former")
    more.rename(more.parent / "unplugged")
    made = folder.root.parent / "made"
    made.mkdir()
    for name, text in (("a.txt", "Alpha 2."), ("b.txt", "Beta 2."), ("f.jsonl", '{"id": "x", "text": "3"}\n')):
        (made / name).write_text(text)
    own = [made / ".index"]
    receipt = folder.ingest(made, own_files=own)
    assert [id for id, _ in receipt.failed] == ["a.txt", "b.txt", "f.jsonl:x"]
    told = [id for id, told in receipt.notes if told == NOT_THERE]
    assert told == ["f.jsonl:y", "gone.txt", "u.txt"], "what failed is told once"
    receipt = folder.ingest(made, moved_from=[folder.root], removes=False, own_files=own)
    assert receipt.notes == (("u.txt", NOT_THERE),)
    assert receipt.updated == ("a.txt", "b.txt", "f.jsonl:x") and receipt.removed == () == receipt.failed
    receipt = folder.ingest(made, moved_from=[folder.root], own_files=own)
    assert sorted(receipt.removed) == ["f.jsonl:y", "gone.txt"] and receipt.notes == (("u.txt", NOT_THERE),)
    assert [*folder.index.hashes()] == ["a.txt", "b.txt", "f.jsonl:x", "u.txt"]
    assert folder.ingest(made, moved_from=[folder.root]).notes == ((str(folder.root), NONE_READ),)


def test_what_is_left_out_or_fails_in_a_folder_that_is_said_to_have_moved_stays(folder: Folder) -> None:
    folder.write(a_txt="Alpha.", b_txt="Beta.", f_jsonl='{"id": "x", "text": "1"}\n{"id": "y", "text": "2"}\n')
    folder.ingest()
    made = folder.root.rename(folder.root.parent / "made")
    (made / "a.txt").write_text("Alpha 2.")
    (made / "f.jsonl").write_text('{"id": "x", "text": "3"}\nno\n')
    chosen = FolderFilter(exclude=["b*"])
    receipt = folder.ingest(made, moved_from=[folder.root], chosen=chosen)
    assert receipt.updated == ("a.txt", "f.jsonl:x") and receipt.removed == () and len(receipt.failed) == 1
    assert receipt.notes == (("b.txt", NOT_READ), ("f.jsonl:y", NOT_READ))
    (made / "f.jsonl").write_text('{"id": "x", "text": "3"}\n')
    assert folder.ingest(made, moved_from=[folder.root], chosen=chosen).removed == ("f.jsonl:y",)


def test_a_folder_is_not_said_to_have_moved_that_is_there_or_into_files_or_into_an_empty_folder(
    folder: Folder, more: Path
) -> None:
    folder.write(a_txt="Alpha.")
    folder.ingest()
    with pytest.raises(ConfigError, match=r"docs is there: --moved-from takes a folder that has moved"):
        folder.ingest(more, moved_from=[folder.root])
    folder.root.rename(folder.root.parent / "former")
    with pytest.raises(ConfigError, match=r"give the folder that .*docs moved to"):
        folder.ingest(more / "u.txt", moved_from=[folder.root])
    (more / "u.txt").unlink()
    with pytest.raises(ConfigError, match=r"more holds no file to read, and the index has 1 documents of it"):
        folder.ingest(more, moved_from=[folder.root])
    assert [*folder.index.hashes()] == ["a.txt"]


def test_a_folder_that_moved_is_known_by_the_files_that_are_included_and_the_others_stay(folder: Folder) -> None:
    folder.write(f1_txt="One.", f2_txt="Two.", g__1_txt="Three.", g__2_txt="Four.", g__3_txt="Five.")
    folder.ingest()
    root = folder.root.rename(folder.root.parent / "moved")
    (root / "f1.txt").write_text("Changed.")
    own = [root / ".index"]
    assert [id for id, _ in folder.ingest(root, chosen=FolderFilter(include=["f1*"])).failed] == ["f1.txt"]
    receipt = folder.ingest(root, chosen=FolderFilter(exclude=["g/*"]), own_files=own)
    assert receipt.failed == () and receipt.updated == ("f2.txt", "f1.txt") and receipt.removed == ()
    assert len(folder.index.hashes()) == 5


def test_a_folder_with_no_file_of_another_is_not_where_that_one_moved(folder: Folder, more: Path) -> None:
    folder.write(a_txt="Alpha.")
    folder.ingest()
    folder.root.rename(folder.root.parent / "unplugged")
    receipt = folder.ingest(more, chosen=FolderFilter(exclude=["a*"]), own_files=[more / ".index"])
    assert receipt.removed == () and receipt.notes == (("a.txt", NOT_THERE),)
