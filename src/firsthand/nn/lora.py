"""LoRA adapters (Hu et al., 2021) in PEFT's layout: validated, then merged into weights or applied beside them.

An adapter changes a matrix W by `scale * B @ A`, with A of r x in and B of out x r; the scale is alpha / r, or
alpha / sqrt(r) with rank-stabilised LoRA (Kalajdzievski, 2023). DoRA (Liu et al., 2024, equation 5) then gives each row a
magnitude m of its own: m * (W + scale * B A) / ||W + scale * B A||. An update of a module that holds several of our
matrices (Phi-3's `qkv_proj`) becomes one of each. A folder holds adapter_config.json and
adapter_model.safetensors. Left out, with an error that says so: biases, embeddings, `modules_to_save`, and ranks or
alphas of modules given by a pattern other than a plain name.
"""

# D in, O out, r rank, N packed tokens

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, ModelFileError, reason_of
from firsthand.formats.fields import Fields
from firsthand.formats.model_files import PICKLES, read_json
from firsthand.formats.safetensors_file import Safetensors, read_safetensors
from firsthand.nn.adapter_modules import FileModule, parted, readable_modules
from firsthand.nn.decoder import Decoder
from firsthand.nn.nf4 import FourBitLinear
from firsthand.nn.quant import BlockLinear, DenseLinear

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 4096
PREFIX = "base_model.model."
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.]{1,256}")
_FLOATS = ("F32", "F16", "BF16", "F64")
_REFUSED = {
    "lora_bias": "biases of its own",
    "modules_to_save": "whole modules kept beside the adapter",
    "trainable_token_indices": "embeddings of single tokens",
    "target_parameters": "parameters that are no matrices of their own",
    "use_qalora": "QA-LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow's routing between adapters",
    "use_bdlora": "block-diagonal LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "layer_replication": "layers that are repeated",
}
"""Settings that change the arithmetic and are not supported."""
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations of A and B that are taken out of the base's weights."""


