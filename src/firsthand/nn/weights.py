"""Loads weights into a Decoder and saves them: GGUF files and Hugging Face folders of safetensors.

Headers are validated before any data is read: the architecture is built on the meta device, and the file must hold exactly
the tensors it needs, in their shapes. GPTQ and AWQ matrices are dequantised. Left out: pickles (refused), tokenizers, and
checkpoints that are quantised in other ways.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import read_gguf
from firsthand.formats.model_files import PICKLES, TensorInfo, read_json
from firsthand.formats.safetensors_file import Safetensors, read_safetensors
from firsthand.kernels.products.blockwise import GGUF_TYPES, Blockwise, from_gguf
from firsthand.nn import lora
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder
from firsthand.nn.encoder import Encoder
from firsthand.nn.families import bert
from firsthand.nn.model_config import (
    architecture_of as architecture_of,
)
from firsthand.nn.model_config import (
    built,
    folder_architecture,
    gguf_architecture,
    is_gguf,
    to_config,
)
from firsthand.nn.packed_format import PARTS, PackedFormat, packed_format, packed_shape
from firsthand.nn.packed_linears import unpack
from firsthand.nn.quant import BlockLinear
from firsthand.nn.weight_names import bert_name, gguf_name, huggingface_name

# Written by some converters, and worked out anew by us.
_DERIVED = (".rotary_emb.inv_freq", "rope_freqs.weight")
# What an encoder's file may hold beside the encoder.
_HEADS = ("pooler.", "cls.", "lm_head.", "classifier.", "embeddings.position_ids", "embeddings.token_type_ids")
_MAX_NAMED = 8


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk whose headers have been read: architecture, tensors, and functions to read one."""

    path: Path
    architecture: Architecture
    tensors: dict[str, TensorInfo]
    """By the file's own names."""
    name_of: Callable[[str], str]
    """Maps our name to the file's."""
    read: Callable[[str], Tensor]
    """Returns the values of one of our parameters, in our layout."""
    has_blocks: Callable[[str], bool]
    """True if a matrix of ours has a block format that can be kept."""
    blocks: Callable[[str], Blockwise]
    """Returns such a matrix in its blocks."""


def load(
    path: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    keep_blocks: bool = False,
    adapter: Path | str | None = None,
) -> Decoder:
    """Loads the model in a .gguf file or in a folder with config.json and safetensors; ModelFileError if it is invalid.

    With `keep_blocks` the projections of a GGUF file stay in the file's own blocks (`quant.BlockLinear`), if all of
    them can. The LoRA `adapter` in a folder is merged into the weights, which then cannot stay in blocks.
    """
    checkpoint = open_checkpoint(Path(path))
    with torch.device("meta"):
        model = Decoder(checkpoint.architecture)
    wanted = _shapes(model)
    check_tensors(checkpoint, wanted)
    added = None if adapter is None else lora.read_adapter(adapter, model)
    keeps = keep_blocks and dtype == torch.float32 and device == "cpu" and added is None
    kept = _put_blocks(model, checkpoint) if keeps else set()

    def read(name: str) -> Tensor:
        values = checkpoint.read(name)
        return values if added is None else added.merged(name, values)

    state = {name: read(name).to(device=device, dtype=dtype) for name in wanted if name not in kept}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    return model.eval()


