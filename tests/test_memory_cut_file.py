"""A memory's file that was cut short is told by its header: refused as it is, and filled up in a copy to be salvaged."""

import pytest

from firsthand.errors import StoreError
from firsthand.memories.keeping.cut_file import padded_copy, refuse_cut_short
from firsthand.memories.keeping.item_file import ItemFile


def sqlite_file(path, size, *, page=512, pages=3, magic=b"SQLite format 3\x00"):
    head = magic + page.to_bytes(2, "big") + bytes(10) + pages.to_bytes(4, "big")
    path.write_bytes((head + bytes(size))[:size])
    return path


def test_a_file_with_fewer_bytes_than_its_header_says_is_refused_unless_a_log_holds_the_rest(tmp_path):
    path = tmp_path / "m.db"
    refuse_cut_short(sqlite_file(path, 1536))
    refuse_cut_short(sqlite_file(path, 1600))
    with pytest.raises(StoreError) as raised:
        refuse_cut_short(sqlite_file(path, 1535))
    assert str(raised.value) == (
        f"{path} is cut short: it has 1,535 bytes and needs 1,536. Restore it from a copy, or save what can be read with "
        f"`firsthand memory export {path} --salvage`"
    )
    log = tmp_path / "m.db-wal"
    log.write_bytes(b"")
    with pytest.raises(StoreError, match="needs 1,536"):
        refuse_cut_short(path)
    log.write_bytes(b"x")
    refuse_cut_short(path)
    log.unlink()
    with pytest.raises(StoreError, match=r"needs 131,072\."):
        refuse_cut_short(sqlite_file(path, 1535, page=1, pages=2))
    for other in (sqlite_file(path, 99), sqlite_file(path, 500, magic=b"SQLite format 2\x00"), tmp_path / "none"):
        if other.exists():
            refuse_cut_short(other)


def test_a_copy_is_filled_up_with_zeros_to_what_its_header_says_within_reason(tmp_path):
    path, folder = sqlite_file(tmp_path / "m.db", 700), tmp_path / "copy"
    folder.mkdir()
    (tmp_path / "m.db-wal").write_bytes(b"log")
    copy = padded_copy(path, folder)
    assert copy == folder / "m.db" and copy.read_bytes() == path.read_bytes() + bytes(1536 - 700)
    assert (folder / "m.db-wal").read_bytes() == b"log" and path.stat().st_size == 700
    huge = padded_copy(sqlite_file(path, 700, page=1, pages=65_536 * 16), folder)
    assert huge.stat().st_size == 700, "a header that asks for 64 GiB is not believed"
    most = 64 * (700 + (1 << 20))
    for pages, size in ((most // 64, most), (most // 64 + 1, 700)):
        assert padded_copy(sqlite_file(path, 700, page=64, pages=pages), folder).stat().st_size == size
    for size, magic in (
        (99, b"SQLite format 3\x00"),
        (700, b"SQLite format 2\x00"),
        (0, b""),
        (1600, b"SQLite format 3\x00"),
    ):
        as_it_is = padded_copy(sqlite_file(path, size, magic=magic), folder)
        assert as_it_is.read_bytes() == path.read_bytes() and as_it_is.stat().st_size == size
    (tmp_path / "m.db-wal").unlink()
    (folder / "m.db-wal").unlink()
    whole = padded_copy(sqlite_file(path, 1536), folder)
    assert whole.read_bytes() == path.read_bytes() and not (folder / "m.db-wal").exists()
    with pytest.raises(StoreError, match=r"none cannot be copied to be read: No such file"):
        padded_copy(tmp_path / "none", folder)


def test_an_empty_memory_file_is_named_by_itself(tmp_path):
    path = tmp_path / "m.db"
    path.touch()
    with pytest.raises(StoreError) as raised:
        ItemFile(path, create=False)
    assert str(raised.value) == (
        f"{path} holds nothing yet: its maker was stopped before a memory was in it. "
        "Write to it again, or delete this one file"
    )
