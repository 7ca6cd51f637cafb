"""Random adapters for the tests' tiny decoders, in memory and as folders in PEFT's layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter, LowRankUpdate
from firsthand.nn.weight_names import huggingface_name
from tiny import write_model


def adapter(model: Decoder, seed: int, *, rank: int = 5, only: str = "", scale: float = 1.5) -> Adapter:
    """One that changes every matrix of a model, or those whose name contains `only`, so much that tokens change."""
    generator = torch.Generator().manual_seed(seed)
    deltas = {}
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Linear)
            and only in name
            and not (model.architecture.tie_embeddings and name == "lm_head")
        ):
            a, b = (torch.randn(shape, generator=generator) * 0.25
                    for shape in ((rank, module.in_features), (module.out_features, rank)))  # fmt: skip
            deltas[f"{name}.weight"] = LowRankUpdate(a, b, scale)
    return Adapter(Path(f"adapter-{seed}"), deltas)


def merged(model: Decoder, added: Adapter) -> Decoder:
    """The model with an adapter in its weights."""
    state = model.state_dict()
    model.load_state_dict({name: added.merged(name, values) for name, values in state.items()})
    model.tie()
    return model


def write(folder: Path, model: Decoder, added: Adapter) -> Path:
    """The adapter as a folder that PEFT could have written."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, delta in added.deltas.items():
        theirs = huggingface_name(name, model.architecture).removesuffix(".weight")
        tensors[f"base_model.model.{theirs}.lora_A.weight"] = delta.a.contiguous()
        tensors[f"base_model.model.{theirs}.lora_B.weight"] = delta.b.contiguous()
    delta = next(iter(added.deltas.values()))
    rank = delta.a.shape[0]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": delta.scale * rank, "bias": "none"}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def write_house(house: Path) -> Decoder:
    """A model, which is returned, and a folder `adapters` beside it with three: red, green and blue."""
    model = weights.load(write_model(house / "model"))
    for seed, name in enumerate(("red", "green", "blue"), 1):
        write(house / "adapters" / name, model, adapter(model, seed, rank=4))
    return model
