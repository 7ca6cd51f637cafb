"""The parts that readers of untrusted model files share: tensor entries, JSON, mapped bytes, and the refusal of pickles."""

from __future__ import annotations

import json
import mmap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.errors import ModelFileError
from firsthand.system.json_values import values_in
from firsthand.system.ordinary_file import open_ordinary

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_JSON_BYTES = 1 << 24
MAX_TENSORS = 1 << 17
"""Most tensors of a file. 384 experts in 60 layers, as Kimi K2 has them, are 69,120 matrices, in many files."""
MAX_JSON_VALUES = 6_000_000
"""Most values of a JSON file. The tokenizers with the largest vocabularies have about three million."""


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


def read_json(path: Path | str, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read the object in a JSON file of at most `max_bytes`; ModelFileError if it is missing, larger, or something else."""
    path = Path(path)
    try:
        with open_ordinary(path) as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(text) > max_bytes:
        raise ModelFileError(f"{path} is larger than {max_bytes} bytes, too large for a configuration")
    return json_object(path, text)


def refuse_pickle(path: Path | str) -> None:
    """Raise ModelFileError for file types that are pickles: reading one runs the code inside it."""
    path = Path(path)
    if path.suffix.lower() in PICKLES:
        raise ModelFileError(
            f"{path} is a pickle, and reading a pickle runs the code inside it: convert the model to safetensors or GGUF"
        )


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes, mapped read-only; ModelFileError if it is empty or cannot be read."""
    try:
        with open_ordinary(path) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise ModelFileError(f"{path} is empty") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from None


def json_object(path: Path, text: bytes) -> dict[str, Any]:
    """The object in JSON bytes; ModelFileError if they hold anything else, or a key twice."""

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError(f"the key {first_repeated(key for key, _ in pairs)!r} comes twice")
        return found

    if values_in(text, MAX_JSON_VALUES) > MAX_JSON_VALUES:
        raise ModelFileError(f"{path} holds more than {MAX_JSON_VALUES} JSON values, too many for a model's file")
    try:
        found = json.loads(text.decode(), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise ModelFileError(f"{path} does not hold JSON that can be read: {error}") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} holds a JSON {type(found).__name__}: expected an object")
    return found


def first_repeated(names: Iterable[str]) -> str:
    """The first of the names that occur most often."""
    return Counter(names).most_common(1)[0][0]


def pickle_hint(start: bytes) -> str:
    """A sentence for the first bytes of a pickle, else nothing."""
    pickle = start[:2] == b"PK" or start[:1] == b"\x80"
    return "It looks like a pickle, which is never read: convert the model to safetensors." if pickle else ""
