"""Bounds how much longer a tokenizer's own steps may make a text before it is cut into tokens, and what cutting it takes.

The steps of a tokenizer.json run in Rust, where nothing ends them: forty `Replace` steps of "a" by "aa" make 10^12
letters of one, and a replacement of 10 MB fills the memory with a short text. Real files replace a blank by a mark. The
model behind them and the added tokens have lengths too that real ones keep small.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from firsthand.errors import ModelFileError
from firsthand.message import Json
from firsthand.tokens.charsmap import expect_table
from firsthand.tokens.token_bytes import steps
from firsthand.tokens.token_merges import MAX_MERGES

MAX_FACTOR = 256
"""Most characters that may come of one. NFKC makes 18 of U+FDFA, the most that a standard asks for."""
MAX_ADDED = 1 << 14
"""Most characters that may be added to any text."""
MAX_AFFIX = 16
"""Most characters of a prefix of continuing pieces, such as `##`, or of a word's suffix, such as `</w>`: the library
joins it to every part of a word that it looks up."""
MAX_WORD = 1_000
"""Most characters of a word that WordPiece cuts, in time that grows with their square. BERT has 100."""
MAX_PIECE = 256
"""Most characters of a piece of Unigram, each of which may be looked up at every character. Real ones have up to 16, and of
blanks a few dozen."""
MAX_TOKENS = 1 << 20
"""Most tokens of a vocabulary, and one more than the largest id; XLM-V has 901,629, Gemma 262,144."""
MAX_ADDED_TOKENS = 1 << 17
"""Most added tokens, each of which becomes several objects. Models that speak have some 70,000."""
MAX_ADDED_CHARS, MAX_ALL_ADDED_CHARS = 512, 1 << 20
"""Most characters of one added token, and of all: a search for all of them is built. Models that speak
have 600,000 together."""
_EMPTY = re.compile(r"[*?|(^$]|\\[AbBGKyYzZ]|\{[0,]")
"""Found in an expression that may match nothing: alternatives, groups, anchors, and counts from 0."""


def check_growth(description: Json, source: str) -> None:
    """Raise ModelFileError for a tokenizer whose steps may make a text more than MAX_FACTOR times as long."""
    factor, added = 1, 0
    for step in (
        *steps(description.get("normalizer"), "normalizers"),
        *steps(description.get("pre_tokenizer"), "pretokenizers"),
    ):
        grows, adds = _growth(step, source)
        factor, added = factor * grows, added * grows + adds
        if factor > MAX_FACTOR or added > MAX_ADDED:
            raise ModelFileError(
                f"{source}: the tokenizer's normalizer may make a text more than {MAX_FACTOR} times as long, or put more "
                f"than {MAX_ADDED} characters before it: expected the replacements of a real tokenizer"
            )


def check_model(description: Json, source: str) -> None:
    """Raise ModelFileError for a tokenizer with which encoding takes far longer than a text is, or more memory.

    Added tokens that are no texts and other fields of wrong types are left to others.
    """
    model = description["model"]
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if isinstance(affix := model.get(name), str) and len(affix) > MAX_AFFIX:
            raise _too_long(source, f"its model's {name}", len(affix), MAX_AFFIX)
    words = model.get("max_input_chars_per_word")
    if isinstance(words, int) and words > MAX_WORD:
        raise ModelFileError(
            f"{source}: its model's max_input_chars_per_word is {str(words)[:40]}: expected at most {MAX_WORD}, as "
            "cutting a word takes time that grows with the square of its length"
        )
    vocab, merges = model.get("vocab"), model.get("merges")
    if isinstance(vocab, dict | list):
        expect_count(len(vocab), MAX_TOKENS, "tokens", source)
    if isinstance(merges, list):
        expect_count(len(merges), MAX_MERGES, "merges", source)
    if isinstance(vocab, list):  # Unigram, whatever the file calls it
        pieces = (entry[0] for entry in vocab if isinstance(entry, list) and entry and isinstance(entry[0], str))
        if (longest := max(map(len, pieces), default=0)) > MAX_PIECE:
            raise _too_long(source, "a piece of its vocabulary", longest, MAX_PIECE)


def check_added(texts: Sequence[str], source: str) -> None:
    """Raise ModelFileError for added tokens that are longer than any real ones."""
    expect_count(len(texts), MAX_ADDED_TOKENS, "added tokens", source)
    if (longest := max(map(len, texts), default=0)) > MAX_ADDED_CHARS:
        raise _too_long(source, "an added token", longest, MAX_ADDED_CHARS)
    if (together := sum(map(len, texts))) > MAX_ALL_ADDED_CHARS:
        raise _too_long(source, "its added tokens together", together, MAX_ALL_ADDED_CHARS, verb="have")


def expect_count(count: int, most: int, what: str, source: str) -> None:
    """Raise ModelFileError if a tokenizer has more of something than that of any real model, before more is made of it."""
    if count > most:
        raise ModelFileError(
            f"{source}: the tokenizer has {count} {what}: expected at most {most}, as in that of a real model"
        )


def _too_long(source: str, what: str, length: int, most: int, *, verb: str = "has") -> ModelFileError:
    return ModelFileError(
        f"{source}: {what} {verb} {length} characters: expected at most {most}, as in the tokenizer of a real model"
    )


def _growth(step: Json, source: str) -> tuple[int, int]:
    """The characters that a step makes of one, and those that it adds to a text."""
    match step:
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old:
            return max(1, -(-len(new) // len(old))), 0
        case {"type": "Replace", "pattern": {"Regex": str(old)}, "content": str(new)} if not _EMPTY.search(old):
            return max(1, len(new)), 0
        case {"type": "Replace", "content": str(new)}:  # what may match nothing puts it between all characters
            return 1 + len(new), len(new)
        case {"type": "Prepend", "prepend": str(text)}:
            return 1, len(text)
        case {"type": "ByteLevel"}:  # each byte becomes a character of up to two bytes, as which the next one sees it
            return 2, 1
        case {"type": "Precompiled", "precompiled_charsmap": str(table)}:
            return max(1, _longest(table, source)), 0
    return 1, 0


def _longest(table: str, source: str) -> int:
    """The length in bytes of the longest text that a table of SentencePiece's normaliser maps to."""
    try:
        raw = base64.b64decode(table)
    except (binascii.Error, ValueError):
        return 1  # the library refuses it
    expect_table(raw, source)
    texts = raw[4 + int.from_bytes(raw[:4], "little") :]
    return max(map(len, texts.split(b"\0")), default=1)
