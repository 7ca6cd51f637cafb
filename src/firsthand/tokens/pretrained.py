"""`load`: the Tokenizer of a model, from a Hugging Face folder or from the vocabulary inside a GGUF file.

A folder is read from tokenizer.json (or a tokenizer.model of SentencePiece or Llama 3, or a rank file of tiktoken),
tokenizer_config.json, special_tokens_map.json, generation_config.json (or config.json),
chat_template.jinja and additional_chat_templates/tool_use.jinja. No code from the folder runs.
Not supported: vocab.json with merges.txt alone; save such a tokenizer once with transformers.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from firsthand.errors import ModelFileError, reason_of
from firsthand.formats.gguf_file import read_gguf
from firsthand.formats.model_files import read_json
from firsthand.message import Json
from firsthand.system.folder_links import refuse_link_out
from firsthand.system.ordinary_file import open_ordinary
from firsthand.tokens import gguf_vocab, spm, tiktoken_ranks
from firsthand.tokens.recommended_sampling import FOLDER, GGUF, recommended
from firsthand.tokens.tokenizer import TextRun, Tokenizer

__all__ = ["TextRun", "Tokenizer", "from_metadata", "load"]

_MAX_TOKENIZER_BYTES = 1 << 27
_MAX_TEMPLATE_BYTES = 1 << 20
TOOL_TEMPLATE = "additional_chat_templates/tool_use.jinja"
"""The file, within a model's folder, of the template for conversations with tools."""


def load(path: Path | str) -> Tokenizer:
    """Returns the Tokenizer of the model at `path`: a folder, its tokenizer.json, or a .gguf file.

    ModelFileError if there is none, or if the files are corrupt, contradictory or of an unknown kind.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if path.suffix.lower() == ".gguf":
        return from_metadata(read_gguf(path).metadata, source=str(path))
    if path.name in ("tokenizer.json", "tokenizer.model") and path.is_file():
        return _from_folder(path.parent)
    if path.suffix == ".tiktoken" and path.is_file():
        return _from_ranks(path)
    raise ModelFileError(
        f"{path} holds no tokenizer: give a folder with tokenizer.json, a .gguf file, or a .tiktoken file of ranks"
    )


def _from_ranks(path: Path) -> Tokenizer:
    """The Tokenizer of a rank file alone, with the special tokens of its name."""
    encoding = tiktoken_ranks.encoding_of(path)
    made = tiktoken_ranks.description(tiktoken_ranks.read_ranks(path), encoding, str(path))
    ids = {entry["content"]: entry["id"] for entry in made["added_tokens"]}
    ends = [ids[name] for name in encoding.ends if name in ids]
    bos = ids.get(encoding.bos) if encoding.bos is not None else None
    return Tokenizer(made, bos_id=bos, eos_ids=ends, add_bos=bos is not None, source=str(path))


def from_metadata(metadata: dict[str, Any], *, source: str = "GGUF") -> Tokenizer:
    """Returns the Tokenizer in a GGUF's metadata."""
    ends = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    return Tokenizer(
        gguf_vocab.description(metadata, source),
        bos_id=metadata.get("tokenizer.ggml.bos_token_id"),
        eos_ids=[end for end in ends if end is not None],
        add_bos=gguf_vocab.adds_bos(metadata),
        chat_template=_template(metadata.get("tokenizer.chat_template"), source),
        tool_template=_template(metadata.get("tokenizer.chat_template.tool_use"), source),
        recommended=recommended(metadata, GGUF),
        source=source,
    )


def _from_folder(folder: Path) -> Tokenizer:
    ranks = _rank_file(folder)
    if ranks is not None and not (folder / "tokenizer_config.json").is_file():
        return _from_ranks(ranks)
    description, table = _read(folder)
    config = _optional(folder / "tokenizer_config.json")
    names = _optional(folder / "special_tokens_map.json") | config
    generation = _optional(folder / "generation_config.json")
    vocab = _ids_by_text(description, str(folder))
    bos = _id(names.get("bos_token"), vocab)
    ends = _ends(folder, generation, vocab)
    eos = [_id(names.get("eos_token"), vocab), *ends]
    stated = config.get("add_bos_token")
    return Tokenizer(
        description,
        bos_id=bos,
        eos_ids=[end for end in eos if end is not None],
        add_bos=stated if isinstance(stated, bool) else bos is not None and _begins_with(description, bos),
        chat_template=_folder_template(folder, config),
        tool_template=_tool_template(folder, config),
        recommended=recommended(generation, FOLDER),
        table=table,
        source=str(folder),
    )


def _ends(folder: Path, generation: Json, vocab: dict[str, Any]) -> list[Any]:
    """The end tokens in generation_config.json; those in config.json that the vocabulary has, where that file is missing."""
    if (folder / "generation_config.json").is_file():
        ends = generation.get("eos_token_id")
        return ends if isinstance(ends, list) else [ends]
    ends = _optional(folder / "config.json").get("eos_token_id")
    known = set(vocab.values())
    return [end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int and end in known]


