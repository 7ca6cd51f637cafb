"""The vocabulary of a model as GGUF metadata: copied from a GGUF file, or converted from a folder with tokenizer.json.

Converted are byte-level BPE vocabularies with a pre-tokenizer that GGUF has a name for; `gguf_vocab` reads them back with
the same ids. Others raise an error, since llama.cpp would encode texts differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firsthand.errors import ModelFileError
from firsthand.formats.gguf_file import read_gguf
from firsthand.message import Json
from firsthand.tokens import pretokenizers, spm
from firsthand.tokens.pretrained import load, read_description

PREFIX = "tokenizer."


def vocabulary_metadata(path: Path | str) -> dict[str, Any]:
    """Returns the `tokenizer.*` metadata of the model at `path`: a .gguf file, or a folder with tokenizer.json.

    ModelFileError if there is no vocabulary, or GGUF cannot express it.
    """
    path = Path(path)
    if path.suffix.lower() == ".gguf":
        found = {key: value for key, value in read_gguf(path).metadata.items() if key.startswith(PREFIX)}
        if not found:
            raise ModelFileError(f"{path} holds no vocabulary (tokenizer.* in its metadata)")
        return found
    folder = path if path.is_dir() else path.parent
    description = read_description(folder)
    tokenizer = load(folder)
    model = description.get("model")
    if not isinstance(model, Mapping) or model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _unfit(folder, "its vocabulary is no byte-level BPE")
    merges = [each if isinstance(each, str) else " ".join(each) for each in model.get("merges") or []]
    if not merges:
        raise _unfit(folder, "its BPE has no merges, and readers of GGUF need at least one")
    texts, kinds = _tokens(description, folder)
    metadata: dict[str, Any] = {
        f"{PREFIX}ggml.model": "gpt2",
        f"{PREFIX}ggml.pre": _pre_tokenizer_name(description, folder),
        f"{PREFIX}ggml.tokens": texts,
        f"{PREFIX}ggml.token_type": kinds,
        f"{PREFIX}ggml.merges": merges,
        f"{PREFIX}ggml.add_bos_token": tokenizer.add_bos,
    }
    if tokenizer.bos_id is not None:
        metadata[f"{PREFIX}ggml.bos_token_id"] = tokenizer.bos_id
    ends = list(dict.fromkeys(id for id in (tokenizer.eos_id, *sorted(tokenizer.eos_ids)) if id is not None))
    for name, end in zip(("eos", "eot", "eom"), ends, strict=False):
        metadata[f"{PREFIX}ggml.{name}_token_id"] = end
    if len(ends) > 3:
        raise _unfit(folder, f"it has {len(ends)} end tokens, and GGUF has places for 3")
    if tokenizer.chat_template is not None:
        metadata[f"{PREFIX}chat_template"] = tokenizer.chat_template
    if tokenizer.tool_template is not None:
        metadata[f"{PREFIX}chat_templates"] = ["tool_use"]
        metadata[f"{PREFIX}chat_template.tool_use"] = tokenizer.tool_template
    return metadata


def _tokens(description: Json, folder: Path) -> tuple[list[str], list[int]]:
    """The text and the kind of each id."""
    by_id = {id: text for text, id in description["model"]["vocab"].items()}
    special = {each["id"]: each for each in description.get("added_tokens") or []}
    for entry in special.values():
        if stated := [key for key in ("lstrip", "rstrip", "single_word") if entry.get(key)]:
            raise _unfit(folder, f"its token {entry['content']!r} has {stated[0]}")
    by_id |= {id: each["content"] for id, each in special.items()}
    if sorted(by_id) != list(range(len(by_id))):
        raise _unfit(folder, "its ids have gaps")
    kinds = [spm.NORMAL if id not in special else spm.CONTROL if special[id].get("special") else spm.USER_DEFINED
             for id in range(len(by_id))]  # fmt: skip
    return [by_id[id] for id in range(len(by_id))], kinds


def _pre_tokenizer_name(description: Json, folder: Path) -> str:
    """The name in `tokenizer.ggml.pre` that means this pre-tokenizer, normaliser and way of merging."""
    expressions = _expressions(description.get("pre_tokenizer"))
    normalizer = description.get("normalizer")
    kinds = [each.get("type") for each in (normalizer or {}).get("normalizers", [normalizer]) if each]
    if expressions is None or kinds not in ([], ["NFC"]):
        raise _unfit(folder, "its normalizer or pre-tokenizer has no name in GGUF")
    ignores = bool(description["model"].get("ignore_merges"))
    for name, known in pretokenizers.EXPRESSIONS.items():
        same = (known, name in pretokenizers.NFC, name in pretokenizers.IGNORE_MERGES)
        if same == (expressions, bool(kinds), ignores):
            return name
    raise _unfit(folder, "its pre-tokenizer has no name in GGUF")


def _expressions(pre_tokenizer: Any) -> tuple[str, ...] | None:
    """The regular expressions of a byte-level pre-tokenizer, in order; None for another kind."""
    if not isinstance(pre_tokenizer, Mapping):
        return None
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    *splits, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    found = []
    for step in splits:
        match step:
            case {"type": "Split", "pattern": {"Regex": str(expression)}, "behavior": "Isolated", "invert": False}:
                found.append(expression)
            case {"type": "Digits", "individual_digits": True}:
                found.append(r"\p{N}")
            case _:
                return None
    return (*found, pretokenizers.GPT2) if last.get("use_regex", True) else tuple(found)


def _unfit(folder: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"{folder} has a tokenizer that GGUF cannot express ({why}): save safetensors beside its files"
    )
