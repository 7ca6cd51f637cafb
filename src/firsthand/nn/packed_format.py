"""The settings of checkpoints whose matrices are packed (GPTQ, AWQ), as config.json states them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from firsthand.errors import ModelFileError
from firsthand.formats.fields import Fields

Method = Literal["gptq", "awq"]
METHODS = ("gptq", "awq")
PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class PackedFormat:
    """The settings that a config.json states under `quantization_config`."""

    method: Method
    bits: int
    group: int
    """Inputs that share a scale; -1 is all."""
    zero_offset: int = 0
    """Added to zeros as they are saved: 1 in GPTQ's format v1."""


def packed_format(config: Fields) -> PackedFormat | None:
    """The format of a model folder; None if its weights are not packed, ModelFileError for one that is not read."""
    if not config.has("quantization_config"):
        return None
    stated = config.section("quantization_config")
    method: Any = stated.text("quant_method", "")
    if method not in METHODS:
        raise config.error("quantization_config", method, "gptq or awq; take the unquantised model or a GGUF file")
    bits, group = stated.integer("bits"), stated.values.get("group_size", 128)
    if bits not in ((2, 4, 8) if method == "gptq" else (4,)):
        raise stated.error("bits", bits, "2, 4 or 8 for gptq, 4 for awq")
    if type(group) is not int or (group != -1 and not 1 <= group < 1 << 20):
        raise stated.error("group_size", group, "-1 or a whole number above 0")
    layout = _layout(stated, method)
    return PackedFormat(method, bits, group, zero_offset=int(layout == "gptq"))


def _layout(stated: Fields, method: Method) -> str:
    """Layout of the packed integers, read from the key that transformers, AutoAWQ or GPTQModel writes."""
    known = ("gptq", "gptq_v2") if method == "gptq" else ("gemm",)
    keys = ("checkpoint_format", "format") if method == "gptq" else ("checkpoint_format", "version", "format")
    found = [(key, stated.text(key).lower()) for key in keys if stated.has(key)]
    if stated.flag("is_marlin_format", False):
        found.append(("checkpoint_format", "marlin"))
    if method == "awq" and stated.values.get("backend") == "llm-awq":
        found.append(("backend", "llm-awq"))
    for key, value in found:
        if value not in known:
            raise stated.error(key, value, " or ".join(known))
    return found[0][1] if found else known[0]


def packed_shape(shape: tuple[int, ...], of: PackedFormat) -> tuple[int, int]:
    """Outputs and inputs of a matrix, from the shape of its `qweight`."""
    if len(shape) != 2:
        raise ModelFileError(f"a packed matrix has {len(shape)} dimensions: expected 2")
    each = 32 // of.bits
    return (shape[1], shape[0] * each) if of.method == "gptq" else (shape[1] * each, shape[0])
