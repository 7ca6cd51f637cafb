"""A small byte-level tokenizer with special tokens: letters, `ab`, and seven added tokens."""

from __future__ import annotations

from typing import Any

import tokenizers

from firsthand.tokens.tokenizer import Tokenizer

BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
START, END, CALL, STRIP, WORD, BOS = "<|im_start|>", "<|im_end|>", "<tool_call>", "<|strip|>", "word", "<s>"


def added(id: int, content: str, **changes: Any) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"id": id, "content": content, **plain, **changes}


ADDED = [
    added(257, START), added(258, END), added(259, CALL, special=True), added(260, STRIP, lstrip=True, rstrip=True),
    added(261, WORD), added(262, BOS), added(263, "<|im_end|>!", special=True),
]  # fmt: skip


def description(**changes: Any) -> dict[str, Any]:
    vocab = {letter: id for id, letter in enumerate(BYTES)} | {"ab": 256}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]], "ignore_merges": False, **changes}
    return {
        "version": "1.0", "added_tokens": ADDED, "normalizer": None, "pre_tokenizer": BYTE_LEVEL, "model": model,
        "decoder": BYTE_LEVEL, "truncation": None, "padding": None, "post_processor": {"type": "ByteLevel", **BYTE_LEVEL},
    }  # fmt: skip


def made(**changes: Any) -> Tokenizer:
    return Tokenizer(description(), **{"bos_id": 262, "eos_ids": (263, 258), **changes})


TOKENIZER = made()
IDS = {letter: id for id, letter in enumerate(BYTES)} | {" ": BYTES.index("Ġ"), "\n": BYTES.index("Ċ")}


def ids(text: str) -> list[int]:
    """The ids of letters alone."""
    return [IDS[letter] for letter in text]
