"""SentencePiece vocabularies (Llama 2, Gemma, Mistral 7B, T5), converted to the content of a tokenizer.json.

Pieces come from a GGUF (`gguf_vocab.py`) or from a tokenizer.model, whose protobuf is parsed here. SentencePiece's BPE
merges greedily by score, which equals BPE with merges ranked by the score of their result; its Unigram takes the
segmentation of the highest sum of scores (Kudo, 2018). The normaliser's table (NFKC and others) is for `charsmap`. Not
supported: word and character models, and whitespace as a suffix.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ModelFileError
from firsthand.message import Json
from firsthand.system.ordinary_file import open_ordinary
from firsthand.tokens.text_growth import MAX_TOKENS, check_added, expect_count
from firsthand.tokens.token_merges import TokenMerges

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_MAX_FILE_BYTES = 1 << 26
_MAX_FIELDS = 1 << 22
"""Most fields of all messages of a file: a piece has up to four, with the one that holds it."""


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece vocabulary; a piece's id is its index."""

    texts: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    add_prefix: bool
    """True if a space is put before a text."""
    unigram: bool = False
    """True for a Unigram vocabulary, whose scores are log-probabilities; else BPE."""
    table: bytes = b""
    """The normaliser's table of replacements; empty for none."""
    collapses: bool = False
    """True if spaces at both ends are removed and several in a row are one."""


def description(pieces: Pieces, source: str) -> Json:
    """Returns the content of a tokenizer.json that encodes like SentencePiece's BPE with these pieces."""
    texts = [
        text.replace("▁", " ") if kind == USER_DEFINED else text
        for text, kind in zip(pieces.texts, pieces.kinds, strict=True)
    ]
    vocab = {text: id for id, text in enumerate(texts)}
    if len(vocab) < len(texts):
        raise ModelFileError(f"{source}: a token occurs twice in the vocabulary")
    return {
        "version": "1.0",
        "added_tokens": added_tokens(texts, pieces.kinds, source),
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(pieces)},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if pieces.add_prefix else []),
            ],
        },
        "model": _unigram(pieces, texts, source) if pieces.unigram else _bpe(pieces, texts, vocab, source),
    }


