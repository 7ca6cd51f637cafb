"""Writes a Decoder as a GGUF file, as llama.cpp's converter does: matrices in F32, F16 or Q8_0, norms and biases in F32.

The file is read back before it takes its name: what GGUF cannot express of an architecture is an error, not another model.
The vocabulary comes as metadata (`tokens.vocab_export`); a file without one serves the engine alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.gguf_file import read_gguf
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder
from firsthand.nn.families.rope_config import rope_tensors
from firsthand.nn.layout_reader import gguf_layout, laid_out
from firsthand.nn.model_config import Family, family_of, gguf_architecture
from firsthand.nn.weight_names import gguf_name

GGUFType = Literal["F32", "F16", "Q8_0"]
FILE_TYPES: dict[str, int] = {"F32": 0, "F16": 1, "Q8_0": 7}
"""llama.cpp's numbers of whole files."""
FLOAT16_MAX = 65504.0


def save_gguf(
    model: Decoder, path: Path | str, *, dtype: GGUFType = "F16", vocabulary: Mapping[str, Any] | None = None
) -> None:
    """Writes the model to a .gguf file; an existing one is replaced atomically.

    A matrix whose rows are no multiple of 32 stays F16 in a Q8_0 file. ConfigError for projections that were replaced
    (quantised, LoRA: merge them first), weights that do not fit, or an architecture that GGUF cannot express.
    """
    if dtype not in FILE_TYPES:
        raise ConfigError(f"dtype of the GGUF file is {dtype!r}: expected one of {', '.join(FILE_TYPES)}")
    a, path = model.architecture, Path(path)
    with torch.device("meta"):
        expected = {name: tuple(each.shape) for name, each in Decoder(a).named_parameters()}
    if {name: tuple(each.shape) for name, each in model.named_parameters()} != expected:
        raise ConfigError(
            "the model's projections were replaced (quantised, LoRA): merge or dequantise them, then save"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    family = family_of(a)
    try:
        _write(part, model, family, dtype, vocabulary or {})
        _check(part, a)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write(path: Path, model: Decoder, family: Family, dtype: GGUFType, vocabulary: Mapping[str, Any]) -> None:
    import gguf

    a = model.architecture
    metadata = family.to_gguf(a)
    kind = metadata.pop("general.architecture")
    writer = gguf.GGUFWriter(path, kind)
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in {**{f"{kind}.{key}": value for key, value in metadata.items()}, **vocabulary}.items():
        _add(writer, key, value)
    for name, divisors in rope_tensors(a.ropes[0], a.rotated).items():
        writer.add_tensor(name, np.array(divisors, dtype=np.float32))
    for name, tensor in _tensors(model, family):
        values = tensor.contiguous().numpy()
        if not np.isfinite(values).all():
            raise ConfigError(f"{name} holds values that are no finite numbers: the model is not saved")
        of = _type_of(values, dtype)
        if of == "F16" and np.abs(values).max() > FLOAT16_MAX:
            raise ConfigError(f"{name} holds {np.abs(values).max():g}, and F16 ends at {FLOAT16_MAX:g}: save F32")
        each = gguf.GGMLQuantizationType[of]
        writer.add_tensor(name, gguf.quants.quantize(values, each), raw_dtype=each)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(model: Decoder, family: Family) -> Iterator[tuple[str, torch.Tensor]]:
    """The file's tensors: names, and values in float32 and in its layout."""
    a, layout = model.architecture, gguf_layout(model.architecture)
    if layout is not None:
        yield from ((name, values.float().cpu()) for name, values in laid_out(layout, dict(model.named_parameters())))
        return
    for ours, parameter in model.named_parameters():
        yield gguf_name(ours), family.to_gguf_values(ours, parameter.detach().float().cpu(), a)


def _add(writer: Any, key: str, value: Any) -> None:
    """Adds a pair; whole numbers are 32 bits wide and unsigned, those of an array signed, as llama.cpp has them."""
    import gguf

    kinds = gguf.GGUFValueType
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, int) and not isinstance(value, bool):
        writer.add_key_value(key, value, kinds.UINT32 if value >= 0 else kinds.INT32)
    else:
        writer.add_key_value(key, value, kinds.get_type(value))


def _type_of(values: np.ndarray[Any, Any], dtype: GGUFType) -> str:
    if values.ndim == 1:
        return "F32"
    return "F16" if dtype == "Q8_0" and values.shape[-1] % 32 else dtype


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
