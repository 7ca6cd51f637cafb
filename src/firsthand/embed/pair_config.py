"""The config of a cross-encoder in a model folder: special tokens around a query and a text, maximum length, activation.

Reads the pair template of tokenizer.json, and what sentence-transformers' CrossEncoder writes: `activation_fn` in
config_sentence_transformers.json (from 6.0) or in config.json below `sentence_transformers` (from 4.0),
`sbert_ce_default_activation_function` (before), and `max_seq_length` in sentence_bert_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from firsthand.embed.embedding_config import MAX_TOKENIZER_BYTES, max_tokens_of, optional_fields
from firsthand.errors import ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.model_files import read_json
from firsthand.tokens.tokenizer import Tokenizer

Activation = Literal["identity", "sigmoid"]
_ACTIVATIONS: dict[str, Activation] = {"Identity": "identity", "Sigmoid": "sigmoid"}
_MAX_SPECIALS = 16
Part = tuple[int | str, int]
"""A special token's id, or "A" (the query) or "B" (the text), and the token type of it."""


@dataclass(frozen=True)
class PairConfig:
    """The tokens of a pair, and the number that is made of its logit."""

    parts: tuple[Part, ...]
    """Special tokens, the query and the text, in order."""
    max_tokens: int
    """Longer pairs are truncated to this many tokens, special ones included."""
    activation: Activation
    """Applied to the logit."""

    @property
    def max_pair_tokens(self) -> int:
        """Tokens left for query and text."""
        return self.max_tokens - (len(self.parts) - 2)

    def ids(self, query: Sequence[int], text: Sequence[int]) -> tuple[list[int], list[int]]:
        """The ids of a pair and their token types. The longer of the two is truncated first, at its end."""
        most_query, most_text = longest_first(len(query), len(text), self.max_pair_tokens)
        given = {"A": query[:most_query], "B": text[:most_text]}
        ids: list[int] = []
        types: list[int] = []
        for part, kind in self.parts:
            piece = given[part] if isinstance(part, str) else (part,)
            ids += piece
            types += [kind] * len(piece)
        return ids, types


def longest_first(first: int, second: int, most: int) -> tuple[int, int]:
    """The lengths that two texts are truncated to, as the tokenizers library does it with `longest_first`.

    The shorter one is kept whole if it takes at most half; else both get half, the longer one more if `most` is odd.
    """
    if first + second <= most:
        return first, second
    short = min(first, second)
    kept = (most // 2, most - most // 2) if short > most // 2 else (short, most - short)
    return kept if first <= second else (kept[1], kept[0])


def read_pair_config(folder: Path, tokenizer: Tokenizer, most: int, num_types: int) -> PairConfig:
    """Returns the config that a folder's files describe.

    `most` is the most tokens the model takes, `num_types` the rows of its table of token types. Raises ModelFileError for
    what is not supported.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelFileError(f"{folder} has no tokenizer.json, whose template says how a query and a text are joined")
    parts = tuple(_pair_parts(read_json(path, max_bytes=MAX_TOKENIZER_BYTES).get("post_processor"), path))
    special = [part for part, _ in parts if not isinstance(part, str)]
    if len(special) > _MAX_SPECIALS or any(not 0 <= each < tokenizer.vocab_size for each in special):
        raise ModelFileError(
            f"{path}: its post_processor adds {str(special)[:80]}: expected at most {_MAX_SPECIALS} ids of the vocabulary"
        )
    if num_types == 1:  # types are in the template, but the model tells none apart
        parts = tuple((part, 0) for part, _ in parts)
    if any(not 0 <= kind < min(2, num_types) for _, kind in parts):
        raise ModelFileError(
            f"{path}: its post_processor has token types other than 0 and 1: the model has {num_types}"
        )
    settings = optional_fields(folder / "sentence_bert_config.json")
    config = PairConfig(parts, max_tokens_of(folder, settings, most), _activation(folder))
    if config.max_pair_tokens < 2:
        raise ModelFileError(
            f"{folder} allows {config.max_tokens} tokens a pair, which leaves no room for query and text"
        )
    return config


def _activation(folder: Path) -> Activation:
    """The activation that the files name; without one a sigmoid, as in sentence-transformers."""
    config = Fields(read_json(folder / "config.json"), str(folder / "config.json"))
    new = optional_fields(folder / "config_sentence_transformers.json")
    places = (
        (new, "activation_fn"),
        (config.section("sentence_transformers"), "activation_fn"),
        (config, "sbert_ce_default_activation_function"),
    )
    for fields, key in places:
        if fields.has(key):
            named = fields.text(key).rsplit(".", 1)[-1]
            if named not in _ACTIVATIONS:
                raise fields.error(key, named, f"one of {', '.join(_ACTIVATIONS)}")
            return _ACTIVATIONS[named]
    return "sigmoid"


def _pair_parts(processor: Any, path: Path) -> list[Part]:
    match processor:
        case {"type": "TemplateProcessing", "pair": list(pieces), "special_tokens": dict(tokens)}:
            found = [part for piece in pieces for part in _piece(piece, tokens, path)]
        case {"type": "BertProcessing", "cls": [_, int(first)], "sep": [_, int(last)]}:
            found = [(first, 0), ("A", 0), (last, 0), ("B", 1), (last, 1)]
        case {"type": "RobertaProcessing", "cls": [_, int(first)], "sep": [_, int(last)]}:
            found = [(first, 0), ("A", 0), (last, 0), (last, 0), ("B", 0), (last, 0)]
        case {"type": "Sequence", "processors": list(steps)} if len(steps) <= _MAX_SPECIALS:
            templates = [step for step in steps if isinstance(step, dict) and step.get("type") in _TEMPLATES]
            if len(templates) != 1:
                raise ModelFileError(f"{path}: its post_processor has {len(templates)} templates: expected 1")
            return _pair_parts(templates[0], path)
        case _:
            raise ModelFileError(f"{path}: its post_processor is {str(processor)[:80]}: expected a template for pairs")
    if [part for part, _ in found if isinstance(part, str)] != ["A", "B"]:
        raise ModelFileError(f"{path}: the template of its post_processor does not have the texts A and B, in order")
    return found


_TEMPLATES = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")


def _piece(piece: Any, tokens: Mapping[str, Any], path: Path) -> list[Part]:
    match piece:
        case {"Sequence": {"id": "A" | "B" as which, "type_id": int(kind)}}:
            return [(which, kind)]
        case {"SpecialToken": {"id": str(name), "type_id": int(kind)}} if isinstance(tokens.get(name), dict):
            ids = tokens[name].get("ids")
            if isinstance(ids, list) and all(type(each) is int for each in ids):
                return [(each, kind) for each in ids]
    raise ModelFileError(f"{path}: the template of its post_processor has {str(piece)[:80]}")
