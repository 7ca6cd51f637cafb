"""The architecture that a model file's header describes, read without torch and without a weight.

Each family's file (`families/`) reads its own config.json and GGUF metadata; this one finds the family. Values are read by
`weights`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF, read_gguf
from firsthand.formats.model_files import read_json, refuse_pickle
from firsthand.nn.architecture import Architecture
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.families import (
    bart,
    bert,
    bloom,
    deepseek,
    gemma,
    gemma2,
    gpt2,
    gpt_oss,
    llama,
    mixtral,
    mpt,
    olmo2,
    phi3,
    qwen,
    qwen_moe,
    smollm3,
    stablelm,
    starcoder2,
    t5,
)
from firsthand.nn.families.gguf_keys import Asked, refuse_unread
from firsthand.nn.families.spellings import respelled
from firsthand.nn.packed_format import packed_format

if TYPE_CHECKING:
    from torch import Tensor

A = TypeVar("A")
ENCODER_DECODERS: tuple[ModuleType, ...] = (t5, bart)
"""The families of encoder-decoders."""


class Family(Protocol):
    """The interface of a family file; the module itself is the value.

    A family whose folders or GGUF files hold several parameters in one tensor, or under other names, also has
    `huggingface_layout(a)` or `gguf_layout(a)`, which return a `FileLayout` (`weight_layout`).
    """

    @property
    def MODEL_TYPES(self) -> tuple[str, ...]: ...  # noqa: N802
    @property
    def GGUF_ARCHITECTURES(self) -> tuple[str, ...]: ...  # noqa: N802
    def from_config(self, config: Fields, /) -> Architecture: ...
    def to_config(self, a: Architecture, /) -> dict[str, Any]: ...
    def from_gguf(self, file: GGUF, fields: Fields, /) -> Architecture: ...
    def to_gguf(self, a: Architecture, /) -> dict[str, Any]: ...
    def to_gguf_values(self, ours: str, values: Tensor, a: Architecture, /) -> Tensor: ...
    def from_gguf_values(self, ours: str, values: Tensor, a: Architecture, /) -> Tensor: ...


def families() -> tuple[Family, ...]:
    """The families that can be loaded."""
    return (
        llama, qwen, gemma, gemma2, gpt2, phi3, olmo2, bloom, mpt, mixtral, qwen_moe, deepseek, gpt_oss, smollm3, stablelm,
        starcoder2,
    )  # fmt: skip


def architecture_of(path: Path | str) -> Architecture:
    """The architecture of a .gguf file or model folder, from its header alone."""
    path = Path(path)
    return gguf_architecture(read_gguf(path))[1] if is_gguf(path) else folder_architecture(path)


def is_gguf(path: Path) -> bool:
    """True for a GGUF file, False for a folder; ModelFileError for anything else."""
    if not path.exists():
        raise ModelFileError(f"{path} does not exist: give a .gguf file or a folder with config.json and safetensors")
    if path.is_dir():
        return False
    refuse_pickle(path)
    if path.suffix == ".safetensors":
        raise ModelFileError(f"{path} holds weights only: give its folder, which needs a config.json as well")
    return True


def gguf_architecture(file: GGUF) -> tuple[Family, Architecture]:
    """The family and architecture of a GGUF file whose header has been read."""
    kinds = {kind: family for family in families() for kind in family.GGUF_ARCHITECTURES}
    fields = Fields(file.metadata, str(file.path))
    family = fields.choice("general.architecture", kinds)
    prefix = fields.text("general.architecture") + "."
    metadata = Asked(file.metadata)
    own = Fields(metadata, str(file.path), prefix)
    is_causal = own.flag("attention.causal", True)
    found = built(lambda: replace(family.from_gguf(file, own), is_causal=is_causal), file.path)
    refuse_unread(metadata, own, found)
    return family, found


def folder_architecture(folder: Path) -> Architecture:
    """The architecture of a folder with a config.json."""
    path = folder / "config.json"
    return config_architecture(read_json(path), path)


def config_architecture(values: dict[str, Any], path: Path) -> Architecture:
    """The architecture of a config.json that has been read from a path."""
    kinds = {kind: family for family in families() for kind in family.MODEL_TYPES}
    config = respelled(Fields(values, str(path)))
    if (kind := values.get("model_type")) in bert.MODEL_TYPES:
        raise ModelFileError(
            f"{path} is of an encoder ({kind}), which embeds texts and writes none: name it as embedder:NAME with "
            "--pattern embed, or as --embedder NAME"
        )
    family: Family = config.choice("model_type", kinds)
    packed_format(config)
    is_causal = config.flag("is_causal", True)
    return built(lambda: replace(family.from_config(config), is_causal=is_causal), path)


def encoder_decoder_architecture(values: dict[str, Any], path: Path) -> EncoderDecoderArchitecture:
    """The architecture of an encoder-decoder's config.json; ModelFileError for any other family."""
    kinds = {kind: family for family in ENCODER_DECODERS for kind in family.MODEL_TYPES}
    config = respelled(Fields(values, str(path)))
    family = config.choice("model_type", kinds)
    for key in ("is_causal", "is_encoder_decoder"):
        if not config.flag(key, True):
            raise config.error(key, False, "true: a decoder writes left to right, after an encoder")
    found: EncoderDecoderArchitecture = built(lambda: family.from_config(config), path)
    return found


def built(make: Callable[[], A], path: Path) -> A:
    """Returns what `make` makes, with a ConfigError turned into a ModelFileError that names the file."""
    try:
        return make()
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from None


def family_of(a: Architecture) -> Family:
    """The family whose conventions an architecture follows."""
    return next(f for f in families() if a.family in (*f.MODEL_TYPES, *f.GGUF_ARCHITECTURES))


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture, without dtype and special tokens."""
    family = family_of(a)
    return {**_shared_config(a), **family.to_config(a), **({} if a.is_causal else {"is_causal": False})}


def _shared_config(a: Architecture) -> dict[str, Any]:
    return {
        "vocab_size": a.vocab_size,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_hidden_layers": a.num_layers,
        "num_attention_heads": a.num_heads,
        "max_position_embeddings": a.max_position,
        "rms_norm_eps": a.norm_eps,
        "tie_word_embeddings": a.tie_embeddings,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
