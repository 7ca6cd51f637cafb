"""Vocabularies in tiktoken's format (GPT-2 to GPT-4o, Llama 3, Qwen), converted to the content of a tokenizer.json.

A file has a line for each token: its bytes in base64 and its rank, which is its id. In each piece of a text tiktoken merges
the neighbours whose union has the lowest rank. The expression that cuts a text, and the special tokens, are not in the
file: they are known by its name.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ModelFileError
from firsthand.message import Json
from firsthand.system.ordinary_file import open_ordinary
from firsthand.tokens.pretokenizers import GPT2, GPT4O, LLAMA3, QWEN2
from firsthand.tokens.text_growth import MAX_TOKENS, expect_count
from firsthand.tokens.token_bytes import character_of_byte
from firsthand.tokens.token_merges import TokenMerges

_MAX_FILE_BYTES = 1 << 25
_MAX_TOKEN_BYTES = 1 << 10


@dataclass(frozen=True)
class Encoding:
    """The facts that a rank file leaves out."""

    expression: str
    """Cuts a text into pieces."""
    special: Mapping[str, int]
    """Special tokens and their ids; below 0, so many after the last rank and one."""
    bos: str | None = None
    ends: tuple[str, ...] = ()


_CL100K = {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260,
           "<|endofprompt|>": 100276}  # fmt: skip
_LLAMA3 = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    "<|python_tag|>",
)  # fmt: skip
ENCODINGS: dict[str, Encoding] = {
    "gpt2": Encoding(GPT2, {"<|endoftext|>": 50256}, ends=("<|endoftext|>",)),
    "r50k_base": Encoding(GPT2, {"<|endoftext|>": 50256}, ends=("<|endoftext|>",)),
    "p50k_base": Encoding(GPT2, {"<|endoftext|>": 50256}, ends=("<|endoftext|>",)),
    "cl100k_base": Encoding(LLAMA3, _CL100K, ends=("<|endoftext|>",)),
    "o200k_base": Encoding(GPT4O, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}, ends=("<|endoftext|>",)),
    "qwen": Encoding(
        QWEN2,
        {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645},
        ends=("<|im_end|>", "<|endoftext|>"),
    ),
    "tokenizer": Encoding(
        LLAMA3,
        {name: 128000 + index for index, name in enumerate(_LLAMA3)}
        | {f"<|reserved_special_token_{index}|>": 128009 + index for index in range(2, 247)},
        bos="<|begin_of_text|>",
        ends=("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
    ),
}
"""By the name of a file without its suffix; `tokenizer.model` of Llama 3 is one, too."""


def is_rank_file(path: Path) -> bool:
    """True if a file begins as tiktoken's do: base64, a blank, a number, the end of a line."""
    try:
        with open_ordinary(path) as file:
            first = file.readline(2 * _MAX_TOKEN_BYTES)
    except OSError:
        return False
    token, _, rank = first.strip().partition(b" ")
    return rank.isdigit() and _decoded(token) is not None


def read_ranks(path: Path) -> dict[bytes, int]:
    """Returns the rank of each token of a file; ModelFileError if it is no rank file, cut short, or contradicts itself."""
    try:
        with open_ordinary(path) as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ModelFileError(f"{path} has more than {_MAX_FILE_BYTES} bytes, too many for a file of ranks")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(io.BytesIO(data), 1):
        expect_count(number, MAX_TOKENS, "lines", str(path))
        if not line.strip():
            continue
        text, _, rank = line.strip().partition(b" ")
        token = _decoded(text)
        if token is None or not rank.isdigit() or not 0 < len(token) <= _MAX_TOKEN_BYTES or len(rank) > 9:
            raise ModelFileError(f"{path}, line {number}: {line[:80]!r} is no token in base64 and its rank")
        if token in ranks:
            raise ModelFileError(f"{path}, line {number}: the token {token[:80]!r} comes twice")
        ranks[token] = int(rank)
    check_ranks(ranks, str(path))
    return ranks


def check_ranks(ranks: Mapping[bytes, int], source: str) -> None:
    """ModelFileError unless every byte is a token and no two tokens share a rank."""
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ModelFileError(
            f"{source} has no token for {len(missing)} of the 256 bytes, such as {missing[0]:#04x}: it may be cut short"
        )
    if len(set(ranks.values())) < len(ranks):
        raise ModelFileError(f"{source}: two tokens have one rank")


def description(ranks: Mapping[bytes, int], encoding: Encoding, source: str) -> Json:
    """Returns the content of a tokenizer.json that encodes like tiktoken with these ranks."""
    letters = character_of_byte()
    text = {token: "".join(letters[byte] for byte in token) for token in ranks}
    found, by_rank = TokenMerges(ranks, source), {rank: text[token] for token, rank in ranks.items()}
    merges = [
        [by_rank[left], by_rank[right]]
        for token in sorted(ranks, key=ranks.__getitem__)
        for left, right in found.of(token)
    ]
    taken = set(ranks.values())
    special = {name: id for name, id in encoding.special.items() if id not in taken}
    split: Json = {"type": "Split", "pattern": {"Regex": encoding.expression}, "behavior": "Isolated", "invert": False}
    byte_level: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
            for name, id in sorted(special.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "byte_fallback": False, "ignore_merges": True,
            "vocab": {text[token]: rank for token, rank in ranks.items()} | special, "merges": merges,
        },
    }  # fmt: skip


def encoding_of(path: Path) -> Encoding:
    """The facts that a rank file of that name leaves out; ModelFileError for an unknown name."""
    found = ENCODINGS.get(path.stem)
    if found is None:
        raise ModelFileError(
            f"{path.name} holds ranks, but nothing says how its texts are cut: name it as one of "
            f"{', '.join(f'{name}.tiktoken' for name in ENCODINGS if name != 'tokenizer')}, or tokenizer.model for Llama 3"
        )
    return found


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
