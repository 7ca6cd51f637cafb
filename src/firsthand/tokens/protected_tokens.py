"""Which tokens no untrusted text may become: the special ones and those that begin or end a text.

A stranger's file may give a special token a second name, or leave an end out of its added tokens. That is told from the file
here; the Tokenizer looks at the ids of each encoded text besides. Text may become a token that is for unknown text alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from firsthand.errors import ModelFileError
from firsthand.message import Json
from firsthand.tokens.plain_encoder import BYTE_PIECE

_FALSE = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def with_ends(description: Json, ids: Iterable[int | None]) -> Json:
    """The description with the tokens that begin or end a text among its special ones, as transformers adds them.

    One of a single character, as a line feed that ends a turn, is text as well and stays as it is.
    """
    added = description.get("added_tokens") or []
    wanted = {id for id in ids if type(id) is int}
    if not wanted or not isinstance(added, list) or not all(isinstance(entry, dict) for entry in added):
        return description
    entries = [
        entry | {"special": True} if _id(entry) in wanted and _is_mark(str(entry.get("content"))) else entry
        for entry in added
    ]
    missing = wanted - {_id(entry) for entry in added}
    entries += [
        {"id": id, "content": text, "special": True, **_FALSE}
        for text, id in (_named(description) if missing else ())
        if type(id) is int and id in missing and _is_mark(text)
    ]
    return description | {"added_tokens": entries}


def with_byte_pieces(description: Json, ends: Iterable[int | None]) -> Json:
    """The description in which pieces of single bytes, as `<0xE2>`, are no added tokens where the model falls back to bytes.

    Any text may need them: as special tokens, which trainers that know no other way make of them, no text would have them.
    One that begins or ends a text stays as it is.
    """
    model, added = description.get("model"), description.get("added_tokens")
    if not isinstance(model, dict) or not model.get("byte_fallback") or not isinstance(added, list):
        return description
    if not any(isinstance(entry, dict) and BYTE_PIECE.fullmatch(str(entry.get("content"))) for entry in added):
        return description  # as almost all do: the vocabulary is not gone through
    kept = {id for id in ends if type(id) is int}
    pieces = {
        (text, id)
        for text, id in _named(description)
        if type(id) is int and id not in kept and BYTE_PIECE.fullmatch(text)
    }
    return description | {
        "added_tokens": [
            entry
            for entry in added
            if not isinstance(entry, dict) or (str(entry.get("content")), _id(entry)) not in pieces
        ]
    }


def expect_one_name(description: Json, protected: Iterable[int], source: str) -> None:
    """ModelFileError if a token that no text may become has a second name, which a text may hold."""
    added = ((entry["content"], entry["id"]) for entry in description.get("added_tokens") or ())
    names: dict[int, str] = {}
    ids = frozenset(protected)
    for text, id in (*added, *_named(description)):
        if type(id) is int and id in ids and names.setdefault(id, text) != text:
            raise ModelFileError(
                f"{source}: the special token {names[id][:80]!r} and {text[:80]!r} have one id, {id}: expected an id for "
                "each, so fetch the tokenizer's files again from whoever made the model"
            )


def is_unknown_text(name: str) -> bool:
    """True for the name of a token that stands for unknown text and nothing else: `<unk>`, `[UNK]`."""
    return "unk" in name.lower()


def _id(entry: Json) -> int | None:
    id = entry.get("id")
    return id if type(id) is int else None


def _is_mark(text: str) -> bool:
    is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return len(text.strip("▁Ġ ")) > 1 and not is_byte


def _named(description: Json) -> Iterator[tuple[str, Any]]:
    """The names and ids of the model's own vocabulary."""
    model = description.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        yield from vocab.items()
    elif isinstance(vocab, list):
        for id, entry in enumerate(vocab):
            if isinstance(entry, list) and entry and isinstance(entry[0], str):
                yield entry[0], id