def _normalizers(pieces: Pieces) -> list[Json]:
    """The steps before a text is cut, after the table: spaces, and the mark for a space."""
    made: list[Json] = []
    if pieces.collapses:
        made += [
            {"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        ]
    if pieces.add_prefix:
        made.append({"type": "Prepend", "prepend": "▁"})
    return [*made, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]


def _bpe(pieces: Pieces, texts: Sequence[str], vocab: dict[str, int], source: str) -> Json:
    unknown = next((text for text, kind in zip(texts, pieces.kinds, strict=True) if kind == UNKNOWN), None)
    return {
        "type": "BPE", "unk_token": unknown, "fuse_unk": True, "byte_fallback": BYTE in pieces.kinds,
        "vocab": vocab, "merges": _merges(pieces, vocab, source),
    }  # fmt: skip


def _unigram(pieces: Pieces, texts: Sequence[str], source: str) -> Json:
    """Pieces for bytes and unused ones, which no text is cut into, get a score below that of any other way to cut."""
    unknown = next((id for id, kind in enumerate(pieces.kinds) if kind == UNKNOWN), None)
    if unknown is None:
        raise ModelFileError(f"{source}: a Unigram vocabulary needs a piece for unknown text, and has none")
    if not all(isinstance(score, int | float) and math.isfinite(score) for score in pieces.scores):
        raise ModelFileError(f"{source}: a token score is not a number")
    normal = [score for score, kind in zip(pieces.scores, pieces.kinds, strict=True) if kind == NORMAL]
    never = 10 * min([*normal, 0.0]) - 100
    scores = [
        never if kind in (BYTE, UNUSED) else score for score, kind in zip(pieces.scores, pieces.kinds, strict=True)
    ]
    return {
        "type": "Unigram", "unk_id": unknown, "byte_fallback": BYTE in pieces.kinds,
        "vocab": [[text, score] for text, score in zip(texts, scores, strict=True)],
    }  # fmt: skip


def added_tokens(texts: Sequence[str], kinds: Sequence[int], source: str) -> list[Json]:
    """Returns the added tokens of a tokenizer.json: control and unknown pieces are special, user-defined ones are not.

    ModelFileError if there are more than in any real model.
    """
    added = [
        (id, text, kind)
        for id, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED) and text
    ]
    check_added([text for _, text, _ in added], source)
    return [
        {"id": id, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": kind != USER_DEFINED}
        for id, text, kind in added
    ]  # fmt: skip


def read_model(path: Path) -> Pieces:
    """Returns the pieces of a tokenizer.model; ModelFileError if it is corrupt, or not a plain BPE model."""
    try:
        with open_ordinary(path) as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ModelFileError(f"{path} is larger than {_MAX_FILE_BYTES} bytes, the most of a SentencePiece model")
    texts: list[str] = []
    scores, kinds = [], []
    trainer: dict[int, object] = {}
    normalizer: dict[int, object] = {}
    whole = _Message(path)
    for field, value in whole.fields(data):
        if field == 1 and isinstance(value, bytes):
            expect_count(len(texts) + 1, MAX_TOKENS, "tokens", str(path))
            piece = dict(whole.fields(value))
            texts.append(_text(piece.get(1), path))
            scores.append(_number(piece.get(2, 0.0)))
            kinds.append(int(_number(piece.get(3, NORMAL))))
        elif field == 2 and isinstance(value, bytes):
            trainer = dict(whole.fields(value))
        elif field == 3 and isinstance(value, bytes):
            normalizer = dict(whole.fields(value))
    if not texts:
        raise ModelFileError(f"{path} holds no pieces: it is no SentencePiece model, or cut short")
    kind, table = trainer.get(3, 1), normalizer.get(2, b"")
    if kind not in (1, 2) or trainer.get(24, 0) or not normalizer.get(5, 1) or not isinstance(table, bytes):
        raise ModelFileError(
            f"{path} is a SentencePiece model of kind {kind!r}, or marks spaces in its own way: BPE (2) and Unigram (1) are "
            "read; convert it once with transformers' AutoTokenizer.save_pretrained, which writes tokenizer.json"
        )
    return Pieces(
        texts, scores, kinds, add_prefix=bool(normalizer.get(3, 1)), unigram=kind == 1, table=table,
        collapses=bool(normalizer.get(4, 1)),
    )  # fmt: skip


def _merges(pieces: Pieces, vocab: dict[str, int], source: str) -> list[list[str]]:
    """Returns every way to make a normal piece of two, the highest score first."""
    if not all(isinstance(score, int | float) and not math.isnan(score) for score in pieces.scores):
        raise ModelFileError(f"{source}: a token score is not a number")
    normal = {text: vocab[text] for text, kind in zip(pieces.texts, pieces.kinds, strict=True) if kind == NORMAL}
    found = TokenMerges(normal, source)
    ranked = sorted((-pieces.scores[id], *pair) for text, id in normal.items() for pair in found.of(text))
    return [[pieces.texts[left], pieces.texts[right]] for _, left, right in ranked]


class _Message:
    """Reads the fields of a file's protobuf messages, of which there are so many at most."""

    def __init__(self, path: Path):
        self._path = path
        self._left = _MAX_FIELDS

    def fields(self, data: bytes) -> Iterator[tuple[int, object]]:
        """Yields the fields of a message as (number, value): an integer, a float32, or bytes."""
        at, path = 0, self._path
        while at < len(data):
            self._left -= 1
            if self._left < 0:
                raise ModelFileError(f"{path} has more than {_MAX_FIELDS} fields, too many for a SentencePiece model")
            key, at = _varint(data, at, path)
            match key & 7:
                case 0:
                    value, at = _varint(data, at, path)
                    yield key >> 3, value
                case 5 if at + 4 <= len(data):
                    yield key >> 3, struct.unpack_from("<f", data, at)[0]
                    at += 4
                case 1 if at + 8 <= len(data):
                    at += 8
                case 2:
                    size, at = _varint(data, at, path)
                    if size > len(data) - at:
                        raise ModelFileError(
                            f"{path}: a field of {size} bytes goes past the end: the file is cut or corrupt"
                        )
                    yield key >> 3, data[at : at + size]
                    at += size
                case _:
                    raise ModelFileError(f"{path} is not a SentencePiece model: its protobuf breaks at byte {at}")


def _varint(data: bytes, at: int, path: Path) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ModelFileError(f"{path} is not a SentencePiece model: its protobuf breaks at byte {at}")


def _text(value: object, path: Path) -> str:
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise ModelFileError(f"{path}: a piece has no text in UTF-8")


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else math.nan
