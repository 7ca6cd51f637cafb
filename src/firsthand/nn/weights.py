"""Loads weights into a Decoder and saves them: GGUF files and Hugging Face folders of safetensors.

Headers are validated before any data is read (but for a head that may be the embedding): the architecture is built on the
meta device, and the file must hold exactly the tensors it needs, in their shapes. GPTQ and AWQ matrices are dequantised.
Left out: pickles (refused), tokenizers, and checkpoints that are quantised in other ways.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF, read_gguf
from firsthand.formats.model_files import PICKLES, TensorInfo, read_json
from firsthand.formats.safetensors_file import Safetensors, read_safetensors
from firsthand.kernels.products.blockwise import GGUF_TYPES, Blockwise, from_gguf
from firsthand.nn import lora
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder
from firsthand.nn.encoder import Encoder
from firsthand.nn.families import bert
from firsthand.nn.families.spellings import respelled
from firsthand.nn.layout_reader import LayoutReader, gguf_layout, huggingface_layout, laid_out
from firsthand.nn.matrices import num_parameters
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
from firsthand.nn.pair_classifier import PairClassifier
from firsthand.nn.quant import BlockLinear
from firsthand.nn.weight_names import CLASSIFIER_HEADS, bert_name, gguf_name, huggingface_name
from firsthand.system.new_file import replacing, write_new

# Written by some converters, and worked out anew by us.
_DERIVED = (".rotary_emb.inv_freq", "rope_freqs.weight")
# What an encoder's file may hold beside the encoder.
PREFIXES = ("bert.", "roberta.", "distilbert.", "mpnet.")
_HEADS = (
    "pooler.",
    "cls.",
    "lm_head.",
    "classifier.",
    "vocab_",
    "embeddings.position_ids",
    "embeddings.token_type_ids",
)
_MAX_NAMED = 8
_BODY = "model."


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
    layout: LayoutReader | None = None
    """Reads the parameters, if the family's files do not hold one a tensor."""
    has_head: bool = True
    """False if the files hold no head: their model embeds texts, and its architecture is then told as tied."""


def load(
    path: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    keep_blocks: bool = False,
    adapter: Path | str | None = None,
    for_embeddings: bool = False,
) -> Decoder:
    """Loads the model in a .gguf file or in a folder with config.json and safetensors; ModelFileError if it is invalid.

    With `keep_blocks` the projections of a GGUF file stay in the file's own blocks (`quant.BlockLinear`), if all of
    them can. The LoRA `adapter` in a folder is merged into the weights, which then cannot stay in blocks. A decoder that
    attends in both directions (`Architecture.is_causal` is False), or has no head, is loaded only `for_embeddings`.
    """
    checkpoint = open_checkpoint(Path(path))
    if not (checkpoint.architecture.is_causal or for_embeddings):
        raise ModelFileError(
            f"{path} attends in both directions (is_causal is false), so it embeds texts and writes none: name it as "
            "embedder:NAME with --pattern embed, or as --embedder NAME"
        )
    if not (checkpoint.has_head or for_embeddings):
        raise ModelFileError(
            f"{path} holds no head (lm_head.weight), so it embeds texts and writes none: name it as embedder:NAME with "
            "--pattern embed, or as --embedder NAME"
        )
    model = skeleton(checkpoint)
    wanted = _shapes(model)
    check_tensors(checkpoint, wanted)
    added = None if adapter is None else lora.read_adapter(adapter, model)
    keeps = keep_blocks and dtype == torch.float32 and device == "cpu" and added is None
    kept = _put_blocks(model, checkpoint) if keeps else set()

    def read(name: str) -> Tensor:
        values = checkpoint.read(name)
        return values if added is None else added.merged(name, values)

    # Parts of one tensor one after another, so that each tensor is read once.
    names = list(wanted) if checkpoint.layout is None else sorted(wanted, key=checkpoint.name_of)
    state = {name: read(name).to(device=device, dtype=dtype) for name in names if name not in kept}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    return model.eval()


def skeleton(checkpoint: Checkpoint) -> Decoder:
    """The model without values, on torch's meta device; ModelFileError for more experts than the files hold."""
    _check_size(checkpoint)
    with torch.device("meta"):
        return Decoder(checkpoint.architecture)