def read_description(folder: Path) -> Json:
    """Returns the content of a folder's tokenizer.json, or of what its tokenizer.model converts to."""
    return _read(folder)[0]


def _read(folder: Path) -> tuple[Json, str]:
    """The description, and the table of a SentencePiece normaliser in base64, or nothing."""
    if (folder / "tokenizer.json").is_file():
        return read_json(folder / "tokenizer.json", max_bytes=_MAX_TOKENIZER_BYTES), ""
    ranks = _rank_file(folder)
    if ranks is not None:
        found = tiktoken_ranks.read_ranks(ranks)
        return tiktoken_ranks.description(found, tiktoken_ranks.encoding_of(ranks), str(ranks)), ""
    path = folder / "tokenizer.model"
    if path.is_file():
        pieces = spm.read_model(path)
        return spm.description(pieces, str(path)), base64.b64encode(pieces.table).decode()
    raise ModelFileError(
        f"{folder} holds no tokenizer.json and no tokenizer.model: copy the model's tokenizer files "
        "there, or save them with transformers' AutoTokenizer.save_pretrained"
    )


def _rank_file(folder: Path) -> Path | None:
    """The file of tiktoken's ranks in a folder without tokenizer.json: tokenizer.model, or one that ends in .tiktoken."""
    if (folder / "tokenizer.json").is_file():
        return None
    if tiktoken_ranks.is_rank_file(folder / "tokenizer.model"):
        return folder / "tokenizer.model"
    return next(iter(sorted(folder.glob("*.tiktoken"))), None)


def _optional(path: Path) -> Json:
    return read_json(path) if path.is_file() else {}


def _ids_by_text(description: Json, source: str) -> dict[str, Any]:
    model = description.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):
        try:
            vocab = {text: id for id, (text, _) in enumerate(vocab)}
        except (TypeError, ValueError):
            raise ModelFileError(f"{source}: the vocabulary's entries should be pairs of token and score") from None
    if not isinstance(vocab, dict):
        raise ModelFileError(f"{source}: tokenizer.json has no vocabulary (model.vocab)")
    added = description.get("added_tokens")
    entries = [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    return vocab | {str(entry.get("content")): entry.get("id") for entry in entries}


def _id(token: object, vocab: dict[str, Any]) -> int | None:
    """Returns the id of a token given as text or as an object with `content`; None if it is not in the vocabulary."""
    text = token.get("content") if isinstance(token, dict) else token
    return vocab.get(text) if isinstance(text, str) else None


def _begins_with(description: Json, bos: int) -> bool:
    """True if tokenizer.json's post-processor puts BOS before a text."""
    match description.get("post_processor"):
        case {"type": "Sequence", "processors": list(steps)}:
            return any(_begins_with({"post_processor": step}, bos) for step in steps)
        case {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": str(name)}}, *_],
            "special_tokens": dict(tokens),
        }:
            token = tokens.get(name)
            return isinstance(token, dict) and token.get("ids") == [bos]
        case _:
            return False


def _folder_template(folder: Path, config: Json) -> str | None:
    path = folder / "chat_template.jinja"
    return _template_file(path, folder) if path.is_file() else _template(config.get("chat_template"), str(folder))


def _tool_template(folder: Path, config: Json) -> str | None:
    """The template named `tool_use`; files go before tokenizer_config.json, as in transformers."""
    path, stated = folder / TOOL_TEMPLATE, config.get("chat_template")
    if path.is_file():
        return _template_file(path, folder)
    if (folder / "chat_template.jinja").is_file() or not isinstance(stated, list):
        return None
    return _template(_named(stated).get("tool_use"), str(folder))


def _template_file(path: Path, folder: Path) -> str | None:
    refuse_link_out(path, folder)
    try:
        with open_ordinary(path) as file:
            data = file.read(_MAX_TEMPLATE_BYTES + 1)
        return _template(data.decode("utf-8") if len(data) <= _MAX_TEMPLATE_BYTES else data, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} cannot be read as UTF-8 text: {reason_of(error)}") from error


def _named(templates: list[Any]) -> dict[str, Any]:
    return {str(entry.get("name")): entry.get("template") for entry in templates if isinstance(entry, dict)}


def _template(value: object, source: str) -> str | None:
    """Returns a template given as text, or the `default` one of a list of named ones."""
    if isinstance(value, list):
        named = _named(value)
        value = named.get("default", next(iter(named.values()), None))
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _MAX_TEMPLATE_BYTES:
        raise ModelFileError(f"{source}: the chat template should be a text of at most {_MAX_TEMPLATE_BYTES} bytes")
    return value