@dataclass(frozen=True)
class LowRankUpdate:
    """The update that an adapter adds to one matrix."""

    a: Tensor
    """r D."""
    b: Tensor
    """O r."""
    scale: float
    magnitude: Tensor | None = None
    """O, with DoRA: the length of each row of the changed matrix."""

    def applied(self, weight_OD: Tensor) -> Tensor:
        """Returns the matrix with the update: O D, in its own dtype; the sum is computed in float32 or wider."""
        wide = torch.promote_types(weight_OD.dtype, torch.float32)
        a_rD, b_Or = self.a.to(weight_OD.device, wide), self.b.to(weight_OD.device, wide)
        changed_OD = weight_OD.to(wide) + self.scale * (b_Or @ a_rD)
        if self.magnitude is not None:
            changed_OD = changed_OD * (self.magnitude.to(changed_OD) / row_lengths(changed_OD))[:, None]
        return changed_OD.to(weight_OD.dtype)

    def product(self) -> Tensor:
        """Returns scale * B A, which is added to the weights: float32."""
        return self.scale * (self.b.float() @ self.a.float())


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits a model: its update of each changed matrix, by our name."""

    path: Path
    deltas: Mapping[str, LowRankUpdate]

    def merged(self, name: str, weight_OD: Tensor) -> Tensor:
        """Returns a weight with the adapter merged, in its own dtype; unchanged if the adapter does not touch it."""
        delta = self.deltas.get(name)
        if delta is None:
            return weight_OD
        return delta.applied(weight_OD)


class LoRALinear(nn.Module):
    """A Linear with an unmerged adapter: x W + scale * (x A) B, and with DoRA its rows rescaled. Only the adapter trains.

    The weights beneath may be floats, 4 bits (`nf4`), or a GGUF file's blocks (`quant`). Dropout acts on the adapter's
    input alone. DoRA's row lengths carry no gradient (section 4.3 of its paper).
    """

    magnitude: Tensor | None

    def __init__(self, base: Base, delta: LowRankUpdate, *, dropout: float = 0.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        dtype = base.weight.dtype
        self.a = nn.Parameter(delta.a.to(dtype))
        self.b = nn.Parameter(delta.b.to(dtype))
        self.scale = delta.scale
        self.dropout = dropout
        self.is_on = True
        """False leaves the adapter out: the product is the base's."""
        magnitude = None if delta.magnitude is None else nn.Parameter(delta.magnitude.to(dtype))
        self.register_parameter("magnitude", magnitude)

    def update(self) -> LowRankUpdate:
        """Returns a copy of the update as it stands, whole where it is sharded."""
        magnitude = None if self.magnitude is None else whole_tensor(self.magnitude).clone()
        return LowRankUpdate(whole_tensor(self.a).clone(), whole_tensor(self.b).clone(), self.scale, magnitude)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Each token on its own: N O."""
        if not self.is_on:
            return self.base(x_ND)  # type: ignore[no-any-return]
        seen_ND = nn.functional.dropout(x_ND, self.dropout, self.training) if self.dropout else x_ND
        low_NO = self.scale * nn.functional.linear(nn.functional.linear(seen_ND, self.a), self.b)
        out_NO: Tensor = self.base(x_ND)
        if self.magnitude is None:
            return out_NO + low_NO
        factors_O = self._row_factors()
        if self.base.bias is None:
            return factors_O * (out_NO + low_NO)
        return factors_O * (out_NO - self.base.bias + low_NO) + self.base.bias

    def _row_factors(self) -> Tensor:
        assert self.magnitude is not None
        with torch.no_grad():
            lengths_O = row_lengths(self.base.weight + self.scale * (self.b @ self.a))
        return self.magnitude / lengths_O


Base = nn.Linear | BlockLinear | DenseLinear | FourBitLinear
"""Modules that an adapter may stand beside."""


def attach(model: Decoder, adapter: Adapter, *, dropout: float = 0.0) -> Decoder:
    """Returns the model with the adapter applied but not merged, to train or inspect it."""
    for name, delta in adapter.deltas.items():
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        module = getattr(model.get_submodule(parent), leaf)
        if not isinstance(module, Base):
            raise ConfigError(f"{name} is a {type(module).__name__}: attach adapters to a model that has none")
        setattr(model.get_submodule(parent), leaf, LoRALinear(module, delta, dropout=dropout))
    return model


def whole_tensor(tensor: Tensor) -> Tensor:
    """Returns the tensor without its gradient, gathered from all processes if it is sharded over them (a DTensor)."""
    gather = getattr(tensor, "full_tensor", None)
    if gather is None:
        return tensor.detach()
    whole = gather()
    wait = getattr(whole, "wait", None)  # a collective may still be under way
    return (whole if wait is None else wait()).detach()  # type: ignore[no-any-return]


def row_lengths(weight_OD: Tensor) -> Tensor:
    """Returns the length of each row: O. It is never 0, so that a row of zeros stays one when divided by it."""
    lengths_O: Tensor = torch.linalg.vector_norm(weight_OD, dim=1)
    return lengths_O.clamp_min(torch.finfo(weight_OD.dtype).tiny)


def has_magnitudes(adapter: Adapter) -> bool:
    """True for DoRA."""
    return any(delta.magnitude is not None for delta in adapter.deltas.values())


def read_adapter(
    folder: Path | str, model: Decoder, *, max_rank: int = MAX_RANK, max_bytes: int | None = None
) -> Adapter:
    """Reads an adapter from a folder and validates it against the model's architecture and declared matrices.

    ModelFileError unless every tensor belongs to a matrix of the model, in its shape, with finite values, or if a file is
    replaced meanwhile; ConfigError if the file or a rank is larger than allowed, before any values are read. A module of
    several matrices may have the ranks of all of them, and each of them then its own.
    """
    folder = Path(folder)
    settings, tensors = adapter_files(folder)
    versions = _version(settings), _version(tensors)
    if max_bytes is not None and (size := tensors.stat().st_size) > max_bytes:
        raise ConfigError(f"{tensors} has {size} bytes: an adapter of at most {max_bytes} is allowed here")
    modules = readable_modules(model)
    is_transposed = any(module.is_transposed for module in modules.values())
    config = _Config(Fields(read_json(settings), str(settings)), is_transposed=is_transposed)
    file = read_safetensors(tensors)
    pairs: dict[str, dict[str, str]] = {}
    for name in file.tensors:
        if name == f"{PREFIX}lm_head.base_layer.weight":  # PEFT saves the frozen head beside its adapter
            continue
        match = re.fullmatch(r"base_model\.model\.(.{1,512}?)\.lora_(A\.weight|B\.weight|magnitude_vector)", name)
        if match is None or match[1] not in modules or (match[2] == "magnitude_vector" and not config.is_dora):
            raise ModelFileError(f"{file.path}: {_what_is(name, modules)}{config.made_for()}")
        pairs.setdefault(match[1], {})[match[2].removesuffix(".weight")] = name
    if not pairs:
        raise ModelFileError(f"{file.path} holds no adapter: expected tensors such as {PREFIX}<module>.lora_A.weight")
    too_high = 0
    for name, pair in pairs.items():
        shape, count = file.tensors[pair["A"]].shape if "A" in pair else (), len(modules[name].ours)
        if shape and max_rank * count < shape[0] <= MAX_RANK * count:
            too_high = max(too_high, shape[0])
    if too_high:
        raise ConfigError(f"{file.path} has rank {too_high}: at most {max_rank} is allowed here")
    deltas: dict[str, LowRankUpdate] = {}
    for name, pair in pairs.items():
        module = modules[name]
        whole = _delta(file, name, pair, module.shape, config, most=MAX_RANK * len(module.ours))
        for ours, update in _updates(whole, module).items():
            if ours in deltas:
                raise ModelFileError(f"{file.path}: {name} is changed twice, by itself and by its parts")
            if len(update.a) > max_rank:
                raise ConfigError(f"{file.path} has rank {len(update.a)}: at most {max_rank} is allowed here")
            deltas[ours] = update
    if versions != (_version(settings), _version(tensors)):
        raise ModelFileError(f"{folder} was saved anew while it was read: load it again")
    return Adapter(folder, deltas)


def adapter_files(folder: Path | str) -> tuple[Path, Path]:
    """Returns the paths of an adapter's settings and weights; ModelFileError if one is missing, or they are not whole.

    A training run's folder stands for the adapter in it.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() and (folder / "adapter" / CONFIG).is_file():
        folder = folder / "adapter"
    if not folder.is_dir():
        raise ModelFileError(f"{folder} is not a folder: an adapter is a folder with {CONFIG} and {WEIGHTS}")
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        pickles = [file.name for file in folder.iterdir() if file.suffix in PICKLES]
        refused = f" ({pickles[0]} is a pickle, which is never read: save it as safetensors)" if pickles else ""
        raise ModelFileError(f"{folder} has no {missing[0]}{refused}")
    if (folder / CONFIG).stat().st_size == 0:
        raise ModelFileError(
            f"{folder / CONFIG} is empty, as it is while an adapter is saved: load it again, or save it again if that was "
            "interrupted"
        )
    return folder / CONFIG, folder / WEIGHTS


