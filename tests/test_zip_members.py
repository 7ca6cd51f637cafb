"""One reader of a zip's files for the whole house: in pieces, and nothing that unpacks without a bound."""

from __future__ import annotations

import ast
import importlib.util
import io
import re
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import firsthand
from firsthand.benchmarks import gpqa, mmlu
from firsthand.boards.result_formats.inspect_logs import read_archive
from firsthand.bridges.inspect.eval_logs import import_eval
from firsthand.errors import DataError, DownloadError
from firsthand.hub.wheel import _unpack
from firsthand.retrieval.documents.zip_parts import ZipParts
from firsthand.runs import store
from firsthand.system import zip_members
from firsthand.system.zip_members import BoundedZipFile, member_pieces, most_unpacked, read_member
from firsthand.train.streams import Stream, load_streams, save_streams

OPENS = {
    "studio/demo_home.py",  # the package's own archive
    "system/zip_members.py",
}
"""Files that unpack a zip with zipfile itself."""
LOG = {"header.json": '{"eval": {"task": "t", "model": "m"}, "status": "success"}', "samples/1.json": '{"id": "1"}'}


def packed(members: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return raw.getvalue()


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
def test_what_zipfile_unpacks_without_a_bound_is_refused_wherever_a_zip_is_read(
    tmp_path: Path, method: int, name: str
) -> None:
    told = f"is packed with {name}, and stored or deflated files are read: pack it again"
    log, table = packed(LOG, method), packed({"data/test/a_test.csv": "x", "gpqa_diamond.csv": "x"}, method)
    (tmp_path / "a.eval").write_bytes(log)
    (tmp_path / "a.whl").write_bytes(packed({"a": "xx"}, method))
    np.savez(tmp_path / "plain.npz", a=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "plain.npz") as plain:
        (tmp_path / "a.npz").write_bytes(packed({each: plain.read(each) for each in plain.namelist()}, method))
    reads: list[Callable[[], object]] = [
        lambda: import_eval(tmp_path / "a.eval", tmp_path / "home"),
        lambda: read_archive(log, "a.eval"),
        lambda: list(mmlu._zipped(table, Path("data.zip"), "test")),
        lambda: gpqa.unzipped(table, "gpqa_diamond.csv", Path("dataset.zip")),
        lambda: ZipParts(packed({"a": "x"}, method), "DOCX").read("a"),
        lambda: load_streams(tmp_path / "a.npz"),
    ]
    for read in reads:
        with pytest.raises(DataError, match=told):
            read()
    with pytest.raises(DownloadError, match=told):
        _unpack(tmp_path / "a.whl", "a", 2, tmp_path / "part")


def test_a_deflated_file_that_states_less_than_it_unpacks_to_takes_no_more_than_it_states() -> None:
    raw = packed({"a": bytes(50_000_000)})
    with BoundedZipFile(io.BytesIO(raw)) as archive:
        info = archive.getinfo("a")
        info.file_size, info.CRC = 100, zlib.crc32(bytes(100))
        tracemalloc.start()
        try:
            assert read_member(archive, info, 1 << 28) == bytes(100)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_is_read_up_to_the_bound_and_in_whole_below_it(method: int) -> None:
    body = np.random.default_rng(1).bytes(200_000)
    with BoundedZipFile(io.BytesIO(packed({"a": body, "none": b""}, method))) as archive:
        for most in (0, 1, 65_535, 65_536, 65_537, 199_998, 199_999, 200_000, 300_000):
            assert read_member(archive, archive.getinfo("a"), most) == body[: most + 1]
        pieces = list(member_pieces(archive, archive.getinfo("a")))
        assert b"".join(pieces) == body and max(map(len, pieces)) == 65_536
        assert read_member(archive, archive.getinfo("none"), 10) == b""


def test_damage_and_encryption_are_told_as_a_bad_zip() -> None:
    raw = packed({"a": b"hello" * 100})
    place = raw.index(b"a") + 1
    for damaged in (
        raw[:place] + b"\xff\xff\xff" + raw[place + 3 :],
        raw.replace(struct.pack("<I", zlib.crc32(b"hello" * 100)), b"\0" * 4),
    ):
        with BoundedZipFile(io.BytesIO(damaged)) as archive, pytest.raises(zipfile.BadZipFile):
            read_member(archive, archive.getinfo("a"), 1000)
    with BoundedZipFile(io.BytesIO(raw)) as archive:
        archive.getinfo("a").flag_bits |= 1
        with pytest.raises(zipfile.BadZipFile, match="a is encrypted"):
            read_member(archive, archive.getinfo("a"), 1000)


def stated(raw: bytes, size: int, says: int) -> bytes:
    """The archive, whose directory says another size for its files of this size."""
    return raw.replace(struct.pack("<I", size), struct.pack("<I", says))


def test_a_zip_that_says_it_unpacks_to_more_than_its_size_allows_is_refused_before_anything_is(tmp_path: Path) -> None:
    sample = b'{"id": 1}'.ljust(54_321)
    log = packed({**LOG, **{f"samples/{number}.json": sample for number in range(1, 5)}})
    home = tmp_path / "home"
    reads: list[Callable[[Path], object]] = [
        lambda path: import_eval(path, home),
        lambda path: read_archive(path.read_bytes(), "a.eval"),
    ]
    for says, refused in ((0x3FFFF00, False), (0x4010001, True)):  # of each of four samples
        path = tmp_path / "a.eval"
        path.write_bytes(stated(log, len(sample), says))
        for read in reads:
            if refused:
                told = f"it has {path.stat().st_size:,} bytes and unpacks to more than 256 MiB, the most that is read"
                with pytest.raises(DataError, match=told):
                    read(path)
            else:
                read(path)
    assert len(store.list_runs(home)) == 1, "no run is left of what is refused"


def test_all_that_is_read_of_a_zip_is_counted_whatever_its_directory_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_members, "MOST_A_BYTE", 0)
    monkeypatch.setattr(zip_members, "FREE_BYTES", 200_000)
    raw = packed({"a": bytes(100_000), "b": bytes(100_000), "c": b"x"})
    for last, fits in (("c", False), ("b", True)):
        with BoundedZipFile(io.BytesIO(raw)) as archive:
            assert len(read_member(archive, archive.getinfo("a"), 1 << 20)) == 100_000
            archive.expect_within([archive.getinfo("b")])
            with pytest.raises(zipfile.BadZipFile, match="unpacks to more than"):
                archive.expect_within([archive.getinfo("b"), archive.getinfo("c")])
            assert len(read_member(archive, archive.getinfo("b" if last == "c" else "a"), 1 << 20)) == 100_000
            if not fits:
                with pytest.raises(zipfile.BadZipFile, match="pack it again with `zip -0`"):
                    read_member(archive, archive.getinfo("c"), 10)
    with BoundedZipFile(io.BytesIO(raw)) as archive:
        assert read_member(archive, archive.getinfo("a"), 1) == b"\0\0" and archive.left > 100_000