def _put_blocks(model: Decoder, checkpoint: Checkpoint) -> set[str]:
    """Replace each Linear by one with the file's blocks, if all can be; returns the parameters that this loads."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    tied = model.architecture.tie_embeddings
    sources = {name: "embed.weight" if tied and name == "lm_head" else f"{name}.weight" for name in linears}
    if find_spec("numba") is None or any(not checkpoint.has_blocks(source) for source in sources.values()):
        return set()
    settled = set()
    for name, module in linears.items():
        bias = None if module.bias is None else checkpoint.read(f"{name}.bias").float()
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, BlockLinear(checkpoint.blocks(sources[name]), bias))
        settled |= {f"{name}.weight", f"{name}.bias"}
    return settled


def load_encoder(path: Path | str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Encoder:
    """Loads the encoder in a folder with config.json and safetensors; ModelFileError if it is invalid or no encoder."""
    folder = Path(path)
    if is_gguf(folder):
        raise ModelFileError(f"{folder} is a file: an encoder is read from a folder with config.json and safetensors")
    config = Fields(read_json(folder / "config.json"), str(folder / "config.json"))
    config.choice("model_type", dict.fromkeys(bert.MODEL_TYPES))
    architecture = built(lambda: bert.from_config(config), folder / "config.json")
    with torch.device("meta"):
        model = Encoder(architecture)
    holder = {name: shard for shard in _shards(folder) for name in shard.tensors}
    prefix = next((each for each in ("bert.", "roberta.") if f"{each}embeddings.LayerNorm.weight" in holder), "")
    wanted = {bert_name(ours, prefix): tuple(parameter.shape) for ours, parameter in model.named_parameters()}
    body = [name for name in holder if not name.removeprefix(prefix).startswith(_HEADS)]
    found = {name: holder[name].tensors[name].shape for name in body}
    _check_names(folder, architecture.family, found, wanted, set())
    state = {ours: _values(holder, bert_name(ours, prefix)) for ours, _ in model.named_parameters()}
    model.load_state_dict({ours: values.to(device=device, dtype=dtype) for ours, values in state.items()}, assign=True)
    return model.eval()


def save(model: Decoder, folder: Path | str) -> None:
    """Writes config.json and model.safetensors for transformers. Existing ones are replaced atomically.

    Special token ids are left null: they belong to the tokenizer, which is not written here.
    """
    from safetensors.torch import save_file

    a, folder = model.architecture, Path(folder)
    with torch.device("meta"):
        if _shapes(model) != _shapes(Decoder(a)):
            raise ConfigError(
                "the model's projections were replaced (quantised, LoRA): save the model from before that"
            )
    parameters = dict(model.named_parameters())
    config = {**to_config(a), "dtype": str(model.embed.weight.dtype).removeprefix("torch.")}
    folder.mkdir(parents=True, exist_ok=True)
    state = {huggingface_name(name, a): p.detach().cpu().contiguous() for name, p in parameters.items()}
    # Replaced by renaming: a model that was loaded from here may still have the old file mapped.
    save_file(state, folder / "model.safetensors.part", metadata={"format": "pt"})
    (folder / "config.json.part").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("model.safetensors", "config.json"):
        (folder / f"{name}.part").replace(folder / name)


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a model on disk: validates its headers, reads no values."""
    return _open_gguf(path) if is_gguf(path) else _open_folder(path)


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    family, architecture = gguf_architecture(file)

    def read(ours: str) -> Tensor:
        values = torch.from_numpy(file.dequantise(gguf_name(ours)))
        return family.from_gguf_values(ours, values, architecture)

    def has_blocks(ours: str) -> bool:
        tensor = file.tensors[gguf_name(ours)]
        return tensor.dtype in GGUF_TYPES and tensor.shape[-1] % 32 == 0

    def blocks(ours: str) -> Blockwise:
        tensor = file.tensors[gguf_name(ours)]
        matrix = from_gguf(tensor.dtype, file.raw(tensor.name), tensor.shape)
        order = family.from_gguf_values(ours, torch.arange(tensor.shape[0])[:, None], architecture)[:, 0]
        return matrix.rows(order.numpy())

    return Checkpoint(path, architecture, file.tensors, gguf_name, read, has_blocks, blocks)


def _open_folder(folder: Path) -> Checkpoint:
    architecture = folder_architecture(folder)
    holder = {name: shard for shard in _shards(folder) for name in shard.tensors}
    tensors = {name: shard.tensors[name] for name, shard in holder.items()}
    packed = packed_format(Fields(read_json(folder / "config.json"), str(folder / "config.json")))
    if packed is not None:
        tensors = _as_matrices(tensors, packed)

    def name_of(ours: str) -> str:
        return huggingface_name(ours, architecture)

    def read(ours: str) -> Tensor:
        stem = name_of(ours).removesuffix("weight")
        if packed is not None and f"{stem}qweight" in holder:
            return unpack(lambda part: _stored(holder, stem + part), packed, name_of(ours))
        return _values(holder, name_of(ours))

    def blocks(ours: str) -> Blockwise:
        raise AssertionError(f"{ours} has no blocks in safetensors")

    return Checkpoint(folder, architecture, tensors, name_of, read, lambda ours: False, blocks)


