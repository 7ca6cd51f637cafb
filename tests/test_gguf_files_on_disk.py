"""GGUF files on a disk: without anonymous files, without room, beside another's part, and tensors that are read back."""

from __future__ import annotations

import errno
import os
import struct
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats import gguf_file, gguf_output
from firsthand.formats.gguf_file import HeaderReader, raw_pairs, read_gguf
from firsthand.formats.gguf_output import PlannedTensor, _anonymous, _path_of, packed_pair, whole_file, write_tensors
from firsthand.formats.safetensors_file import read_safetensors


def test_a_file_without_a_name_is_made_where_the_system_has_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = _anonymous(tmp_path)
    assert handle is not None and list(tmp_path.iterdir()) == []
    assert os.fstat(handle).st_nlink == 0 and not os.get_inheritable(handle)
    os.write(handle, b"x")
    os.lseek(handle, 0, os.SEEK_SET)
    assert os.read(handle, 9) == b"x", "it can be read too"
    os.close(handle)
    assert _anonymous(tmp_path / "none") is None
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        _anonymous(tmp_path / "file")
    for number, is_none in (
        (errno.EOPNOTSUPP, True), (errno.EISDIR, True), (errno.EINVAL, True), (errno.ENOSPC, False), (errno.EACCES, False),
    ):  # fmt: skip

        def refuse(*given: object, number: int = number) -> int:
            raise OSError(number, "no")

        with monkeypatch.context() as patched:
            patched.setattr(gguf_output.os, "open", refuse)
            if is_none:
                assert _anonymous(tmp_path) is None
            else:
                with pytest.raises(OSError, match="no"):
                    _anonymous(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_dir", lambda path: str(path) != "/proc/self/fd")
        assert _anonymous(tmp_path) is None
    monkeypatch.delattr(os, "O_TMPFILE")
    assert _anonymous(tmp_path) is None


def test_where_there_are_no_anonymous_files_a_part_lies_beside_until_the_file_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    path, part = tmp_path / "f", tmp_path / f"f.{os.getpid()}.part"
    path.write_bytes(b"before")
    with whole_file(path) as file:
        file.write(b"after")
        file.flush()
        assert part.read_bytes() == b"after" == _path_of(file, path).read_bytes() and path.read_bytes() == b"before"
    assert path.read_bytes() == b"after" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyError), whole_file(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"after" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(IsADirectoryError), whole_file(tmp_path) as file:  # a folder has the name
        file.write(b"x")
    assert list(tmp_path.iterdir()) == [path] and not [*tmp_path.parent.glob(f"{tmp_path.name}*.part")]
    part.write_bytes(b"another's")
    with pytest.raises(FileExistsError), whole_file(path):
        raise AssertionError
    assert part.read_bytes() == b"another's", "what was there before is left alone"


def test_a_named_file_takes_the_place_of_a_part_that_was_left_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    with whole_file(path) as file:
        file.write(b"1")
        file.flush()
        assert (
            _path_of(file, path) == Path(f"/proc/self/fd/{file.fileno()}") and _path_of(file, path).read_bytes() == b"1"
        )
        assert list(tmp_path.iterdir()) == []
    part = tmp_path / f"f.{os.getpid()}.part"
    part.write_bytes(b"another's")
    for error in (FileExistsError, KeyError):  # it has no name to give, or the block fails
        with pytest.raises(error), whole_file(path) as file:
            file.write(b"2")
            if error is KeyError:
                raise KeyError
        assert path.read_bytes() == b"1" and part.read_bytes() == b"another's"
    part.unlink()
    synced: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
        with whole_file(path) as file:
            file.write(b"1")
        assert synced == [1], "all of it is on the disk before it has a name"
    for name in ("folder", "link"):  # where a folder has the name, nothing is left beside it
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "kept").touch()
        if name == "link":
            (tmp_path / name).symlink_to("f")
            with whole_file(tmp_path / name) as file:
                file.write(b"2")
            assert not (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"2"
            assert path.read_bytes() == b"1", "the link is replaced, and not what it points to"
        else:
            with pytest.raises(IsADirectoryError), whole_file(tmp_path / name) as file:
                file.write(b"2")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["f", "folder", "link"]
    assert path.stat().st_nlink == 1 and path.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o022))


def test_a_file_that_the_disk_has_no_room_for_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    asked: list[PlannedTensor] = []
    huge = PlannedTensor("t", (1 << 40, 1 << 10), "F16")
    path = tmp_path / "deep" / "m.gguf"
    with pytest.raises(ConfigError) as refused:
        write_tensors(path, {}, [huge], lambda each: asked.append(each) or b"")
    # 4 of magic, 4 of version, 8 and 8 of counts; 9 of the name, 4 + 16 of the shape, 4 of the type, 8 of the offset: 96
    assert str(refused.value) == (
        f"{path} takes {96 + (1 << 51):,} bytes, and the disk has less room: free some, or choose another folder"
    )
    assert asked == [] and list(path.parent.iterdir()) == []
    sizes = {((3, 64), "Q8_0"): 6 * 34, ((33,), "Q8_0"): 34, ((31,), "Q8_0"): 0, ((2, 3, 5), "F16"): 60, ((), "F32"): 4}
    assert {key: PlannedTensor("t", *key).nbytes for key in sizes} == sizes, "whole blocks count"