def _version(path: Path) -> tuple[int, int]:
    """Numbers that change when a file is replaced or written to."""
    try:
        found = path.stat()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {reason_of(error)}") from None
    return found.st_ino, found.st_mtime_ns


class _Config:
    """The settings of adapter_config.json that the arithmetic needs."""

    def __init__(self, fields: Fields, *, is_transposed: bool = False):
        fields.choice("peft_type", {"LORA": True})
        for key, what in _REFUSED.items():
            if fields.values.get(key):
                raise ModelFileError(
                    f"{fields.where}: {key} is set, which asks for {what}: only LoRA and DoRA are read"
                )
        start = str(fields.values.get("init_lora_weights"))
        if start.startswith(_CHANGE_THE_BASE):
            raise ModelFileError(
                f"{fields.where}: init_lora_weights is {start[:80]!r}, which changes the base's own weights: convert the "
                "adapter to plain LoRA when saving it (PEFT: path_initial_model_for_weight_conversion)"
            )
        if fields.text("bias", "none") != "none":
            raise fields.error("bias", fields.values["bias"], "none, for an adapter of matrices alone")
        if fields.flag("fan_in_fan_out", False) and not is_transposed:
            raise fields.error("fan_in_fan_out", True, "false: this model's files have no transposed matrices")
        self.where = fields.where
        self.rank = fields.integer("r")
        self.alpha = fields.number("lora_alpha")
        self.is_stabilised = fields.flag("use_rslora", False)
        self.is_dora = fields.flag("use_dora", False)
        self.base = fields.text("base_model_name_or_path", "")
        self.ranks = self._by_module(fields, "rank_pattern")
        self.alphas = self._by_module(fields, "alpha_pattern")

    def scale(self, module: str, rank: int) -> float:
        """The scale of a module whose A has `rank` rows."""
        stated = _found(self.ranks, module, self.rank)
        if rank != stated:
            raise ModelFileError(f"{self.where} says that {module} has rank {stated:g}, and its tensors have {rank}")
        alpha = _found(self.alphas, module, self.alpha)
        return alpha / math.sqrt(rank) if self.is_stabilised else alpha / rank

    def made_for(self) -> str:
        """The end of a sentence: the model that the adapter's settings name."""
        return f"; the adapter says that it was made for {self.base[:120]!r}" if self.base else ""

    def _by_module(self, fields: Fields, key: str) -> dict[str, float]:
        section = fields.section(key)
        for name in section.values:
            if not _PLAIN_NAME.fullmatch(name):
                raise fields.error(key, name, "plain names of modules; a pattern of another kind is not read")
        return {name: section.number(name) for name in section.values}


