"""Loads encoder-decoders from folders of config.json and safetensors, and saves them for transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from firsthand.errors import ModelFileError
from firsthand.formats.model_files import read_json
from firsthand.formats.safetensors_file import Safetensors
from firsthand.nn.encoder_decoder import EncoderDecoder
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.model_config import ENCODER_DECODERS, encoder_decoder_architecture
from firsthand.nn.weights import _check_names, _shards, _values, same
from firsthand.system.new_file import replacing, write_new

# Copies of the shared embedding, and tables that are worked out anew.
_COPIES = (
    "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
)  # fmt: skip
_HEAD = "lm_head.weight"
# Written by T5's first release, and read by no program.
_UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
_SINUSOIDAL = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")


def is_encoder_decoder(path: Path) -> bool:
    """True for a folder whose config.json is of a family of encoder-decoders."""
    config = path / "config.json"
    if not path.is_dir() or not config.is_file():
        return False
    kind = read_json(config).get("model_type")
    return any(kind in family.MODEL_TYPES for family in ENCODER_DECODERS)


def load_encoder_decoder(
    path: Path | str, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> EncoderDecoder:
    """Loads the model in a folder; ModelFileError if it is invalid, before any but copies of the embedding are read."""
    folder = Path(path)
    if not folder.is_dir():
        raise ModelFileError(f"{folder} is no folder: an encoder-decoder is read from config.json and safetensors")
    a = encoder_decoder_architecture(read_json(folder / "config.json"), folder / "config.json")
    holder = {name: shard for shard in _shards(folder) for name in shard.tensors}
    shared = file_name("embed.weight", a)
    if _HEAD in holder and not _is_copy(holder, _HEAD, shared):  # a head of its own, whatever config.json says
        a = replace(a, tie_embeddings=False)
    with torch.device("meta"):
        model = EncoderDecoder(a)
    named = {ours: file_name(ours, a) for ours, _ in model.named_parameters()}
    wanted = {named[ours]: _file_shape(ours, tuple(each.shape)) for ours, each in model.named_parameters()}
    allowed = {*_COPIES, _HEAD, *(_UNUSED if a.is_t5 else ()), *(_SINUSOIDAL if a.positions == "sinusoidal" else ())}
    found = {name: shard.tensors[name].shape for name, shard in holder.items()}
    missing_bias = "final_logits_bias" not in found and "final_logits_bias" in wanted
    if missing_bias:  # a buffer that some files leave out: zeros
        del wanted["final_logits_bias"]
    _check_names(folder, a.family, found, wanted, allowed)
    for name in _COPIES:
        if name in holder and not _is_copy(holder, name, shared):
            raise ModelFileError(
                f"{folder}: {name} is not {shared}: encoder and decoder with embeddings of their own are not supported, so "
                "give a model that shares one"
            )
    shapes = {ours: each.shape for ours, each in model.named_parameters()}
    state: Mapping[str, Tensor] = {
        ours: torch.zeros(shapes[ours]) if missing_bias and ours == "logit_bias" else _values(holder, name)
        for ours, name in named.items()
    }
    model.load_state_dict(
        {ours: values.reshape(shapes[ours]).to(device=device, dtype=dtype) for ours, values in state.items()},
        assign=True,
    )
    return model.eval()


def _is_copy(holder: Mapping[str, Safetensors], name: str, original: str) -> bool:
    """True if a tensor holds the values of another, or if there is no other to compare."""
    return original not in holder or same(_values(holder, name), _values(holder, original))


def save_encoder_decoder(model: EncoderDecoder, folder: Path | str) -> None:
    """Writes config.json and model.safetensors for transformers. Existing ones are replaced atomically."""
    from safetensors.torch import save_file

    a, folder = model.architecture, Path(folder)
    family = next(each for each in ENCODER_DECODERS if a.family in each.MODEL_TYPES)
    shared = {"vocab_size": a.vocab_size, "decoder_start_token_id": a.decoder_start, "eos_token_id": a.end}
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    config = {"is_encoder_decoder": True, **shared, **family.to_config(a), "dtype": dtype}
    state = {
        file_name(ours, a): each.detach().cpu().reshape(_file_shape(ours, tuple(each.shape))).contiguous()
        for ours, each in model.named_parameters()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "config.json") as config_file, replacing(folder / "model.safetensors") as weights_file:
        save_file(state, weights_file, metadata={"format": "pt"})
        write_new(config_file, json.dumps(config, indent=2) + "\n")


def file_name(ours: str, a: EncoderDecoderArchitecture) -> str:
    """Returns the Hugging Face name of one of our parameters."""
    family = next(each for each in ENCODER_DECODERS if a.family in each.MODEL_TYPES)
    table: dict[str, str] = family.names(a)
    if ours in table:  # a parameter without a module
        return table[ours]
    module, _, leaf = ours.rpartition(".")
    layer = re.match(r"(encoder|decoder)\.layers\.(\d+)\.", module)
    if layer is None:
        return f"{table[module]}.{leaf}"
    return f"{table[module.replace(f'.{layer[2]}.', '.{}.', 1)]}.{leaf}".replace("{}", layer[2])


def _file_shape(ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The bias of the logits has a dimension more in files."""
    return (1, *shape) if ours == "logit_bias" else shape
