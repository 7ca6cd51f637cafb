"""Saves a model's adapter as a folder in PEFT's layout: adapter_config.json and adapter_model.safetensors.

`nn.lora.read_adapter` reads it back, and so does PEFT. A rank-stabilised scale is saved as such; otherwise alpha is what
gives the scale. Ranks and scales that differ between matrices go to `rank_pattern` and `alpha_pattern`. Modules are named
as the family's files name them; updates of matrices that lie in one module (Phi-3's `qkv_proj`) are joined, with their
ranks one after another.
"""

# D in, O out, r rank

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.nn.adapter_modules import FileModule, file_modules
from firsthand.nn.decoder import Decoder
from firsthand.nn.families.shared_fields import EXPERT_PARTS
from firsthand.nn.lora import CONFIG, PREFIX, WEIGHTS, Adapter, LowRankUpdate, has_magnitudes, row_lengths, whole_tensor
from firsthand.system.new_file import replacing, write_new
from firsthand.system.ordinary_file import read_ordinary
from firsthand.system.own_file import expect_own_tree
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import adapter_of


def save_adapter(
    model: Decoder, folder: Path | str, *, base: str = "", config: LoRAConfig | None = None, agent: str = ""
) -> Adapter:
    """Writes the model's adapter and returns it. Existing files are replaced, each atomically, the weights first.

    Where the settings change, their file is empty until both are in place: a reader refuses the folder then, and after a
    save that was killed there. Where the weights cannot be replaced, both stay as they were.
    `base` is the name or path of the model that it was trained on, for the settings; `config` the one it was made with;
    `agent` the one whose adapter it is, where each agent has its own.
    ConfigError if a value is not finite.
    """
    folder = Path(folder)
    adapter = adapter_of(model, folder, agent=agent)
    return write_adapter(adapter, model, folder, base=base, config=config)


def write_adapter(
    adapter: Adapter, model: Decoder, folder: Path, *, base: str = "", config: LoRAConfig | None = None
) -> Adapter:
    """Writes an adapter of a model as `save_adapter` does."""
    from safetensors.torch import save_file

    for ours, update in adapter.deltas.items():
        if not all(
            bool(torch.isfinite(each).all()) for each in (update.a, update.b, update.magnitude) if each is not None
        ):
            raise ConfigError(f"{ours} of the adapter has values that are no finite numbers: it is not saved")
    modules = file_modules(model)
    deltas = with_row_lengths(adapter, model).deltas
    updates = {
        name: joined(module, deltas) for name, module in modules.items() if any(ours in deltas for ours in module.ours)
    }
    tensors: dict[str, Tensor] = {}
    for name, update in updates.items():
        parts = {"lora_A.weight": update.a, "lora_B.weight": update.b, "lora_magnitude_vector": update.magnitude}
        tensors |= {
            f"{PREFIX}{name}.{part}": each.cpu().contiguous() for part, each in parts.items() if each is not None
        }
    settings = _settings(updates, model, config)
    settings |= {"fan_in_fan_out": any(modules[name].is_transposed for name in updates)}
    settings |= {"use_dora": has_magnitudes(adapter), "base_model_name_or_path": base or None}
    expect_own_tree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings, indent=2) + "\n"
    held = _content(folder / CONFIG)
    with replacing(folder / CONFIG) as config_file:
        write_new(config_file, text)
        try:
            with replacing(folder / WEIGHTS) as weights_file:
                save_file(tensors, weights_file, metadata={"format": "pt"})
                if (folder / CONFIG).is_file() and held != text.encode():
                    write_new(folder / CONFIG, "")  # nobody may read the new weights with the old scale
        except OSError:
            if held:
                write_new(folder / CONFIG, held)  # the old weights are still there
            raise
    return adapter


def with_row_lengths(adapter: Adapter, model: Decoder) -> Adapter:
    """The adapter, with DoRA completed: each matrix in a module that it changes has a magnitude, that of the weights.

    Weights that are sharded are gathered, so all processes call it.
    """
    if not has_magnitudes(adapter):
        return adapter
    deltas = dict(adapter.deltas)
    for module in file_modules(model).values():
        if deltas.keys().isdisjoint(module.ours):
            continue
        for ours, (outputs, inputs) in zip(module.ours, module.shapes, strict=True):
            if ours not in deltas:
                weight_OD: Tensor = model.get_submodule(ours.removesuffix(".weight")).weight  # type: ignore[assignment]
                lengths_O = row_lengths(whole_tensor(weight_OD))
                deltas[ours] = LowRankUpdate(torch.empty(0, inputs), torch.empty(outputs, 0), 0.0, lengths_O)
    return Adapter(adapter.path, deltas)


def joined(module: FileModule, updates: Mapping[str, LowRankUpdate]) -> LowRankUpdate:
    """The update of a module by those of its matrices; rows of a matrix that has none stay as they are."""
    found = [updates[ours] for ours in module.ours if ours in updates]
    scale = max((each.scale for each in found), key=abs)
    a_rD = torch.cat([each.a for each in found if len(each.a)])
    rows, start = [], 0
    for ours, (outputs, _) in zip(module.ours, module.shapes, strict=True):
        update, b_Or = updates.get(ours), a_rD.new_zeros(outputs, len(a_rD))
        if update is not None:
            b_Or[:, start : start + len(update.a)] = update.b * (update.scale / scale if scale else 1.0)
            start += len(update.a)
        rows.append(b_Or)
    lengths = [each.magnitude for each in found if each.magnitude is not None]
    return LowRankUpdate(a_rD, module.rows.join(rows), scale, module.rows.join(lengths) if lengths else None)


def _content(path: Path) -> bytes:
    """The file's content; empty if there is none, or it cannot be read."""
    try:
        return read_ordinary(path)
    except OSError:
        return b""


def _settings(updates: Mapping[str, LowRankUpdate], model: Decoder, config: LoRAConfig | None) -> dict[str, Any]:
    """The settings of adapters by Hugging Face's name of their matrix."""
    stabilised = config is not None and config.rank_stabilised
    ranks = {name: update.a.shape[0] for name, update in updates.items()}
    per_scale = {name: math.sqrt(each) if stabilised else each for name, each in ranks.items()}
    alphas = {name: update.scale * per_scale[name] for name, update in updates.items()}
    rank, alpha = (next(iter(values.values())) for values in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "use_rslora": stabilised,
        "lora_dropout": 0.0 if config is None else config.dropout,
        "target_modules": _targets(set(updates), model),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _targets(names: set[str], model: Decoder) -> list[str]:
    """The last parts of the names if they mean these matrices and no other, else the whole names."""
    every = {*file_modules(model), "lm_head"}
    leaves = {name.rpartition(".")[2] for name in names}
    has_experts = model.architecture.experts is not None  # whose matrices have the same last parts
    is_exact = not (has_experts and leaves & set(EXPERT_PARTS)) and all(
        (name.rpartition(".")[2] in leaves) == (name in names) for name in every
    )
    return sorted(leaves if is_exact else names)
