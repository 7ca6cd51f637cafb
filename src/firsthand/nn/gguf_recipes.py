"""The mixtures of block types in a quantised GGUF file: `Q4_K_M` gives some matrices 6 bits and most of them 4.

The choices are llama.cpp's (src/llama-quant.cpp, without an importance matrix), so that a file of ours has the same types in
the same places: more bits for values (`attn_v`), down projections and the head. Norms, biases, routers and positions stay as
they are. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firsthand.errors import ConfigError, nearest

FILE_TYPES: dict[str, int] = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
    "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "BF16": 32,
}  # fmt: skip
"""llama.cpp's numbers of whole files (`general.file_type`)."""
_FLOATS = ("F32", "F16", "BF16")
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""Types with blocks of 32 for matrices whose rows do not divide into 256."""
_KEPT = (
    "_norm.weight", "ffn_gate_inp", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight",
    "attn_rel_b.weight", "position_embd", "token_types.weight",
)  # fmt: skip
_KEPT_MIXING = re.compile(r"time_mix_(first|[wva][012]|g[12]|decay_w[12]|lerp_fused)\.weight")
_OUTPUT = re.compile(r"^output\.weight$")
_EMBEDDING = re.compile(r"^(token_embd|per_layer_token_embd)\.weight$")


@dataclass(frozen=True)
class RecipeShape:
    """The facts that a recipe asks of a model besides its tensors."""

    num_layers: int
    heads_per_kv: int = 1
    num_experts: int = 0
    family: str = "llama"

    @property
    def is_70b(self) -> bool:
        """True for Llama 2 and 3 of 70 billion parameters, the only Llamas of 80 layers with shared key heads."""
        return self.family == "llama" and self.num_layers == 80 and self.heads_per_kv > 1


def shape_of(metadata: Mapping[str, Any]) -> RecipeShape:
    """The shape that a GGUF's metadata states; 1 head per KV head and no experts where it does not say."""

    def whole(key: str, default: int) -> int:
        value = metadata.get(f"{metadata.get('general.architecture')}.{key}", default)
        value = max(value) if isinstance(value, list) and value and all(type(v) is int for v in value) else value
        return value if type(value) is int and value > 0 else default

    heads = whole("attention.head_count", 1)
    return RecipeShape(
        num_layers=whole("block_count", 1),
        heads_per_kv=max(1, heads // whole("attention.head_count_kv", heads)),
        num_experts=whole("expert_count", 0),
        family=str(metadata.get("general.architecture")),
    )


def tensor_types(
    tensors: Mapping[str, tuple[int, ...]], file_type: str, shape: RecipeShape, kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the ggml type of each tensor of a file of that type.

    `tensors` are GGUF names and shapes, the longest dimension of a row last; tensors that are not quantised get their type
    in `kept`, or F32. ConfigError for an unknown file type.
    """
    check_file_type(file_type)
    base = re.sub(r"_[SML]$", "", file_type)
    tied = not any(_OUTPUT.match(name) for name in tensors)
    values = sorted((name for name in tensors if _is_value(name)), key=_layer)
    rank = {name: index for index, name in enumerate(values)}
    found = {}
    for name, dims in tensors.items():
        if not is_quantised(name, dims):
            found[name] = (kept or {}).get(name, "F32")
        elif base in _FLOATS:
            found[name] = base
        elif _OUTPUT.match(name) or (tied and _EMBEDDING.match(name)):
            found[name] = "Q8_0" if base == "Q8_0" or dims[-1] % _block(base) else "Q6_K"
        else:
            found[name] = _of_block(name, file_type, base, shape, rank.get(name, 0), len(values))
        found[name] = _fitting(found[name], dims[-1])
    return found


def check_file_type(name: str) -> None:
    """ConfigError for an unknown file type, with the nearest known one."""
    if name not in FILE_TYPES:
        close = nearest(name.upper(), FILE_TYPES)
        hint = f"did you mean {close}? " if close else ""
        raise ConfigError(f"no GGUF file type {name!r}; {hint}there are {', '.join(FILE_TYPES)}")


def is_quantised(name: str, dims: tuple[int, ...]) -> bool:
    """True for the matrices that quantised files round: not norms, routers, positions or biases."""
    keeps = any(part in name for part in _KEPT) or _KEPT_MIXING.search(name)
    return len(dims) >= 2 and name.endswith("weight") and not keeps


def _of_block(name: str, file_type: str, base: str, shape: RecipeShape, value_rank: int, num_values: int) -> str:
    """The type of a matrix inside a block, or of an embedding that is not the head."""
    layer, layers, eight = _layer(name), shape.num_layers, shape.num_experts == 8
    if _is_value(name):
        chosen = {
            "Q2_K": "Q4_K" if shape.heads_per_kv >= 4 else "Q3_K",
            "Q3_K_M": "Q5_K" if value_rank < 2 else "Q4_K",
            "Q3_K_L": "Q5_K",
            "Q4_K_S": "Q5_K" if value_rank < 4 else base,
            "Q4_K_M": "Q6_K" if _gets_more(value_rank, num_values) else base,
            "Q5_K_M": "Q6_K" if _gets_more(value_rank, num_values) else base,
        }.get(file_type, base)
        if shape.is_70b and chosen in ("Q3_K", "Q4_K"):
            chosen = "Q5_K"
        return "Q8_0" if eight else chosen
    if "attn_k.weight" in name:
        return "Q8_0" if eight else base
    if "ffn_down" in name:
        more = _gets_more(layer, layers)
        return {
            "Q2_K": "Q3_K",
            "Q3_K_M": "Q5_K" if layer < layers // 16 else "Q4_K",
            "Q3_K_L": "Q5_K",
            "Q4_K_S": "Q5_K" if layer < layers // 8 else base,
            "Q4_K_M": "Q6_K" if more else base,
            "Q5_K_M": "Q6_K" if more else base,
        }.get(file_type, base)
    if "attn_output.weight" in name:
        if eight:
            return "Q5_K" if file_type in ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M") else base
        return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(file_type, base)
    return base


def _gets_more(index: int, count: int) -> bool:
    """True for the first and last eighth, and every third one between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _is_value(name: str) -> bool:
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _layer(name: str) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else 0


def _block(kind: str) -> int:
    return 1 if kind in _FLOATS else 256 if kind.endswith("_K") else 32


def _fitting(kind: str, width: int) -> str:
    """The type itself, or the next one whose blocks divide a row."""
    if width % _block(kind) == 0:
        return kind
    fallback = _FALLBACK.get(kind, "F16")
    return fallback if width % _block(fallback) == 0 else "F16"
