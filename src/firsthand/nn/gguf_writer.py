"""Writes a Decoder as a GGUF file, as llama.cpp's converter does: matrices in floats or quantised, norms and biases in F32.

The file is read back before it takes its name: what GGUF cannot express of an architecture is an error, not another model.
The vocabulary comes as metadata (`tokens.vocab_export`), and rows of the embedding without a token get one, as llama.cpp's
converter has them; a file without a vocabulary serves the engine alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.gguf_file import read_gguf
from firsthand.formats.gguf_output import PlannedTensor, packed_pair, write_tensors
from firsthand.kernels.products.block_rounding import quantise
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder
from firsthand.nn.families.rope_config import rope_tensors
from firsthand.nn.gguf_recipes import FILE_TYPES, check_file_type, shape_of, tensor_types
from firsthand.nn.layout_reader import gguf_layout, tensors_of
from firsthand.nn.model_config import Family, family_of, gguf_architecture
from firsthand.nn.weight_layout import FileTensor, shape_in_file
from firsthand.nn.weight_names import gguf_name

FLOAT16_MAX = 65504.0


def save_gguf(
    model: Decoder, path: Path | str, *, dtype: str = "F16", vocabulary: Mapping[str, Any] | None = None
) -> None:
    """Writes the model to a .gguf file; an existing one is replaced atomically.

    `dtype` is a float type, or a mixture of block types such as `Q4_K_M` (`gguf_recipes`), in which a matrix whose rows are
    no multiple of 32 stays F16. ConfigError for projections that were replaced (quantised, LoRA: merge them first), weights
    that do not fit, a vocabulary of more tokens than the embedding has rows, or an architecture that GGUF cannot express.
    """
    check_file_type(dtype)
    a, path = model.architecture, Path(path)
    with torch.device("meta"):
        expected = {name: tuple(each.shape) for name, each in Decoder(a).named_parameters()}
    if {name: tuple(each.shape) for name, each in model.named_parameters()} != expected:
        raise ConfigError(
            "the model's projections were replaced (quantised, LoRA): merge or dequantise them, then save"
        )
    shapes = {name: tuple(each.shape) for name, each in model.named_parameters()}
    parameters = dict(model.named_parameters())
    write_decoder(a, shapes, lambda ours: parameters[ours].detach(), path, dtype=dtype, vocabulary=vocabulary or {})


def write_decoder(
    a: Architecture,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    path: Path,
    *,
    dtype: str,
    vocabulary: Mapping[str, Any],
    threads: int = 1,
    told: Callable[[int, int], None] | None = None,
) -> int:
    """Writes a Decoder's parameters, read one at a time by our names; returns the bytes of the file.

    `told` gets the bytes written so far and in all. ConfigError as from `save_gguf`.
    """
    family = family_of(a)
    pairs = _pairs(a, family, dtype, vocabulary)
    sources = _sources(a, family, shapes, read)
    kinds = tensor_types({name: shape for name, (shape, _) in sources.items()}, dtype, shape_of(pairs))
    ropes = rope_tensors(a.ropes[0], a.rotated)
    tensors = [PlannedTensor(name, (len(divisors),), "F32") for name, divisors in ropes.items()]
    tensors += [PlannedTensor(name, shape, kinds[name]) for name, (shape, _) in sources.items()]

    def data(tensor: PlannedTensor) -> Any:
        if tensor.name in ropes:
            return np.array(ropes[tensor.name], dtype=np.float32)
        values = sources[tensor.name][1]().contiguous().numpy()
        if not np.isfinite(values).all():
            raise ConfigError(f"{tensor.name} holds values that are no finite numbers: the model is not saved")
        if tensor.kind not in ("F32", "BF16") and np.abs(values).max() > FLOAT16_MAX:
            raise ConfigError(
                f"{tensor.name} holds {np.abs(values).max():g}, and F16 ends at {FLOAT16_MAX:g}: save F32"
            )
        return quantise(values, tensor.kind, threads=threads)

    packed = {key: packed_pair(value) for key, value in pairs.items()}
    return write_tensors(path, packed, tensors, data, told=told, check=lambda part: _check(part, a))


def _sources(
    a: Architecture, family: Family, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor]
) -> dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]]:
    """The file's tensors by name: the shape, and what gives the values in float32 and in the file's layout."""
    layout = gguf_layout(a)
    if layout is None:

        def one(ours: str) -> Tensor:
            return family.to_gguf_values(ours, read(ours).float().cpu(), a)

        return {gguf_name(ours): (shape, partial(one, ours)) for ours, shape in shapes.items()}

    def joined(tensor: FileTensor) -> Tensor:
        return tensor.fold.join([read(ours).float().cpu() for ours in tensor.ours])

    return {
        tensor.name: (shape_in_file(tensor, shapes), partial(joined, tensor)) for tensor in tensors_of(layout, shapes)
    }


def _pairs(a: Architecture, family: Family, dtype: str, vocabulary: Mapping[str, Any]) -> dict[str, Any]:
    """The file's metadata."""
    import gguf

    metadata = family.to_gguf(a)
    kind = metadata.pop("general.architecture")
    if not a.is_causal:
        metadata["attention.causal"] = False
    return {
        "general.architecture": kind,
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        **{f"{kind}.{key}": value for key, value in metadata.items()},
        **_padded(vocabulary, a.vocab_size),
    }


def _padded(vocabulary: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The vocabulary with a token for each row of the embedding: llama.cpp opens no file that has fewer or more."""
    import gguf

    tokens = vocabulary.get("tokenizer.ggml.tokens")
    if tokens is None:
        return dict(vocabulary)
    if len(tokens) > rows:
        raise ConfigError(
            f"the tokenizer has {len(tokens)} tokens and the model's embedding {rows} rows: give the model's own tokenizer"
        )
    missing = range(len(tokens), rows)
    added: dict[str, list[Any]] = {
        "tokenizer.ggml.tokens": [f"[PAD{id}]" for id in missing],
        "tokenizer.ggml.token_type": [int(gguf.TokenType.UNUSED)] * len(missing),
        "tokenizer.ggml.scores": [-1000.0] * len(missing),
    }
    return {**vocabulary, **{key: [*vocabulary[key], *more] for key, more in added.items() if key in vocabulary}}


def _check(path: Path, a: Architecture) -> None:
    """Raise ConfigError unless the file describes this architecture, up to float32."""
    try:
        found = gguf_architecture(read_gguf(path))[1]
    except ModelFileError as error:
        raise ConfigError(f"GGUF cannot express this model, so save safetensors: {error}") from None
    for field in dataclasses.fields(a):
        ours, theirs = getattr(a, field.name), getattr(found, field.name)
        if field.name != "family" and not _same(ours, theirs):
            raise ConfigError(
                f"GGUF cannot express this model, so save safetensors: its {field.name} is {str(ours)[:120]} and would be "
                f"read as {str(theirs)[:120]}"
            )


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    if dataclasses.is_dataclass(one) and dataclasses.is_dataclass(other):
        return all(_same(getattr(one, each.name), getattr(other, each.name)) for each in dataclasses.fields(one))
    return one == other
