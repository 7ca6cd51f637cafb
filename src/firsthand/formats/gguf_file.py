"""Reads GGUF files (versions 2 and 3, little-endian), checking the header to the last byte before anything is trusted.

A header that lies about counts, sizes or offsets ends as a ModelFileError that says where; it never chooses how much
is allocated. Values come from the `gguf` package once the header has passed. Specification:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Left out: big-endian files.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsthand.errors import ModelFileError, reason_of
from firsthand.formats.model_files import MAX_TENSORS, TensorInfo, first_repeated, map_file, pickle_hint
from firsthand.system.ordinary_file import open_ordinary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Types that `gguf.quants` can turn into numbers.
READABLE = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
    *("TQ1_0", "TQ2_0", "MXFP4"),
)
# struct codes of the number types; 7 is bool, 8 a string, 9 an array
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# Far above any real file (262,144 tokens and their merges are 1.3 million values), low enough to stay cheap.
_MAX_ARRAY_VALUES = 1 << 22
_MAX_HEADER_BYTES = 1 << 26  # XLM-V, a million tokens, has about half of it
_MAX_PAIRS = 1 << 16
_MAX_STRING_BYTES = 1 << 24
_MAX_KEY_BYTES = 1 << 16
_MAX_ARRAY_DEPTH = 4


@dataclass(frozen=True)
class GGUF:
    """A GGUF file whose header has been checked."""

    path: Path
    metadata: dict[str, Any]
    """Numbers, bools, strings, and lists of them."""
    tensors: dict[str, TensorInfo]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; ModelFileError if there is no such tensor."""
        return self._tensor(name).shape

    def raw(self, name: str) -> NDArray[np.uint8]:
        """A tensor's bytes, mapped read-only; its shape with the last dimension in bytes."""
        import numpy as np

        tensor = self._tensor(name)
        rows = math.prod(tensor.shape[:-1])
        try:
            with open_ordinary(self.path) as file:
                mapped = np.memmap(file, np.uint8, "r", tensor.offset, (tensor.nbytes,))
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{self.path} changed while it was read: {reason_of(error)}") from None
        return mapped.reshape(*tensor.shape[:-1], tensor.nbytes // rows)

    def dequantise(self, name: str) -> NDArray[np.float32]:
        """A copy of a tensor's values as float32, in the tensor's shape."""
        import gguf
        import numpy as np

        tensor = self._tensor(name)
        if tensor.dtype not in READABLE:
            raise ModelFileError(
                f"{self.path}: tensor {name!r} is {tensor.dtype}, which cannot be read; these can: {', '.join(READABLE)}"
            )
        with np.errstate(all="ignore"):  # hostile scales overflow, which the values show
            values = gguf.quants.dequantize(np.asarray(self.raw(name)), gguf.GGMLQuantizationType[tensor.dtype])
        return np.array(values, dtype=np.float32).reshape(tensor.shape)

    def _tensor(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise ModelFileError(f"{self.path} has no tensor {name!r}")
        return self.tensors[name]


def read_gguf(path: Path | str) -> GGUF:
    """Read the metadata and the tensor table of a GGUF file; ModelFileError if it is malformed, or one part of a model."""
    path = Path(path)
    with map_file(path) as data:
        header = HeaderReader(path, data)
        magic = header.take(4)
        if magic != b"GGUF":
            raise ModelFileError(f"{path} starts with {magic!r}: expected b'GGUF'. {pickle_hint(magic)}".rstrip())
        version = header.number("I")
        if version not in (2, 3):
            big = " (it may be big-endian, which is not supported)" if version & 0xFFFF == 0 else ""
            raise ModelFileError(f"{path} is GGUF version {version}{big}: expected 2 or 3")
        num_tensors, num_pairs = header.number("Q"), header.number("Q")
        header.expect_room(num_pairs, 13, "metadata pairs")
        header.expect_count(num_pairs, _MAX_PAIRS, "metadata pairs")
        metadata: dict[str, Any] = {}
        for _ in range(num_pairs):
            key = header.string(_MAX_KEY_BYTES)
            if key in metadata:
                raise header.error(f"metadata key {key!r} comes twice")
            metadata[key] = header.value(header.number("I"))
        if (parts := metadata.get("split.count", 0)) not in (0, 1):
            raise ModelFileError(
                f"{path} is one of {str(parts)[:20]} parts of a model: merge them into one file first "
                "(`llama-gguf-split --merge FIRST_PART OUT`)"
            )
        header.expect_room(num_tensors, 33, "tensors")
        header.expect_count(num_tensors, MAX_TENSORS, "tensors")
        listed = [_gguf_tensor(header) for _ in range(num_tensors)]
        start = header.position + -header.position % _alignment(header, metadata)
        tensors = {tensor.name: _within_file(header, tensor, start) for tensor in listed}
        if len(tensors) != len(listed):
            raise ModelFileError(f"{path} names a tensor twice: {first_repeated(tensor.name for tensor in listed)!r}")
        _refuse_overlap(path, tensors)
    return GGUF(path, metadata, tensors)


def raw_pairs(path: Path | str) -> dict[str, bytes]:
    """The key-value pairs of a GGUF file as their bytes, type first, so that a copy keeps the width of every number."""
    path = Path(path)
    read_gguf(path)  # all is checked before anything is copied
    with map_file(path) as data:
        header = HeaderReader(path, data)
        header.position = 16
        pairs = {}
        for _ in range(header.number("Q")):
            key, start = header.string(_MAX_KEY_BYTES), header.position
            header.value(header.number("I"))
            pairs[key] = data[start : header.position]
    return pairs


class HeaderReader:
    """Reads a header from front to back, each step checked against what is left of the file."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data = path, data
        self.end = min(len(data), _MAX_HEADER_BYTES)
        self.position = 0
        self.array_values = 0

    def error(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {what} (at byte {self.position})")

    def expect_room(self, count: int, bytes_each: int, what: str) -> None:
        left = self.end - self.position
        if count * bytes_each > left:
            raise self.error(f"the header promises {count} {what}, but {left} bytes are left for it")

    def expect_count(self, count: int, most: int, what: str) -> None:
        if count > most:
            raise self.error(f"the header has {count} {what}: expected at most {most}, as in the file of a real model")

    def take(self, count: int) -> bytes:
        self.expect_room(count, 1, "bytes")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self, max_bytes: int = _MAX_STRING_BYTES) -> str:
        length = self.number("Q")
        if length > max_bytes:
            raise self.error(f"a string has {length} bytes: expected at most {max_bytes}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.error("a string is not UTF-8") from None

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(depth + 1)
        if kind not in _NUMBERS:
            raise self.error(f"value type {kind} is unknown")
        return self.number(_NUMBERS[kind])

    def array(self, depth: int) -> list[Any]:
        if depth > _MAX_ARRAY_DEPTH:
            raise self.error(f"arrays are nested deeper than {_MAX_ARRAY_DEPTH}")
        kind, count = self.number("I"), self.number("Q")
        self.array_values += count
        if self.array_values > _MAX_ARRAY_VALUES:
            raise self.error(f"arrays hold {self.array_values} values: expected at most {_MAX_ARRAY_VALUES}")
        if kind in _NUMBERS:
            code = f"{count}{_NUMBERS[kind]}"
            return list(struct.unpack("<" + code, self.take(struct.calcsize("<" + code))))
        self.expect_room(count, 8 if kind == _STRING else 12, "array values")
        return [self.value(kind, depth) for _ in range(count)]


def _gguf_tensor(header: HeaderReader) -> TensorInfo:
    """The next entry of the tensor table, with its offset from the start of the data."""
    import gguf

    name = header.string(_MAX_KEY_BYTES)
    num_dims = header.number("I")
    if not 1 <= num_dims <= 4:
        raise header.error(f"tensor {name!r} has {num_dims} dimensions: expected 1 to 4")
    shape = tuple(header.number("Q") for _ in range(num_dims))[::-1]
    if min(shape) == 0 or math.prod(shape) >= 1 << 63:
        raise header.error(f"tensor {name!r} has shape {shape}: expected sizes of 1 or more with a product below 2**63")
    kind, offset = header.number("I"), header.number("Q")
    try:
        dtype = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise header.error(f"tensor {name!r} is of type number {kind}, which is unknown") from None
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[dtype]
    if shape[-1] % block_values:
        raise header.error(
            f"tensor {name!r} has rows of {shape[-1]} values: {dtype.name} needs a multiple of {block_values}"
        )
    return TensorInfo(name, shape, dtype.name, offset, math.prod(shape) // block_values * block_bytes)


def _alignment(header: HeaderReader, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise header.error(f"general.alignment is {str(alignment)[:80]}: expected a power of two")
    return alignment


def _refuse_overlap(path: Path, tensors: dict[str, TensorInfo]) -> None:
    """Raise ModelFileError if two tensors share bytes: a small file could then describe a model of any size."""
    in_order = sorted(tensors.values(), key=lambda tensor: tensor.offset)
    for before, after in pairwise(in_order):
        if after.offset < before.offset + before.nbytes:
            raise ModelFileError(
                f"{path}: tensor {after.name!r} begins at byte {after.offset}, within {before.name!r}, which ends at byte "
                f"{before.offset + before.nbytes}: expected tensors that do not overlap"
            )


def _within_file(header: HeaderReader, tensor: TensorInfo, start: int) -> TensorInfo:
    """The tensor with its offset from the start of the file; ModelFileError unless all of it lies inside."""
    offset = start + tensor.offset
    if offset + tensor.nbytes > len(header.data):
        raise ModelFileError(
            f"{header.path}: tensor {tensor.name!r} ends at byte {offset + tensor.nbytes}, but the file has "
            f"{len(header.data)}; it may be cut short"
        )
    return TensorInfo(tensor.name, tensor.shape, tensor.dtype, offset, tensor.nbytes)