def test_a_zip_is_read_up_to_a_hundred_times_its_size_and_a_little_and_never_above_eight_gibibytes() -> None:
    mib, gib = 1 << 20, 1 << 30
    sizes = {0: 256 * mib, 1: 256 * mib + 100, 50 * mib: 5256 * mib, 79 * mib: 8156 * mib, 80 * mib: 8 * gib}
    assert {size: most_unpacked(size) for size in sizes} == sizes
    monster = BoundedZipFile(io.BytesIO(packed({"a": "x"})))
    monster.most = 8 * gib
    assert str(monster.too_large()) == "it unpacks to more than 8 GiB, the most that is read of a zip: split it"


@pytest.mark.skipif(importlib.util.find_spec("zstandard") is None, reason="needs pip install 'firsthand[studio]'")
def test_a_damaged_file_in_zstandard_is_seen_even_where_it_just_fits() -> None:
    import zstandard

    with BoundedZipFile(
        io.BytesIO(packed({"a": zstandard.ZstdCompressor().compress(b"12345")}, zipfile.ZIP_STORED))
    ) as archive:
        (info,) = archive.infolist()
        info.compress_type, info.CRC = zip_members.ZSTANDARD, zlib.crc32(b"12345")
        assert read_member(archive, info, 5) == read_member(archive, info, 6) == b"12345"
        info.CRC += 1
        for most in (5, 6):
            with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32 for file 'a'"):
                read_member(archive, info, most)


