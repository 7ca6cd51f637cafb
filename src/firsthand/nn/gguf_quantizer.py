"""Quantises a model file to a GGUF file of another type, a tensor at a time.

A GGUF file keeps its metadata and vocabulary to the byte; a Hugging Face folder is converted on the way, as `gguf_writer`
does, and its vocabulary comes as metadata. Weights that are already quantised are rounded a second time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.gguf_file import GGUF, raw_pairs, read_gguf
from firsthand.formats.gguf_output import PlannedTensor, packed_pair, write_tensors
from firsthand.kernels.products.block_rounding import quantise
from firsthand.nn.gguf_recipes import FILE_TYPES, check_file_type, shape_of, tensor_types
from firsthand.nn.packed_format import METHODS

_FLOATS = ("F32", "F16", "BF16", "F64")
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Quantised:
    """A file that was written."""

    path: Path
    size_bytes: int
    source_bytes: int
    """Bytes of the source's tensors."""
    types: Mapping[str, int]
    """Number of tensors of each type."""
    twice: bool
    """True if the source was quantised already, so that its weights were rounded a second time."""


def quantise_model(
    source: Path,
    path: Path,
    file_type: str,
    *,
    vocabulary: Callable[[Path], Mapping[str, Any]] | None = None,
    threads: int | None = None,
    told: Told | None = None,
) -> Quantised:
    """Writes the model at `source`, a .gguf file or a folder, to a .gguf file of type `file_type`, such as `Q4_K_M`.

    `vocabulary` reads a folder's vocabulary as GGUF metadata. `told` gets the bytes written so far and in all. ConfigError
    if the type is unknown, the file exists, or the model does not fit.
    """
    check_file_type(file_type)
    if path.exists():
        raise ConfigError(f"{path} exists: give another name, or remove it first")
    if path.suffix.lower() != ".gguf":
        raise ConfigError(f"{path} should end in .gguf, by which the file is known again")
    threads = threads or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])
    if source.is_dir():
        return _folder(source, path, file_type, vocabulary, threads, told)
    return _file(read_gguf(source), path, file_type, threads, told)


def _file(file: GGUF, path: Path, file_type: str, threads: int, told: Told | None) -> Quantised:
    import gguf

    kept = {name: tensor.dtype for name, tensor in file.tensors.items()}
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    kinds = tensor_types(shapes, file_type, shape_of(file.metadata), kept)
    tensors = [PlannedTensor(name, shapes[name], kind) for name, kind in kinds.items()]
    own = {
        "general.file_type": packed_pair(FILE_TYPES[file_type]),
        "general.quantization_version": packed_pair(gguf.GGML_QUANT_VERSION),
    }
    dropped = (*own, "general.alignment")
    pairs = {key: value for key, value in raw_pairs(file.path).items() if key not in dropped} | own

    def data(tensor: PlannedTensor) -> Any:
        if tensor.kind == kept[tensor.name]:
            return np.ascontiguousarray(file.raw(tensor.name))
        try:
            return quantise(file.dequantise(tensor.name), tensor.kind, threads=threads)
        except ConfigError as error:
            raise ConfigError(f"{file.path}, {tensor.name}: {error}") from None

    size = write_tensors(path, pairs, tensors, data, told=told)
    twice = any(kept[name] not in _FLOATS and kinds[name] not in (*_FLOATS, kept[name]) for name in kinds)
    source_bytes = sum(tensor.nbytes for tensor in file.tensors.values())
    return Quantised(path, size, source_bytes, Counter(kinds.values()), twice)


def _folder(
    folder: Path,
    path: Path,
    file_type: str,
    vocabulary: Callable[[Path], Mapping[str, Any]] | None,
    threads: int,
    told: Told | None,
) -> Quantised:
    import torch

    from firsthand.nn.decoder import Decoder
    from firsthand.nn.gguf_writer import write_decoder
    from firsthand.nn.weights import check_tensors, open_checkpoint

    checkpoint = open_checkpoint(folder)
    if not checkpoint.has_head:
        raise ModelFileError(f"{folder} holds no head (lm_head.weight): a GGUF file of it would tell of a tied one")
    a = checkpoint.architecture
    with torch.device("meta"):
        shapes = {name: tuple(each.shape) for name, each in Decoder(a).named_parameters()}
    check_tensors(checkpoint, shapes)
    words = vocabulary(folder) if vocabulary is not None else {}
    size = write_decoder(
        a, shapes, checkpoint.read, path, dtype=file_type, vocabulary=words, threads=threads, told=told
    )  # fmt: skip
    written = read_gguf(path)
    source_bytes = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    types = Counter(tensor.dtype for tensor in written.tensors.values())
    packed = any(tensor.dtype in METHODS for tensor in checkpoint.tensors.values())
    return Quantised(path, size, source_bytes, types, twice=packed and not types.keys() <= {*_FLOATS})
