"""Descriptions of a tokenizer without the space that it puts before a text's first word.

SentencePiece marks the beginning of a word by a space, and so puts one before a text. In a tokenizer.json that is a
normaliser `Prepend` or a step `Metaspace`, and of byte-level vocabularies `add_prefix_space`. The library does so at the
beginning of a text and, but for the scheme `first` of `Metaspace`, behind each added token. It knows nothing of text that
continues other text, where a space would be a character that nobody wrote.
"""

from __future__ import annotations

from collections.abc import Callable

from firsthand.message import Json
from firsthand.tokens.token_bytes import steps

_MARKS = ("▁", " ")


def behind_token(description: Json) -> Json:
    """Returns the description for text behind an added token; the same object if it needs no other."""
    return _changed(description, first_only=True)


def inside(description: Json) -> Json:
    """Returns the description for text that continues other text; the same object if it needs no other."""
    changed = _changed(description, first_only=False)
    spaced = spaced_tokens(description)
    if not spaced:
        return changed
    added = [
        entry | {"content": f" {entry['content']}"} if entry["id"] in spaced else entry
        for entry in description["added_tokens"]
    ]
    return changed | {"added_tokens": added}


def spaced_tokens(description: Json) -> frozenset[int]:
    """Returns the ids of added tokens that stand for their text with a space before it.

    A normaliser `Prepend` puts its space before the text of an added token too, where that text is normalised: such a
    token is found in a text together with the space before it.
    """
    normaliser = description.get("normalizer") or {}
    if not any(
        step.get("type") == "Prepend" and step.get("prepend") in _MARKS for step in steps(normaliser, "normalizers")
    ):
        return frozenset()
    added = description.get("added_tokens") or []
    return frozenset(entry["id"] for entry in added if entry.get("normalized") and not entry.get("special"))


def _changed(description: Json, *, first_only: bool) -> Json:
    def without(step: Json) -> Json | None:
        match step:
            case {"type": "Metaspace"} if step.get("prepend_scheme") == "first" or not first_only:
                return step | {"prepend_scheme": "never"}
            case {"type": "ByteLevel", "add_prefix_space": True} if not first_only:
                return step | {"add_prefix_space": False}
            case {"type": "Prepend", "prepend": str(mark)} if mark in _MARKS and not first_only:
                return None
        return step

    made = {
        key: _replaced(description[key], inner, without)
        for key, inner in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"))
        if description.get(key) is not None
    }
    return description if all(description[key] == node for key, node in made.items()) else description | made


def _replaced(node: object, inner: str, change: Callable[[Json], Json | None]) -> object:
    """The steps of a pipeline, each as `change` returns it, without those that it leaves out."""
    if not isinstance(node, dict):
        return node
    changed = [change(step) for step in steps(node, inner)]
    if node.get("type") != "Sequence":
        return changed[0]
    return {"type": "Sequence", inner: [step for step in changed if step is not None]}
