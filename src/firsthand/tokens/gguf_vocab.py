"""Converts the vocabulary in a GGUF file to the content of a tokenizer.json.

Supported: `gpt2` (byte-level BPE, with the pre-tokenizer named in `tokenizer.ggml.pre`) and `llama` (SentencePiece BPE
with scores). `bert`, `t5` and `rwkv` vocabularies raise an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from firsthand.errors import ModelFileError
from firsthand.message import Json
from firsthand.tokens import pretokenizers, spm
from firsthand.tokens.text_growth import MAX_TOKENS, expect_count
from firsthand.tokens.token_merges import MAX_MERGES

T = TypeVar("T")


def description(metadata: Mapping[str, Any], source: str) -> Json:
    """Returns the content of a tokenizer.json for the vocabulary in a GGUF's metadata; ModelFileError if it is invalid."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ModelFileError(
            f"{source} has a vocabulary of kind {kind!r}; 'gpt2' (byte-level BPE) and 'llama' "
            "(SentencePiece) are supported: give the model's folder with tokenizer.json instead"
        )
    texts = _list(metadata, "tokenizer.ggml.tokens", str, None, source)
    if not texts:
        raise ModelFileError(f"{source} has an empty vocabulary (tokenizer.ggml.tokens)")
    expect_count(len(texts), MAX_TOKENS, "tokens", source)
    kinds = _list(metadata, "tokenizer.ggml.token_type", int, len(texts), source) or [spm.NORMAL] * len(texts)
    if kind == "gpt2":
        return _byte_level(metadata, texts, kinds, source)
    scores = _list(metadata, "tokenizer.ggml.scores", float, len(texts), source)
    if not scores:
        raise ModelFileError(f"{source}: a SentencePiece vocabulary needs tokenizer.ggml.scores, which is missing")
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    return spm.description(spm.Pieces(texts, scores, kinds, bool(prefix)), source)


def adds_bos(metadata: Mapping[str, Any]) -> bool:
    """True if plain prompts begin with BOS; where the file does not say, follows llama.cpp."""
    stated = metadata.get("tokenizer.ggml.add_bos_token")
    if isinstance(stated, bool):
        return stated
    return (
        metadata.get("tokenizer.ggml.model") == "llama"
        or str(metadata.get("tokenizer.ggml.pre")) in pretokenizers.ADD_BOS
    )


def _byte_level(metadata: Mapping[str, Any], texts: list[str], kinds: list[int], source: str) -> Json:
    vocab = {text: id for id, text in enumerate(texts)}
    if len(vocab) < len(texts):
        raise ModelFileError(f"{source}: a token occurs twice in the vocabulary")
    if metadata.get("tokenizer.ggml.merges") is None:
        raise ModelFileError(f"{source}: a byte-level vocabulary needs tokenizer.ggml.merges, which is missing")
    listed = _list(metadata, "tokenizer.ggml.merges", str, None, source)
    expect_count(len(listed), MAX_MERGES, "merges", source)
    merges = [_pair(merge, vocab, texts, source) for merge in listed]
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    return {
        "version": "1.0",
        "added_tokens": spm.added_tokens(texts, kinds, source),
        "normalizer": {"type": "NFC"} if pre in pretokenizers.NFC else None,
        "pre_tokenizer": pretokenizers.pre_tokenizer(pre),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "byte_fallback": False, "ignore_merges": pre in pretokenizers.IGNORE_MERGES,
                  "vocab": vocab, "merges": merges},
    }  # fmt: skip


def _pair(merge: str, vocab: dict[str, int], texts: list[str], source: str) -> list[str]:
    cut = merge.find(" ", 1)
    left, right = (merge[:cut], merge[cut + 1 :]) if cut > 0 else ("", "")
    if not right or left not in vocab or right not in vocab or left + right not in vocab:
        raise ModelFileError(f"{source}: the merge {merge!r:.200} names a token that is not in the vocabulary")
    return [texts[vocab[left]], texts[vocab[right]]]  # the vocabulary's own texts: millions of copies would take memory


def _list(metadata: Mapping[str, Any], key: str, kind: type[T], length: int | None, source: str) -> list[T]:
    """Returns the array under `key`, checked for type and length; empty if there is none."""
    values = metadata.get(key)
    if values is None:
        return []
    if not isinstance(values, list | tuple) or not all(type(value) is kind for value in values):
        raise ModelFileError(f"{source}: {key} should be an array of {kind.__name__} values")
    if length is not None and len(values) != length:
        raise ModelFileError(f"{source}: {key} has {len(values)} values for a vocabulary of {length} tokens")
    return list(values)
