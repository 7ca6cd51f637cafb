"""Quantises a model on disk, with its vocabulary, to a GGUF file, or with a calibration text to a GPTQ or AWQ folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from firsthand.errors import ConfigError
from firsthand.formats.fields import Fields
from firsthand.formats.model_files import read_json
from firsthand.nn.gguf_quantizer import Quantised, quantise_model
from firsthand.nn.packed_format import Method, packed_format
from firsthand.system.folder_links import own_files
from firsthand.system.new_file import copy_new
from firsthand.tokens.vocab_export import vocabulary_metadata


def quantize_file(
    source: Path, path: Path, file_type: str, *, told: Callable[[int, int], None] | None = None
) -> Quantised:
    """Writes the model at `source` (a .gguf file or a folder) to `path` in a type such as `Q4_K_M`; see `quantise_model`.

    The file of an embedder's folder states its pooling and the end token after a text.
    """
    return quantise_model(source, path, file_type, vocabulary=_vocabulary, told=told)


def _vocabulary(folder: Path) -> dict[str, Any]:
    from firsthand.embed.embedding_metadata import embedding_metadata

    return embedding_metadata(folder, vocabulary_metadata(folder))


def is_packed(source: Path) -> bool:
    """True for a folder whose matrices are in GPTQ's or AWQ's integers already."""
    config = source / "config.json"
    return config.is_file() and packed_format(Fields(read_json(config), str(config))) is not None


_SEQUENCE, _SEQUENCES = 512, 128
_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
    "chat_template.jinja", "additional_chat_templates/tool_use.jinja",
)  # fmt: skip


def quantize_folder(
    source: Path, folder: Path, method: str, text: str, *, told: Callable[[int, int], None] | None = None
) -> int:
    """Writes the model folder at `source` in GPTQ's or AWQ's 4 bits, calibrated on a text; returns the bytes of its weights.

    At most 128 sequences of 512 tokens of the text are used, each after BOS where the model's prompts begin with it.
    ConfigError for an empty text, a GGUF file, or a folder that holds a model, ModelFileError for a tokenizer's file that is
    a link out of the folder.
    """
    from firsthand.nn.calibrated_rounding import round_model, save_rounded
    from firsthand.nn.weights import load
    from firsthand.tokens.pretrained import load as load_tokenizer

    if not source.is_dir():
        raise ConfigError(f"{source} is a file: {method} takes a folder with config.json and safetensors")
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} holds a model: give another name, or remove it first")
    kept = own_files(source, _FILES)
    tokenizer = load_tokenizer(source)
    sequences = _sequences(tokenizer.encode(text), tokenizer.encode_prompt(""))
    chosen = cast(Method, method.lower())
    model = load(source)
    rounded, group = round_model(model, sequences, chosen, told=told)
    save_rounded(model, rounded, group, chosen, folder)
    for path in kept:
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        copy_new(path, copy)
    return (folder / "model.safetensors").stat().st_size


def _sequences(ids: list[int], begin: list[int]) -> list[list[int]]:
    """The first `_SEQUENCES` sequences of `_SEQUENCE` ids, each after `begin`; the last one is perhaps shorter."""
    size = _SEQUENCE - len(begin)
    used = ids[: size * _SEQUENCES]
    return [[*begin, *used[start : start + size]] for start in range(0, len(used), size)]