def test_a_patch_of_another_file_is_told_as_a_bad_zip() -> None:
    with BoundedZipFile(io.BytesIO(packed({"a": "x"}))) as archive:
        (info,) = archive.infolist()
        info.flag_bits |= 0x20
        with pytest.raises(zipfile.BadZipFile, match="a: compressed patched data"):
            read_member(archive, info, 9)


@pytest.mark.skipif(importlib.util.find_spec("zstandard") is None, reason="needs pip install 'firsthand[studio]'")
def test_files_in_zstandard_that_state_nothing_are_counted_as_they_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    import zstandard

    body = bytes(100_000)
    raw = packed({"a": zstandard.ZstdCompressor().compress(body)}, zipfile.ZIP_STORED)
    for free, fits in ((200_000, True), (199_999, False)):
        monkeypatch.setattr(zip_members, "FREE_BYTES", free)
        monkeypatch.setattr(zip_members, "MOST_A_BYTE", 0)
        with BoundedZipFile(io.BytesIO(raw)) as archive:
            info = archive.getinfo("a")
            info.compress_type, info.CRC, info.file_size = zip_members.ZSTANDARD, zlib.crc32(body), 0
            assert read_member(archive, info, 1 << 20) == body
            if fits:
                assert read_member(archive, info, 1 << 20) == body
            else:
                with pytest.raises(zipfile.BadZipFile, match="unpacks to more than"):
                    read_member(archive, info, 1 << 20)


def test_streams_of_more_than_their_file_allows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_streams([Stream(np.arange(3), np.ones(3, bool))], tmp_path, 1)
    with zipfile.ZipFile(path) as plain:
        members = {each: plain.read(each) for each in plain.namelist()}
    size = sum(map(len, members.values()))
    path.write_bytes(packed(dict(members)))
    monkeypatch.setattr(zip_members, "MOST_A_BYTE", 0)
    monkeypatch.setattr(zip_members, "FREE_BYTES", size)
    assert len(load_streams(path)) == 1
    monkeypatch.setattr(zip_members, "FREE_BYTES", size - 1)
    with pytest.raises(DataError, match="it unpacks to far more than its size"):
        load_streams(path)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<i8", "fortran_order": False, "shape": (1 << 59,)})
    path.write_bytes(packed({"0.ids.npy": head.getvalue()}))
    with pytest.raises(DataError, match="holds no streams"):
        load_streams(path)


def test_honest_logs_and_streams_are_read_as_before(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert read_archive(packed(LOG, method), "a.eval")["samples"] == [{"id": "1"}]
    np.testing.assert_array_equal(
        load_streams(save_streams([Stream(np.arange(3), np.ones(3, bool))], tmp_path, 1))[0].ids, np.arange(3)
    )


def test_a_zip_is_opened_by_the_class_that_counts_what_is_read_of_it() -> None:
    root = Path(firsthand.__file__).parent
    opened = re.compile(r"\bZipFile\(|\bPyZipFile\(|unpack_archive\(|\btarfile\b")
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if opened.search(path.read_text("utf-8"))}
    assert found == OPENS - {"system/zip_members.py"}


@pytest.mark.slow
def test_nothing_else_unpacks_a_zip() -> None:
    root = Path(firsthand.__file__).parent
    texts = {path: path.read_text("utf-8") for path in root.rglob("*.py")}
    found = {path.relative_to(root).as_posix() for path, text in texts.items() if "zipfile" in text and unpacks(text)}
    assert found == OPENS
    assert unpacks("with zipfile.ZipFile(a) as b:\n    b.read('c')") and unpacks("self.a = ZipFile(b)\nself.a.open(c)")


def unpacks(text: str) -> bool:
    """True if a program calls a method of a ZipFile that unpacks."""
    nodes, zips = list(ast.walk(ast.parse(text))), set()
    for node in nodes:
        match node:
            case ast.withitem(context_expr=ast.Call(func=made), optional_vars=ast.expr() as name):
                pass
            case ast.Assign(value=ast.Call(func=made), targets=[name]):
                pass
            case ast.arg(annotation=ast.expr() as made):
                name = ast.Name(node.arg)
            case _:
                continue
        if ast.unparse(made).endswith("ZipFile"):
            zips.add(ast.unparse(name))
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("open", "read", "extract", "extractall", "testzip")
        and ast.unparse(node.func.value) in zips
        for node in nodes
    )
