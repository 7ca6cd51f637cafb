"""Writes GGUF files a tensor at a time, so that a model of any size takes the memory of its largest tensor.

The header comes first, with every tensor's type and place, then the data in the same order. The file has no name before it
is whole: it grows as an anonymous file of its folder where the system has those (O_TMPFILE), so that a killed process
leaves nothing behind. Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from firsthand.errors import ConfigError

ALIGNMENT = 32
_FLOAT, _BOOL, _STRING, _ARRAY, _UINT32, _INT32 = 6, 7, 8, 9, 4, 5


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first."""
    kind: str
    """ggml's name of its type, such as `Q4_K`."""

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        import gguf

        values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[self.kind]]
        count = 1
        for each in self.shape:
            count *= each
        return count // values * size


def packed_pair(value: Any) -> bytes:
    """Returns type and value as a GGUF header has them: whole numbers are 32 bits wide, floats too.

    Whole numbers are unsigned unless negative, those of an array signed, as llama.cpp's converter writes them.
    """
    with suppress(struct.error, OverflowError):  # of a number that is too large, and of a list of several kinds
        if isinstance(value, bool):
            return struct.pack("<I?", _BOOL, value)
        if isinstance(value, int):
            return struct.pack("<II", _UINT32, value) if value >= 0 else struct.pack("<Ii", _INT32, value)
        if isinstance(value, float):
            return struct.pack("<If", _FLOAT, value)
        if isinstance(value, str):
            return struct.pack("<I", _STRING) + _text(value)
        if isinstance(value, list | tuple) and value:
            return struct.pack("<I", _ARRAY) + _array(value)
    raise ConfigError(f"GGUF metadata holds {value!r:.80}: expected numbers, texts, true or false, or lists of them")


def _array(values: Sequence[Any]) -> bytes:
    count = len(values)
    if all(isinstance(each, str) for each in values):
        return struct.pack("<IQ", _STRING, count) + b"".join(map(_text, values))
    if all(isinstance(each, bool) for each in values):
        return struct.pack(f"<IQ{count}?", _BOOL, count, *values)
    if all(isinstance(each, int) for each in values):
        return struct.pack(f"<IQ{count}i", _INT32, count, *values)
    return struct.pack(f"<IQ{count}f", _FLOAT, count, *values)


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def write_tensors(
    path: Path,
    pairs: Mapping[str, bytes],
    tensors: Sequence[PlannedTensor],
    data: Callable[[PlannedTensor], Any],
    *,
    told: Callable[[int, int], None] | None = None,
    check: Callable[[Path], None] | None = None,
) -> int:
    """Writes a GGUF file with these key-value pairs (`packed_pair`) and tensors; returns its bytes.

    `data` gives a tensor's bytes when its turn comes; `told` gets the bytes written so far and in all; `check` may read the
    whole file and raise. Then the file takes its name, in place of any other. ConfigError if the disk has no room or the
    data is not as planned.
    """
    header = _header(pairs, tensors)
    total = len(header) + sum(each.nbytes + -each.nbytes % ALIGNMENT for each in tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < total:
        raise ConfigError(
            f"{path} takes {total:,} bytes, and the disk has less room: free some, or choose another folder"
        )
    with whole_file(path) as file:
        file.write(header)
        written = len(header)
        for tensor in tensors:
            content = memoryview(data(tensor)).cast("B")
            if len(content) != tensor.nbytes:
                raise ConfigError(f"tensor {tensor.name!r} has {len(content)} bytes: {tensor.nbytes} were planned")
            file.write(content)
            file.write(bytes(-tensor.nbytes % ALIGNMENT))
            written += tensor.nbytes + -tensor.nbytes % ALIGNMENT
            if told is not None:
                told(written, total)
        if check is not None:
            file.flush()
            check(_path_of(file, path))
    return total


def _header(pairs: Mapping[str, bytes], tensors: Iterable[PlannedTensor]) -> bytes:
    import gguf

    listed = list(tensors)
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(listed), len(pairs))]
    for key, value in pairs.items():
        parts += [_text(key), value]
    offset = 0
    for tensor in listed:
        dims = tensor.shape[::-1]
        kind = gguf.GGMLQuantizationType[tensor.kind]
        parts += [_text(tensor.name), struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)]
        offset += tensor.nbytes + -tensor.nbytes % ALIGNMENT
    header = b"".join(parts)
    return header + bytes(-len(header) % ALIGNMENT)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name, replacing any other, only when the block ends without an error.

    Where the file system has anonymous files nothing is left of it after a crash; elsewhere a `.part` beside it.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    handle = _anonymous(path.parent)
    named = handle is None
    if handle is None:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not named:
                own = file.fileno()  # with a folder's handle Python calls linkat, which alone follows the link
                os.link(f"/proc/self/fd/{own}", part, src_dir_fd=own, follow_symlinks=True)
                named = True
        part.replace(path)
    finally:
        if named:
            part.unlink(missing_ok=True)


def _path_of(file: BinaryIO, path: Path) -> Path:
    """A path under which an open file can be read, named or not."""
    own = Path(f"/proc/self/fd/{file.fileno()}")
    return own if own.exists() else path.with_name(f"{path.name}.{os.getpid()}.part")


def _anonymous(folder: Path) -> int | None:
    """A handle of a file without a name in a folder; None where the system has no such files."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return None
        raise
