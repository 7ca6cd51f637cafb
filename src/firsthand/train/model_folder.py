"""Writes a trained model as a folder that `firsthand serve`, `run` and `chat`, and transformers, open."""

from __future__ import annotations

import json
from pathlib import Path

from firsthand.message import Json
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.system.folder_links import links_out, own_files
from firsthand.system.new_file import copy_new, write_new
from firsthand.system.own_file import expect_own_tree
from firsthand.tokens.begin_template import begin_template
from firsthand.tokens.tokenizer import Tokenizer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
    "generation_config.json",
)


def save_model(model: Decoder, tokenizer: Tokenizer, folder: Path, *, base: Path | None = None) -> Path:
    """Writes config.json, model.safetensors, the tokenizer, chat template and generation_config.json; returns the folder.

    The tokenizer's files are copied from the folder `base` if it is one whose files are its own; else (a GGUF file, links
    to elsewhere, which could be to files of this machine that nobody wants to share) they are written from the tokenizer.
    """
    expect_own_tree(folder)
    weights.save(model, folder)
    if base is not None and base.is_dir() and not any(links_out(base / name, base) for name in TOKENIZER_FILES):
        for path in own_files(base, TOKENIZER_FILES):
            copy = folder / path.relative_to(base)
            copy.parent.mkdir(exist_ok=True)
            copy_new(path, copy)
    else:
        _write_json(folder / "tokenizer.json", _description(tokenizer))
        _write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer))
    ends = [id for id in (tokenizer.eos_id, *sorted(tokenizer.eos_ids)) if id is not None]
    special: Json = {"bos_token_id": tokenizer.bos_id, "eos_token_id": list(dict.fromkeys(ends))}
    if not (folder / "generation_config.json").is_file():
        _write_json(folder / "generation_config.json", {**special, **_recommended(tokenizer)})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _write_json(folder / "config.json", {**config, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id})
    return folder


def _description(tokenizer: Tokenizer) -> Json:
    """The content of tokenizer.json, which puts before a text what `encode_prompt` does."""
    described: Json = tokenizer.settings()["description"]
    if not tokenizer.add_bos or tokenizer.start_id is None:
        return described
    return described | {"post_processor": begin_template(tokenizer.text_of(tokenizer.start_id), tokenizer.start_id)}


def _tokenizer_config(tokenizer: Tokenizer) -> Json:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if tokenizer.bos_id is None else tokenizer.text_of(tokenizer.bos_id),
        "eos_token": None if tokenizer.eos_id is None else tokenizer.text_of(tokenizer.eos_id),
        "add_bos_token": tokenizer.add_bos,
        "chat_template": _chat_template(tokenizer),
    }


def _chat_template(tokenizer: Tokenizer) -> str | list[Json] | None:
    """The template, or a list of named ones where there is one for tools."""
    if tokenizer.tool_template is None:
        return tokenizer.chat_template
    named = {"default": tokenizer.chat_template, "tool_use": tokenizer.tool_template}
    return [{"name": name, "template": template} for name, template in named.items() if template is not None]


def _recommended(tokenizer: Tokenizer) -> Json:
    """The sampling settings of the base model, by the names of generation_config.json."""
    return {
        ("max_new_tokens" if name == "max_tokens" else name): value for name, value in tokenizer.recommended.items()
    }


def _write_json(path: Path, body: Json) -> None:
    write_new(path, json.dumps(body, indent=2, ensure_ascii=False) + "\n")
