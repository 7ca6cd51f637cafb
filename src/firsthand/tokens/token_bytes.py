"""What bytes a token stands for: read from the decoder that a tokenizer.json describes.

Three kinds of vocabulary are known: byte-level (GPT-2 and most models since), SentencePiece with byte fallback (Llama 2,
Gemma), and WordPiece (BERT). Left out: WordPiece's tidying of spaces before punctuation, which would depend on what
comes next; its text has a space before every word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from firsthand.errors import ModelFileError
from firsthand.message import Json


def steps(node: object, inner: str) -> list[Json]:
    """The steps of a pipeline in tokenizer.json, whose sequences name them `inner`."""
    if not isinstance(node, dict):
        return []
    if node.get("type") != "Sequence":
        return [node]
    parts = node.get(inner)
    return [step for part in parts for step in steps(part, inner)] if isinstance(parts, list) else []


def strips_leading_space(decoder: object) -> bool:
    """Whether decoding takes one space off the front of a text."""
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
    """The function from a token's text in the vocabulary to its bytes."""
    decoders = {part.get("type") for part in steps(description.get("decoder"), "decoders")}
    cutters = {part.get("type") for part in steps(description.get("pre_tokenizer"), "pretokenizers")}
    if "ByteLevel" in decoders or (not decoders and "ByteLevel" in cutters):
        return byte_level_bytes
    if decoders & {"ByteFallback", "Metaspace", "Replace"}:
        return _sentencepiece_bytes
    if "WordPiece" in decoders:
        return _wordpiece_bytes
    raise ModelFileError(
        f"{source}: the decoder {sorted(map(str, decoders))} is not known here; byte-level, "
        "SentencePiece and WordPiece vocabularies are read"
    )


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: printable Latin-1 stands for itself, the rest follows from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def byte_level_bytes(token: str) -> bytes:
    """The bytes of a token that is written in GPT-2's stand-ins."""
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
