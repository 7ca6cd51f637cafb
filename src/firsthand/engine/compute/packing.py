"""Packs a model's weights in place, and says what a KV block is made of and how large it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.kernels.attention.kv_pages import kv_bytes_per_token
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder
from firsthand.nn.quant import BlockLinear, Mode, best_mode, pack, weight_shapes

_KV_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}


def kv_dtype(config: EngineConfig, weights: Mode, embed: Tensor) -> torch.dtype:
    """Returns the dtype of the KV cache; `auto` rounds it if the weights are rounded too."""
    if config.kv_cache != "auto":
        return _KV_DTYPES[config.kv_cache]
    rounds = weights != "float32" and embed.device.type == "cpu" and embed.dtype == torch.float32
    return torch.float16 if rounds else embed.dtype


def block_bytes(a: Architecture, config: EngineConfig, dtype: torch.dtype) -> int:
    """Returns the bytes of a KV block, over all layers."""
    return config.block_size * kv_bytes_per_token(a.num_layers, a.num_kv_heads, a.head_dim, dtype)


def pack_model(model: Decoder, config: EngineConfig) -> Mode:
    """Pack the weights as the config says and return the format used.

    `auto` keeps blockwise weights as they are, and leaves a model unpacked that float16 cannot hold.
    """
    is_blockwise = any(isinstance(module, BlockLinear) for module in model.modules())
    if is_blockwise and config.weights not in ("auto", "int8"):
        raise ConfigError(f"weights is {config.weights!r}, but the model's are blockwise: load it without keep_blocks")
    if is_blockwise or config.weights != "auto":
        mode: Mode = "int8" if config.weights == "auto" else config.weights
        pack(model, mode)
        return mode
    mode = best_mode(model.embed.weight.device)
    try:
        pack(model, mode)
    except ConfigError:
        return "float32"
    return mode


def fitting_state(state: Mapping[str, Tensor], model: Decoder) -> dict[str, Tensor]:
    """Returns a state dict with the head that is tied to the embedding; ConfigError if names or shapes do not fit."""
    state = dict(state)
    shapes = weight_shapes(model)
    if model.architecture.tie_embeddings and "embed.weight" in state:
        state.setdefault("lm_head.weight", state["embed.weight"])
    wrong = sorted(name for name in {*state, *shapes} if name not in state or shapes.get(name) != state[name].shape)
    if wrong:
        raise ConfigError(f"{len(wrong)} tensors are missing, unknown or of another shape, the first is {wrong[0]!r}")
    return state