def _as_matrices(tensors: dict[str, TensorInfo], packed: PackedFormat) -> dict[str, TensorInfo]:
    """The tensors of a packed checkpoint as if they were not: one `weight` in place of each matrix's parts."""
    found = {}
    for name, tensor in tensors.items():
        stem, _, part = name.rpartition(".")
        if part == "qweight":
            shape = packed_shape(tensor.shape, packed)
            found[f"{stem}.weight"] = TensorInfo(f"{stem}.weight", shape, packed.method, tensor.offset, tensor.nbytes)
        elif part not in PARTS or f"{stem}.qweight" not in tensors:
            found[name] = tensor
    return found


def _stored(holder: dict[str, Safetensors], name: str) -> Tensor | None:
    """The values of a tensor of any type, None if there is none."""
    from safetensors import safe_open

    if name not in holder:
        return None
    file = holder[name]
    if file.tensors[name].dtype not in ("I32", "I64", "F16", "BF16", "F32"):
        raise ModelFileError(
            f"{file.path}: tensor {name!r} is {file.tensors[name].dtype}: packed matrices are I32 and F16"
        )
    with safe_open(file.path, framework="pt") as opened:
        values: Tensor = opened.get_tensor(name)
    return values


def _values(holder: dict[str, Safetensors], name: str) -> Tensor:
    """The values of one tensor of a folder, given the file that holds each."""
    from safetensors import safe_open

    file = holder[name]
    if file.tensors[name].dtype not in ("F64", "F32", "F16", "BF16"):
        raise ModelFileError(
            f"{file.path.parent}: tensor {name!r} is {file.tensors[name].dtype}: only F64, F32, F16 and BF16 weights are "
            "read from safetensors; take the unquantised model or a GGUF file"
        )
    with safe_open(file.path, framework="pt") as opened:
        values: Tensor = opened.get_tensor(name)
    return values


def _shards(folder: Path) -> list[Safetensors]:
    """The checked headers of all weight files of a folder."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        return [read_safetensors(folder / "model.safetensors")]
    if not index.exists():
        pickles = [file.name for file in folder.iterdir() if file.suffix in PICKLES]
        refused = f" ({pickles[0]} is a pickle, which is never read: convert it to safetensors)" if pickles else ""
        raise ModelFileError(f"{folder} has neither model.safetensors nor {index.name}{refused}")
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not all(_plain_name(name) for name in placed.values()):
        raise ModelFileError(f"{index}: weight_map must give, for each tensor, a .safetensors file of this same folder")
    shards = {name: read_safetensors(folder / name) for name in sorted(set(placed.values()))}
    wrong = [tensor for tensor, name in placed.items() if tensor not in shards[name].tensors]
    if wrong or sum(len(shard.tensors) for shard in shards.values()) != len(placed):
        raise ModelFileError(f"{index} and its files disagree about which tensors there are{_named(wrong)}")
    return list(shards.values())


def _plain_name(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\\0")


def _shapes(model: Decoder) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter; a tied head comes once, as the embedding."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def check_tensors(checkpoint: Checkpoint, wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise ModelFileError unless the file holds exactly the expected tensors, in their shapes."""
    found = {name: tensor.shape for name, tensor in checkpoint.tensors.items() if not name.endswith(_DERIVED)}
    expected = {checkpoint.name_of(ours): shape for ours, shape in wanted.items()}
    allowed = {checkpoint.name_of("lm_head.weight")} if checkpoint.architecture.tie_embeddings else set()
    _check_names(checkpoint.path, checkpoint.architecture.family, found, expected, allowed)


def _check_names(
    path: Path,
    what_it_is: str,
    found: dict[str, tuple[int, ...]],
    expected: dict[str, tuple[int, ...]],
    allowed: set[str],
) -> None:
    """Raise ModelFileError unless the found names and shapes are the expected ones, apart from the allowed names."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected and name not in allowed]
    misshapen = [
        f"{name} {found[name]} where {shape} was expected"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems = [("missing", missing), ("surplus", surplus), ("misshapen", misshapen)]
    if any(names for _, names in problems):
        told = "; ".join(f"{len(names)} {what}{_named(names)}" for what, names in problems if names)
        raise ModelFileError(f"{path} does not hold the {what_it_is} it says: {told}")


def _named(names: list[str]) -> str:
    """': a, b, ...' with the first few."""
    shown = ", ".join(name[:120] for name in names[:_MAX_NAMED])
    return f": {shown}{', ...' if len(names) > _MAX_NAMED else ''}" if names else ""