def test_a_file_that_fits_to_the_byte_is_written_and_its_folders_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, told = tmp_path / "a" / "b" / "m.gguf", list[tuple[int, int]]()
    first, second = PlannedTensor("t", (3, 3), "F32"), PlannedTensor("u", (2,), "F32")
    # 24 of the header's head; 9 + 4 + 16 + 4 + 8 of the first entry and 9 + 4 + 8 + 4 + 8 of the second: 98, so 128
    asked, total, free = list[Path](), 128 + 64 + 32, [0]
    monkeypatch.setattr(gguf_output.shutil, "disk_usage", lambda of: asked.append(of) or SimpleNamespace(free=free[0]))

    def write(sizes: dict[str, int]) -> int:
        return write_tensors(path, {}, [first, second], lambda each: b"\1" * sizes[each.name],
                             told=lambda done, of: told.append((done, of)))  # fmt: skip

    free[0] = total - 1
    with pytest.raises(ConfigError, match=rf" takes {total} bytes, and the disk has less room"):
        write({"t": 36, "u": 8})
    free[0] = total
    assert write({"t": 36, "u": 8}) == total == path.stat().st_size and asked == [path.parent] * 2
    assert told == [(192, total), (total, total)]
    assert path.read_bytes()[128:] == b"\1" * 36 + bytes(28) + b"\1" * 8 + bytes(24)
    for name, size, planned in (("t", 37, 36), ("t", 35, 36), ("u", 9, 8), ("u", 7, 8), ("u", 0, 8), ("t", 64, 36)):
        with pytest.raises(ConfigError) as refused:
            write({"t": 36, "u": 8} | {name: size})
        assert str(refused.value) == f"tensor {name!r} has {size} bytes: {planned} were planned"
    assert list(path.parent.iterdir()) == [path] and path.stat().st_size == total


def test_a_check_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tensor = PlannedTensor("t", (3,), "F32")

    def write(value: float, check: object = None) -> int:
        data = np.full(3, value, "<f4")
        return write_tensors(path, {"k": packed_pair("v")}, [tensor], lambda each: data, check=check)  # type: ignore[arg-type]

    size = write(1.5)
    assert size == path.stat().st_size and size % 32 == 0

    def check(made: Path) -> None:
        assert read_gguf(made).dequantise("t").tolist() == [2.5] * 3 and read_gguf(made).metadata == {"k": "v"}
        assert made.stat().st_size == size, "all of it is on the disk"
        raise ModelFileError("not so")

    with pytest.raises(ModelFileError, match="not so"):
        write(2.5, check)
    found = read_gguf(path)
    assert found.dequantise("t").tolist() == [1.5] * 3 and list(tmp_path.iterdir()) == [path]
    assert write_tensors(path, {}, [], lambda each: b"") == 32 and read_gguf(path).tensors == {}


def test_a_row_alone_is_read_too_and_its_values_are_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    row, q8 = PlannedTensor("row", (5,), "F32"), PlannedTensor("q", (64,), "Q8_0")
    block = np.float16(0.5).tobytes() + bytes(range(32))
    write_tensors(path, {}, [row, q8], lambda each: np.arange(5, dtype="<f4") if each is row else block * 2)
    found = read_gguf(str(path))
    assert found.path == path and found.raw("row").shape == (20,) and found.raw("q").shape == (68,)
    values = found.dequantise("row")
    values[0] = 9.0
    assert values.tolist() == [9.0, 1.0, 2.0, 3.0, 4.0] and found.dequantise("row")[0] == 0.0
    assert found.dequantise("q").tolist() == [0.5 * number for number in [*range(32), *range(32)]]
    for call in (found.raw, found.dequantise, found.shape):
        with pytest.raises(ModelFileError) as refused:
            call("none")
        assert str(refused.value) == f"{path} has no tensor 'none'"