def _check_size(checkpoint: Checkpoint) -> None:
    """Raise ModelFileError for far more experts than the file holds: their modules alone would take memory without bound."""
    needed = num_parameters(checkpoint.architecture)
    held = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
    if checkpoint.architecture.experts is not None and needed > 2 * held:
        raise ModelFileError(
            f"{checkpoint.path} describes {needed:,} parameters with all experts, and its tensors hold {held:,}: "
            "files are missing, or its configuration is another model's"
        )


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
    folder, architecture, holder, prefix = _opened_encoder(path)
    with torch.device("meta"):
        model = Encoder(architecture)
    state = _encoder_state(model, folder, holder, lambda ours: bert_name(ours, prefix, architecture.family), prefix)
    model.load_state_dict({ours: values.to(device=device, dtype=dtype) for ours, values in state.items()}, assign=True)
    return model.eval()


def load_pair_classifier(
    path: Path | str, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> PairClassifier:
    """Loads a cross-encoder: an encoder with a head of one class, as BertForSequenceClassification, RoBERTa and
    XLM-RoBERTa write it. ModelFileError if it is invalid, or has no head, or one of several classes."""
    folder, architecture, holder, prefix = _opened_encoder(path)
    if architecture.family == "distilbert":
        raise ModelFileError(
            f"{folder} is a DistilBERT, whose head has another form: give a BERT, RoBERTa or XLM-RoBERTa"
        )
    table = CLASSIFIER_HEADS["bert" if architecture.family == "bert" else "roberta"]
    last = f"{table['out']}.weight"
    if last not in holder:
        raise ModelFileError(
            f"{folder} has no {last}: a reranker is an encoder with a head of one class, not an embedder"
        )
    classes = holder[last].tensors[last].shape[0]
    if classes != 1:
        raise ModelFileError(
            f"{folder} has a head of {classes} classes: expected 1, the relevance of a text to a query"
        )
    with torch.device("meta"):
        model = PairClassifier(architecture)

    def name_of(ours: str) -> str:
        module, parameter = ours.rsplit(".", 1)
        if module in table:
            return f"{prefix if table[module].startswith('pooler.') else ''}{table[module]}.{parameter}"
        return bert_name(ours.removeprefix("encoder."), prefix, architecture.family)

    state = _encoder_state(model, folder, holder, name_of, prefix)
    model.load_state_dict({ours: values.to(device=device, dtype=dtype) for ours, values in state.items()}, assign=True)
    return model.eval()


def _opened_encoder(path: Path | str) -> tuple[Path, bert.BertArchitecture, dict[str, Safetensors], str]:
    """The folder of an encoder, its architecture, the file that holds each tensor, and the prefix of its names."""
    folder = Path(path)
    if is_gguf(folder):
        raise ModelFileError(f"{folder} is a file: an encoder is read from a folder with config.json and safetensors")
    config = respelled(Fields(read_json(folder / "config.json"), str(folder / "config.json")))
    config.choice("model_type", dict.fromkeys(bert.MODEL_TYPES))
    architecture = built(lambda: bert.from_config(config), folder / "config.json")
    holder = {name: shard for shard in _shards(folder) for name in shard.tensors}
    prefix = next((each for each in PREFIXES if f"{each}embeddings.LayerNorm.weight" in holder), "")
    return folder, architecture, holder, prefix


def _encoder_state(
    model: Encoder | PairClassifier,
    folder: Path,
    holder: dict[str, Safetensors],
    name_of: Callable[[str], str],
    prefix: str,
) -> dict[str, Tensor]:
    """The values of a model's parameters; ModelFileError unless the file holds exactly these and heads that are not read."""
    wanted = {name_of(ours): tuple(parameter.shape) for ours, parameter in model.named_parameters()}
    body = [name for name in holder if name in wanted or not name.removeprefix(prefix).startswith(_HEADS)]
    found = {name: holder[name].tensors[name].shape for name in body}
    _check_names(folder, model.architecture.family, found, wanted, set())
    return {ours: _values(holder, name_of(ours)) for ours, _ in model.named_parameters()}


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
    layout = huggingface_layout(a)
    named: dict[str, Tensor] = (
        {huggingface_name(name, a): each for name, each in parameters.items()} if layout is None else {}
    )
    if layout is not None:
        named = dict(laid_out(layout, parameters))
    state = {name: values.detach().cpu().contiguous() for name, values in named.items()}
    # Replaced by renaming: a model that was loaded from here may still have the old file mapped.
    with replacing(folder / "config.json") as config_file, replacing(folder / "model.safetensors") as weights_file:
        save_file(state, weights_file, metadata={"format": "pt"})
        write_new(config_file, json.dumps(config, indent=2) + "\n")


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a model on disk: validates its headers, and reads no values but those of a head beside the embedding that
    config.json says it is: one that differs is the model's own."""
    return _open_gguf(path) if is_gguf(path) else _open_folder(path)


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    family, architecture = gguf_architecture(file)
    layout = gguf_layout(architecture)
    if layout is not None:
        reader = LayoutReader(layout, file.tensors, lambda name: torch.from_numpy(file.dequantise(name)))
        return _laid_out_gguf(file, architecture, reader)

    def read(ours: str) -> Tensor:
        values = torch.from_numpy(file.dequantise(gguf_name(ours)))
        return family.from_gguf_values(ours, values, architecture)

    def has_blocks(ours: str) -> bool:
        return file.tensors[gguf_name(ours)].dtype in GGUF_TYPES  # whose rows are whole blocks, or the file is refused

    def blocks(ours: str) -> Blockwise:
        tensor = file.tensors[gguf_name(ours)]
        matrix = from_gguf(tensor.dtype, file.raw(tensor.name), tensor.shape)
        order = family.from_gguf_values(ours, torch.arange(tensor.shape[0])[:, None], architecture)[:, 0]
        return matrix.rows(order.numpy())

    return Checkpoint(path, architecture, file.tensors, gguf_name, read, has_blocks, blocks)


def _laid_out_gguf(file: GGUF, architecture: Architecture, reader: LayoutReader) -> Checkpoint:
    def has_blocks(ours: str) -> bool:
        rows = reader.rows(ours)
        return rows is not None and file.tensors[rows[0]].dtype in GGUF_TYPES

    def blocks(ours: str) -> Blockwise:
        rows = reader.rows(ours)
        assert rows is not None, "asked of has_blocks first"
        name, first, last = rows
        raw = file.raw(name).reshape(-1, file.raw(name).shape[-1])[first:last]
        return from_gguf(file.tensors[name].dtype, raw, (last - first, file.shape(name)[-1]))

    return Checkpoint(file.path, architecture, file.tensors, reader.name_of, reader.read, has_blocks, blocks, reader)


def _open_folder(folder: Path) -> Checkpoint:
    stated = folder_architecture(folder)
    holder = {name: shard for shard in _shards(folder) for name in shard.tensors}
    # Embedders are often saved without the model that holds the head (transformers' AutoModel), and without its prefix.
    is_bare = "embed_tokens.weight" in holder and not any(name.startswith(_BODY) for name in holder)
    tensors = {(_BODY + name if is_bare else name): shard.tensors[name] for name, shard in holder.items()}
    packed = packed_format(Fields(read_json(folder / "config.json"), str(folder / "config.json")))
    if packed is not None:
        tensors = _as_matrices(tensors, packed)

    def in_file(name: str) -> Tensor:
        name = name.removeprefix(_BODY) if is_bare else name
        stem = name.removesuffix("weight")
        if packed is not None and f"{stem}qweight" in holder:
            return unpack(lambda part: _stored(holder, stem + part), packed, name)
        return _values(holder, name)

    def name_of(ours: str) -> str:
        return huggingface_name(ours, stated)

    def read(ours: str) -> Tensor:
        return in_file(name_of(ours))

    layout = huggingface_layout(stated)
    reader = None if layout is None else LayoutReader(layout, tensors, in_file)
    table, head = ((name_of if reader is None else reader.name_of)(f"{each}.weight") for each in ("embed", "lm_head"))
    # Fine-tunes that trained the head alone: it is theirs, whatever config.json says of tying it.
    is_own = stated.tie_embeddings and head in tensors and table in tensors
    if is_own and tensors[head].shape == tensors[table].shape:
        is_own = not same(in_file(head), in_file(table))
    has_head = stated.tie_embeddings or head in tensors or not is_bare
    architecture = replace(stated, tie_embeddings=not is_own) if is_own or not has_head else stated

    def blocks(ours: str) -> Blockwise:
        raise AssertionError(f"{ours} has no blocks in safetensors")

    if reader is not None:
        return Checkpoint(
            folder, architecture, tensors, reader.name_of, reader.read, lambda ours: False, blocks, reader, has_head
        )
    return Checkpoint(folder, architecture, tensors, name_of, read, lambda ours: False, blocks, has_head=has_head)


def same(one: Tensor, other: Tensor) -> bool:
    """True if two tensors of a file hold the same values, whatever their dtypes."""
    if one.shape == other.shape and one.dtype != other.dtype:
        return bool((one == other).all())
    return torch.equal(one, other)  # stops early, and makes no table of answers


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


def _values(holder: Mapping[str, Safetensors], name: str) -> Tensor:
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
    if checkpoint.layout is None:
        expected = {checkpoint.name_of(ours): shape for ours, shape in wanted.items()}
    else:
        expected = checkpoint.layout.needed(wanted)
        found = {name: shape for name, shape in found.items() if not checkpoint.layout.is_ignored(name)}
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
