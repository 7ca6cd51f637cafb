"""Loads a model's weights onto the engine's device."""

from __future__ import annotations

from pathlib import Path

import torch

from firsthand.engine.compute.devices import pick_device
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.nn.encoder_decoder_weights import is_encoder_decoder, load_encoder_decoder
from firsthand.nn.sourced_decoder import SourcedDecoder


def load_weights(path: Path, config: EngineConfig, adapter: Path | None = None) -> Decoder:
    """Returns the model of a file or folder on the config's device. Raises ConfigError if that device cannot hold the
    format."""
    if is_encoder_decoder(path):
        return _sourced(path, config, adapter)
    if config.device == "cpu":
        return weights.load(path, keep_blocks=config.weights in ("auto", "int8"), adapter=adapter)
    pick_device(config.device)
    if config.weights not in ("auto", "float32"):
        raise ConfigError(
            f"weights is {config.weights!r}, which is for the CPU: on {config.device} give auto or float32"
        )
    dtype = torch.float32 if config.weights == "float32" else torch.bfloat16
    return weights.load(path, dtype=dtype, device=config.device, adapter=adapter)


def _sourced(path: Path, config: EngineConfig, adapter: Path | None) -> SourcedDecoder:
    if adapter is not None:
        raise ConfigError(f"{path} is an encoder-decoder, which takes no LoRA adapters: open it without {adapter}")
    if config.weights == "int8":
        raise ConfigError(f"{path} is an encoder-decoder: give weights as auto, float16 or float32 in place of int8")
    pick_device(config.device)
    dtype = torch.float32 if config.device == "cpu" or config.weights == "float32" else torch.bfloat16
    return SourcedDecoder(load_encoder_decoder(path, dtype=dtype, device=config.device))
