"""Reads safetensors headers, checking them to the last byte: the tensors must tile the file without gap or overlap.

Specification: https://github.com/huggingface/safetensors#format. Values are read by the `safetensors` package once the
header has passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.errors import ModelFileError
from firsthand.formats.model_files import MAX_JSON_BYTES, MAX_TENSORS, TensorInfo, json_object, map_file, pickle_hint

SAFETENSORS_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True)
class Safetensors:
    """A safetensors file whose header has been checked."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]


def read_safetensors(path: Path | str) -> Safetensors:
    """Read the tensor table of a safetensors file; ModelFileError unless the tensors tile the file."""
    path = Path(path)
    with map_file(path) as data:
        if len(data) < 8:
            raise ModelFileError(
                f"{path} has {len(data)} bytes: a safetensors file begins with the length of its header"
            )
        begin, length = 8, int.from_bytes(data[:8], "little")
        if length > MAX_JSON_BYTES:
            raise ModelFileError(
                f"{path} says that its header has {length} bytes: expected at most {MAX_JSON_BYTES}. "
                f"{pickle_hint(data[:4])}".rstrip()
            )
        start = begin + length
        if start > len(data):
            raise ModelFileError(
                f"{path} says that its header has {length} bytes, but {len(data) - begin} bytes are left for it"
            )
        header = json_object(path, data[begin:start])
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ModelFileError(f"{path}: __metadata__ must be an object of strings")
        if len(header) > MAX_TENSORS:
            raise ModelFileError(
                f"{path} has {len(header)} tensors: expected at most {MAX_TENSORS}, as in the file of a real model"
            )
        tensors = {name: _safetensor(path, name, entry, start) for name, entry in header.items()}
        end = start
        for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
            if tensor.offset != end:
                raise ModelFileError(f"{path}: tensor {tensor.name!r} begins at byte {tensor.offset}: expected {end}")
            end += tensor.nbytes
        if end != len(data):
            raise ModelFileError(
                f"{path} has {len(data)} bytes: its header accounts for {end}; the file may be cut short"
            )
    return Safetensors(path, metadata, tensors)


def _safetensor(path: Path, name: str, entry: Any, start: int) -> TensorInfo:
    """The tensor of one entry of the header; ModelFileError unless its dtype, shape and offsets agree."""
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
    """True for a short list of integers from 0 to 2**63 - 1."""
    return isinstance(values, list) and len(values) <= 16 and all(type(v) is int and 0 <= v < 1 << 63 for v in values)
