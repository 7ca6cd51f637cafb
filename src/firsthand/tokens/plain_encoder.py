"""The description of a tokenizer that cannot produce a special token, for texts that nobody vouches for.

The Rust library leaves special tokens out of a text when asked, but the model behind it may still make them: a Unigram
vocabulary takes any piece that it holds, WordPiece any whole word, and byte-level BPE with `ignore_merges` any whole
piece. There the special tokens get names that no text can have; their ids stay.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from firsthand.message import Json

BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def can_forge(description: Json, special: Iterable[str], rust: Any) -> bool:
    """True if plain text may be cut into one of the special tokens by the model itself."""
    model = description.get("model")
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    kind = model.get("type", "BPE") if isinstance(model, Mapping) else None
    held = set(special) & (vocab.keys() if isinstance(vocab, dict) else {entry[0] for entry in vocab or ()})
    if not held or not isinstance(model, Mapping):
        return False
    if kind != "BPE":
        return True
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return True
    if any("".join(_parts(merge)) in held for merge in model.get("merges") or ()):
        return True
    if any(len(text) == 1 or (model.get("byte_fallback") and BYTE_PIECE.fullmatch(text)) for text in held):
        return True
    return bool(model.get("ignore_merges")) and any(_stays_whole(text, rust) for text in held)


def without_special(description: Json, special: Iterable[str]) -> Json:
    """The same tokenizer with names for the special tokens that no text holds."""
    nonce = secrets.token_hex(16)  # drawn in this process: a text would have to guess it
    names = {text: f"\U0010fffe{nonce}{index}" for index, text in enumerate(special)}
    model = dict(description["model"])
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(text, text): id for text, id in vocab.items()}
    else:
        model["vocab"] = [[names.get(text, text), score] for text, score in vocab]
    if model.get("merges"):
        affix = len((model.get("continuing_subword_prefix") or "").encode())
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, names, affix)]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    added = [
        entry | {"content": names.get(entry["content"], entry["content"])} for entry in description["added_tokens"]
    ]
    return description | {"model": model, "added_tokens": added}


def _parts(merge: Any) -> list[str]:
    return merge.split(" ", 1) if isinstance(merge, str) else list(merge)


def _touches(merge: Any, names: Mapping[str, str], affix: int) -> bool:
    """True if the merge is of a renamed token; the library joins parts without the prefix of the second, `affix` bytes."""
    parts = _parts(merge)
    rest = parts[-1].encode("utf-8", "surrogatepass")[affix:].decode("utf-8", "replace")
    return "".join((*parts[:-1], rest)) in names or any(part in names for part in parts)


def _stays_whole(text: str, rust: Any) -> bool:
    """True if the pre-tokenizer leaves the text in one piece."""
    cutter = rust.pre_tokenizer
    return cutter is None or len(cutter.pre_tokenize_str(text)) <= 1