def _found(values: Mapping[str, float], module: str, otherwise: float) -> float:
    """The value of the first name that fits the module's name or its last parts."""
    return next((value for name, value in values.items() if _fits(name, module)), otherwise)


def _fits(name: str, module: str) -> bool:
    """True if the module's last parts are this name, in which `.` stands for any character, as in PEFT."""
    end = module[-len(name) :]
    before = module[: len(module) - len(end)]
    same = all(one in (".", other) for one, other in zip(name, end, strict=False))
    return len(end) == len(name) and same and (not before or before.endswith("."))


def _updates(update: LowRankUpdate, module: FileModule) -> dict[str, LowRankUpdate]:
    """The update of a module as one of each matrix in it; one that changes nothing is left out if others do."""
    count = len(module.ours)
    magnitudes = [None] * count if update.magnitude is None else module.split(update.magnitude)
    found = {
        ours: LowRankUpdate(a, b, update.scale, magnitude)
        for ours, (a, b), magnitude in zip(module.ours, parted(update.a, update.b, module), magnitudes, strict=True)
    }
    if count == 1 or update.magnitude is not None or not update.b.any():
        return found
    return {ours: each for ours, each in found.items() if each.b.any()}


def _delta(
    file: Safetensors,
    module: str,
    pair: Mapping[str, str],
    shape: tuple[int, ...],
    config: _Config,
    *,
    most: int = MAX_RANK,
) -> LowRankUpdate:
    from safetensors import SafetensorError, safe_open

    if not pair.keys() >= {"A", "B"}:
        raise ModelFileError(f"{file.path}: {module} has only one of lora_A and lora_B")
    if config.is_dora and "magnitude_vector" not in pair:
        raise ModelFileError(f"{file.path}: {module} has no lora_magnitude_vector, which DoRA (use_dora) needs")
    a, b = file.tensors[pair["A"]], file.tensors[pair["B"]]
    rank = a.shape[0] if a.shape else 0
    if not 1 <= rank <= most or a.shape != (rank, shape[1]) or b.shape != (shape[0], rank):
        raise ModelFileError(
            f"{file.path}: {module} has lora_A {a.shape} and lora_B {b.shape}: expected (r, {shape[1]}) and "
            f"({shape[0]}, r) with r from 1 to {most}{config.made_for()}"
        )
    given = [file.tensors[name] for name in pair.values()]
    if "magnitude_vector" in pair and file.tensors[pair["magnitude_vector"]].shape != shape[:1]:
        found = file.tensors[pair["magnitude_vector"]].shape
        raise ModelFileError(f"{file.path}: {module} has lora_magnitude_vector {found}: expected ({shape[0]},)")
    for tensor in given:
        if tensor.dtype not in _FLOATS:
            raise ModelFileError(
                f"{file.path}: tensor {tensor.name!r} is {tensor.dtype}: expected {', '.join(_FLOATS)}"
            )
    scale = config.scale(module, rank)
    try:
        with safe_open(file.path, framework="pt") as opened:
            values = {kind: opened.get_tensor(name) for kind, name in pair.items()}
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{file.path} changed while it was read: {reason_of(error)}") from None
    if any(tuple(values[kind].shape) != file.tensors[name].shape for kind, name in pair.items()):
        raise ModelFileError(f"{file.path} changed while it was read: {module} has another shape now")
    if not all(bool(torch.isfinite(each).all()) for each in values.values()):
        raise ModelFileError(f"{file.path}: {module} has values that are no finite numbers")
    return LowRankUpdate(values["A"], values["B"], scale, values.get("magnitude_vector"))


def _what_is(name: str, matrices: Mapping[str, object]) -> str:
    """The reason why a tensor of this name is refused."""
    shown = repr(name[:120])
    if "lora_magnitude" in name:
        return f"{shown} belongs to DoRA, and the settings do not say use_dora"
    if "lora_embedding" in name or name.startswith((f"{PREFIX}lm_head", f"{PREFIX}model.embed_tokens")):
        return f"{shown} changes an embedding or a head that is tied to it: only other matrices are changed here"
    known = ", ".join(list(matrices)[:3])
    return f"{shown} belongs to no matrix of this model, which has {known} ..."