def test_a_file_that_is_gone_or_cut_after_its_header_was_read_is_told_and_hostile_scales_are_values(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.gguf"
    scales = [np.inf, np.nan, 2.0]
    blocks = b"".join(np.float16(scale).tobytes() + bytes([0, 1, *[2] * 30]) for scale in scales)
    write_tensors(path, {}, [PlannedTensor("q", (3, 32), "Q8_0")], lambda each: blocks)
    found = read_gguf(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = found.dequantise("q")
    assert np.isnan(values[0, 0]) and np.isposinf(values[0, 1:]).all() and np.isnan(values[1]).all()
    assert values[2].tolist() == [0, 2, *[4] * 30] and values.dtype == np.float32
    assert found.raw("q").shape == (3, 34) and found.raw("q").tobytes() == blocks
    for change, why in (
        (lambda: os.truncate(path, 65), "mmap length is greater than file size"),
        (path.unlink, "No such"),
    ):
        change()
        with pytest.raises(ModelFileError) as refused:
            found.raw("q")
        assert str(refused.value).startswith(f"{path} changed while it was read: {why}")


def test_texts_and_lists_may_fill_a_header_to_its_end() -> None:
    for data, made, what in (
        (struct.pack("<IQQQQ", 8, 3, 0, 0, 0), ["", "", ""], "3 array values, but 23 bytes"),
        (struct.pack("<IQIQIQ", 9, 2, 4, 0, 8, 0), [[], []], "2 array values, but 23 bytes"),
        (struct.pack("<IQ3H", 2, 3, 5, 6, 7), [5, 6, 7], "6 bytes, but 5 bytes"),
    ):
        whole: Any = HeaderReader(Path("f"), data)  # type: ignore[arg-type]
        assert whole.value(9) == made and whole.position == len(data)
        with pytest.raises(ModelFileError) as refused:
            HeaderReader(Path("f"), data[:-1]).value(9)  # type: ignore[arg-type]
        assert str(refused.value) == f"f: the header promises {what} are left for it (at byte 12)"


def test_what_has_no_place_in_a_header_is_refused(tmp_path: Path) -> None:
    assert packed_pair(2**32 - 1) == struct.pack("<II", 4, 2**32 - 1)
    assert packed_pair([-(2**31), 2**31 - 1]) == struct.pack("<IIQii", 9, 5, 2, -(2**31), 2**31 - 1)
    for wrong in (2**32, -(2**31) - 1, 1e39, [1e39], [2**31], ["a", 1], [1, "a"], [True, "a"], [[1]], b"a", ()):
        with pytest.raises(ConfigError) as refused:
            packed_pair(wrong)
        assert str(refused.value) == (
            f"GGUF metadata holds {wrong!r}: expected numbers, texts, true or false, or lists of them"
        )
    path = tmp_path / "m.safetensors"
    length = 2 | 1 << 56  # all eight bytes are the header's length
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelFileError) as damaged:
        read_safetensors(path)
    assert str(damaged.value) == f"{path} says that its header has {length} bytes: expected at most {1 << 24}."


def test_a_header_ends_where_the_reader_s_bound_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"
    pairs = {"a": packed_pair(1), "b": packed_pair([1, 2, 3])}
    write_tensors(path, pairs, [], lambda each: b"")
    used = 24 + (9 + 8) + (9 + 4 + 12 + 12)
    assert path.stat().st_size == 96 and raw_pairs(path) == pairs
    large = tmp_path / "large.gguf"
    write_tensors(large, {}, [PlannedTensor("t", (40,), "F32")], lambda each: np.arange(40, dtype="<f4"))
    with monkeypatch.context() as patched:  # the bound is the header's, and not the file's
        patched.setattr(gguf_file, "_MAX_HEADER_BYTES", 24 + (9 + 4 + 8 + 4 + 8))
        assert large.stat().st_size == 64 + 160 and read_gguf(large).dequantise("t").tolist() == [*range(40)]
        assert (read_gguf(large).tensors["t"].offset, read_gguf(large).shape("t")) == (64, (40,))
        os.truncate(large, 64 + 159)
        with pytest.raises(ModelFileError) as refused:
            read_gguf(large)
        assert str(refused.value) == (
            f"{large}: tensor 't' ends at byte 224, but the file has 223; it may be cut short"
        )
    monkeypatch.setattr(gguf_file, "_MAX_HEADER_BYTES", used)
    assert raw_pairs(path) == pairs
    monkeypatch.setattr(gguf_file, "_MAX_HEADER_BYTES", used - 1)
    with pytest.raises(ModelFileError) as refused:
        read_gguf(path)
    said = f"the header promises 12 bytes, but 11 bytes are left for it (at byte {used - 12})"
    assert str(refused.value) == f"{path}: {said}"


def test_a_written_file_is_for_whom_the_process_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("anonymous", "named"):
        if place == "named":
            monkeypatch.delattr(os, "O_TMPFILE")
        for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o000, 0o666)):
            before = os.umask(mask)
            try:
                with whole_file(tmp_path / f"{place} {mask}") as file:
                    file.write(b"x")
                    handle = file.fileno()
                    assert not os.get_inheritable(handle)
            finally:
                os.umask(before)
            assert (tmp_path / f"{place} {mask}").stat().st_mode & 0o7777 == mode, (place, oct(mask))
