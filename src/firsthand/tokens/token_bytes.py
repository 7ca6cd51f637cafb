"""The bytes of each token, from the decoder that a tokenizer.json describes.

Supported vocabularies: byte-level (GPT-2 and most models since), SentencePiece with byte fallback (Llama 2, Gemma), and
WordPiece (BERT). WordPiece's removal of spaces before punctuation is left out, since it depends on the next token: its
text has a space before every word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from firsthand.errors import ModelFileError
from firsthand.message import Json


def steps(node: object, inner: str) -> list[Json]:
    """Returns the steps of a pipeline in tokenizer.json; `inner` is the key of nested sequences."""
    if not isinstance(node, dict):
        return []
    if node.get("type") != "Sequence":
        return [node]
    parts = node.get(inner)
    return [step for part in parts for step in steps(part, inner)] if isinstance(parts, list) else []


def strips_leading_space(decoder: object) -> bool:
    """True if decoding removes one space from the start of a text."""
    for part in steps(decoder, "decoders"):
        match part:
            case {"type": "Strip", "content": " ", "start": int(start)} if start > 0:
                return True
            case {"type": "WordPiece"}:
                return True
            case {"type": "Metaspace"}:
                return part.get("prepend_scheme", "always") != "never" and part.get("add_prefix_space") is not False
    return False


def byte_reader(description: Json, source: str) -> Callable[[str], bytes]:
    """Returns the function from a token's text in the vocabulary to its bytes."""
    decoders = _types(description.get("decoder"), "decoders", source)
    cutters = _types(description.get("pre_tokenizer"), "pretokenizers", source)
    if "ByteLevel" in decoders or (not decoders and "ByteLevel" in cutters):
        return byte_level_bytes
    if decoders & {"ByteFallback", "Metaspace", "Replace"}:
        return _sentencepiece_bytes
    if "WordPiece" in decoders:
        return _wordpiece_bytes
    raise ModelFileError(
        f"{source}: the decoder {sorted(decoders)} is not supported; byte-level, "
        "SentencePiece and WordPiece vocabularies are read"
    )


def _types(node: object, inner: str, source: str) -> set[str]:
    found = set()
    for part in steps(node, inner):
        kind = part.get("type")
        if not isinstance(kind, str):
            raise ModelFileError(f"{source}: a step of the {inner} is of the type {kind!r:.80}: a name was expected")
        found.add(kind)
    return found


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """Returns GPT-2's characters for bytes: printable Latin-1 maps to itself, the rest follows from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def character_of_byte() -> list[str]:
    """Returns GPT-2's character for each byte."""
    return [character for character, _ in sorted(_byte_of_character().items(), key=lambda item: item[1])]


def byte_level_bytes(token: str) -> bytes:
    """Returns the bytes of a token written in GPT-2's characters."""
    table = _byte_of_character()
    try:
        return bytes(table[character] for character in token)
    except KeyError:
        return token.encode("utf-8", "replace")


def _sentencepiece_bytes(token: str) -> bytes:
    if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode("utf-8", "replace")


def _wordpiece_bytes(token: str) -> bytes:
    return (token[2:] if token.startswith("##") else " " + token).encode("utf-8", "replace")
