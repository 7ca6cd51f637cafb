"""Model files that nobody vouches for: GGUF, safetensors and JSON, checked to the last byte before anything is trusted.

A header that lies about counts, sizes or offsets ends as a ModelFileError that says where; it never chooses how much
we allocate. Values come from the `gguf` and `safetensors` packages once the header has passed. Pickles are refused,
since reading one runs it. Left out: writing files, big-endian GGUF, and what the tensors mean (that is `nn.weights`).
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsthand.errors import ModelFileError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# What `gguf.quants` can turn into numbers.
READABLE = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
    *("TQ1_0", "TQ2_0", "MXFP4"),
)
SAFETENSORS_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
# struct codes of GGUF's number types; 7 is bool, 8 a string, 9 an array
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# Far above any real file (262 144 tokens and their merges are 1.3 million values), low enough to stay cheap.
_MAX_ARRAY_VALUES = 1 << 22
_MAX_HEADER_BYTES = 1 << 28
_MAX_STRING_BYTES = 1 << 24
_MAX_KEY_BYTES = 1 << 16
_MAX_ARRAY_DEPTH = 4
_MAX_JSON_BYTES = 1 << 24


@dataclass(frozen=True)
class TensorInfo:
    """Offset, type and shape of a tensor in its file."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first, as in torch."""
    dtype: str
    """The file's own name for it: `F32`, `BF16`, `Q4_K`."""
    offset: int
    """Of the first byte, from the start of the file."""
    nbytes: int


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
        """A tensor's bytes, mapped read-only: the shape with its last dimension in bytes."""
        import numpy as np

        tensor = self._tensor(name)
        rows = math.prod(tensor.shape[:-1])
        try:
            mapped = np.memmap(self.path, np.uint8, "r", tensor.offset, (tensor.nbytes,))
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{self.path} changed while it was read: {error}") from None
        return mapped.reshape(*tensor.shape[:-1], tensor.nbytes // rows)

    def dequantise(self, name: str) -> NDArray[np.float32]:
        """A tensor's values as float32, a copy of its own, in the tensor's shape."""
        import gguf
        import numpy as np

        tensor = self._tensor(name)
        if tensor.dtype not in READABLE:
            raise ModelFileError(
                f"{self.path}: tensor {name!r} is {tensor.dtype}, which cannot be read; these can: {', '.join(READABLE)}"
            )
        with np.errstate(all="ignore"):  # hostile scales overflow; that is for the numbers to show, not for a warning
            values = gguf.quants.dequantize(np.asarray(self.raw(name)), gguf.GGMLQuantizationType[tensor.dtype])
        return np.array(values, dtype=np.float32).reshape(tensor.shape)

    def _tensor(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise ModelFileError(f"{self.path} has no tensor {name!r}")
        return self.tensors[name]


@dataclass(frozen=True)
class Safetensors:
    """A safetensors file whose header has been checked."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]


def read_gguf(path: Path | str) -> GGUF:
    """The metadata and tensor table of a GGUF file (versions 2 and 3, little-endian); ModelFileError for anything odd."""
    path = Path(path)
    with _opened(path) as data:
        walk = _Walk(path, data)
        magic = walk.take(4)
        if magic != b"GGUF":
            raise ModelFileError(f"{path} starts with {magic!r}: expected b'GGUF'. {_pickle_hint(magic)}".rstrip())
        version = walk.number("I")
        if version not in (2, 3):
            big = " (it may be big-endian, which is not supported)" if version & 0xFFFF == 0 else ""
            raise ModelFileError(f"{path} is GGUF version {version}{big}: expected 2 or 3")
        num_tensors, num_pairs = walk.number("Q"), walk.number("Q")
        walk.expect_room(num_pairs, 13, "metadata pairs")
        metadata: dict[str, Any] = {}
        for _ in range(num_pairs):
            key = walk.string(_MAX_KEY_BYTES)
            if key in metadata:
                raise walk.error(f"metadata key {key!r} comes twice")
            metadata[key] = walk.value(walk.number("I"))
        walk.expect_room(num_tensors, 33, "tensors")
        listed = [_gguf_tensor(walk) for _ in range(num_tensors)]
        start = walk.position + -walk.position % _alignment(walk, metadata)
        tensors = {tensor.name: _placed(walk, tensor, start) for tensor in listed}
        if len(tensors) != len(listed):
            raise ModelFileError(f"{path} names a tensor twice: {_first_twice(tensor.name for tensor in listed)!r}")
    return GGUF(path, metadata, tensors)


def read_safetensors(path: Path | str) -> Safetensors:
    """The tensor table of a safetensors file; ModelFileError unless its tensors tile the file without gap or overlap."""
    path = Path(path)
    with _opened(path) as data:
        walk = _Walk(path, data)
        length = walk.number("Q")
        if length > _MAX_JSON_BYTES:
            raise ModelFileError(
                f"{path} says that its header has {length} bytes: expected at most {_MAX_JSON_BYTES}. "
                f"{_pickle_hint(data[:4])}".rstrip()
            )
        header = _json_object(path, walk.take(length))
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ModelFileError(f"{path}: __metadata__ must be an object of strings")
        tensors = {name: _safetensor(path, name, entry, walk.position) for name, entry in header.items()}
        end = walk.position
        for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
            if tensor.offset != end:
                raise ModelFileError(f"{path}: tensor {tensor.name!r} begins at byte {tensor.offset}: expected {end}")
            end += tensor.nbytes
        if end != len(data):
            raise ModelFileError(
                f"{path} has {len(data)} bytes: its header accounts for {end}; the file may be cut short"
            )
    return Safetensors(path, metadata, tensors)


def read_json(path: Path | str, *, max_bytes: int = _MAX_JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file of at most `max_bytes`; ModelFileError if it is missing, larger, or something else."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(text) > max_bytes:
        raise ModelFileError(f"{path} is larger than {max_bytes} bytes, too large for a configuration")
    return _json_object(path, text)


def refuse_pickle(path: Path | str) -> None:
    """Raise ModelFileError for the file types that are pickles: reading one runs whatever its author wrote."""
    path = Path(path)
    if path.suffix.lower() in PICKLES:
        raise ModelFileError(
            f"{path} is a pickle, and reading a pickle runs the code inside it: convert the model to safetensors or GGUF"
        )


class _Walk:
    """Reads a header front to back; every step is checked against what is left of the file."""

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


def _gguf_tensor(walk: _Walk) -> TensorInfo:
    """The next entry of the tensor table; its offset still counts from the start of the data."""
    import gguf

    name = walk.string(_MAX_KEY_BYTES)
    num_dims = walk.number("I")
    if not 1 <= num_dims <= 4:
        raise walk.error(f"tensor {name!r} has {num_dims} dimensions: expected 1 to 4")
    shape = tuple(walk.number("Q") for _ in range(num_dims))[::-1]
    if min(shape) == 0 or math.prod(shape) >= 1 << 63:
        raise walk.error(f"tensor {name!r} has shape {shape}: expected sizes of 1 or more with a product below 2**63")
    kind, offset = walk.number("I"), walk.number("Q")
    try:
        dtype = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise walk.error(f"tensor {name!r} is of type number {kind}, which is unknown") from None
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[dtype]
    if shape[-1] % block_values:
        raise walk.error(
            f"tensor {name!r} has rows of {shape[-1]} values: {dtype.name} needs a multiple of {block_values}"
        )
    return TensorInfo(name, shape, dtype.name, offset, math.prod(shape) // block_values * block_bytes)


def _alignment(walk: _Walk, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise walk.error(f"general.alignment is {str(alignment)[:80]}: expected a power of two")
    return alignment


def _placed(walk: _Walk, tensor: TensorInfo, start: int) -> TensorInfo:
    """The tensor with its offset from the start of the file, if all of it lies inside."""
    offset = start + tensor.offset
    if offset + tensor.nbytes > len(walk.data):
        raise ModelFileError(
            f"{walk.path}: tensor {tensor.name!r} ends at byte {offset + tensor.nbytes}, but the file has "
            f"{len(walk.data)}; it may be cut short"
        )
    return TensorInfo(tensor.name, tensor.shape, tensor.dtype, offset, tensor.nbytes)


def _safetensor(path: Path, name: str, entry: Any, start: int) -> TensorInfo:
    """One entry of a safetensors header, if its dtype, shape and offsets agree."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in SAFETENSORS_BYTES:
        known = ", ".join(SAFETENSORS_BYTES)
        raise ModelFileError(f"{path}: tensor {name!r} has dtype {str(dtype)[:80]!r}; these can be read: {known}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ModelFileError(f"{path}: tensor {name!r} needs a shape and two data_offsets of whole numbers")
    nbytes = math.prod(shape) * SAFETENSORS_BYTES[dtype]
    if offsets[1] - offsets[0] != nbytes:
        raise ModelFileError(
            f"{path}: tensor {name!r} has {offsets[1] - offsets[0]} bytes, but {dtype} of shape {shape} takes {nbytes}"
        )
    return TensorInfo(name, tuple(shape), dtype, start + offsets[0], nbytes)


def _naturals(values: Any) -> bool:
    """True if this is a short list of integers from 0 up to what 64 bits hold."""
    return isinstance(values, list) and len(values) <= 16 and all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _opened(path: Path) -> mmap.mmap:
    """The file's bytes, mapped read-only."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise ModelFileError(f"{path} is empty") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from None


def _json_object(path: Path, text: bytes) -> dict[str, Any]:
    def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError(f"the key {_first_twice(key for key, _ in pairs)!r} comes twice")
        return found

    try:
        found = json.loads(text.decode(), object_pairs_hook=without_twins)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise ModelFileError(f"{path} does not hold JSON that can be read: {error}") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} holds a JSON {type(found).__name__}: expected an object")
    return found


def _first_twice(names: Iterable[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _pickle_hint(start: bytes) -> str:
    pickle = start[:2] == b"PK" or start[:1] == b"\x80"
    return "It looks like a pickle, which is never read: convert the model to safetensors." if pickle else ""
