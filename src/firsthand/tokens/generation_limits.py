"""The settings in a model folder that decide which tokens its outputs may have, besides those of a request.

They stand in generation_config.json or, where that file is missing, in config.json, as in transformers. Applied are
`bad_words_ids`, `suppress_tokens`, `no_repeat_ngram_size`, `min_length` and `min_new_tokens`; the pad token of an
encoder-decoder is never part of an output. Settings that are not applied, such as `num_beams`, are named by `left_out`.
Not here: `forced_bos_token_id`, which the loader of local models reads, and the sampling that authors recommend
(`recommended_sampling`). `forced_eos_token_id` would end outputs that are cut off.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.model_files import read_json
from firsthand.system.field_types import shown

MAX_FORBIDDEN = 8192
MAX_NGRAM = 64
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (0, 1),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({}, []),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "top_h": (),
    "watermarking_config": (),
    "stop_strings": ("", []),
    "force_words_ids": ([],),
    "constraints": ([],),
    "forced_decoder_ids": ([],),
    "dola_layers": (),
    "penalty_alpha": (0,),
    "max_time": (),
}
"""Settings of transformers' `generate` that are not applied, with the values at which they change nothing."""


@dataclass(frozen=True)
class GenerationLimits:
    """The limits of outputs that a model's own files state."""

    forbidden: tuple[tuple[int, ...], ...] = ()
    """Token sequences that no output may complete, even where they begin in the prompt."""
    ngram: int = 0
    """No output may repeat this many tokens in a row of it and its prompt; 0 allows it."""
    min_tokens: int = 0
    """No output may end before this many tokens."""
    min_length: int = 0
    """No output may end before this many tokens, those of its prompt included."""


NO_LIMITS = GenerationLimits()


def generation_fields(folder: Path) -> Fields:
    """The fields that rule outputs: those of generation_config.json, of config.json where there is none."""
    stated = folder / "generation_config.json"
    return _fields(stated if stated.is_file() else folder / "config.json")


def forbidden_tokens(
    folder: Path, *, vocab_size: int, ends: Collection[int], has_sources: bool = False
) -> tuple[tuple[int, ...], ...]:
    """The token sequences that no output of the model in a folder may complete; a GGUF file states none.

    Those with a token outside the vocabulary are left out, because they cannot occur, and so is a ban of an end token alone
    in `bad_words_ids`, as in transformers. `has_sources` is true of an encoder-decoder, whose pad token is among them.
    ModelFileError for values of another form.
    """
    fields = generation_fields(folder)
    found = [words for words in _sequences(fields) if words not in {(end,) for end in ends}]
    found += [(token,) for token in _ids(fields, "suppress_tokens", fields.values.get("suppress_tokens"))]
    if has_sources:
        pads = [each.values.get("pad_token_id") for each in (fields, _fields(folder / "config.json"))]
        found += [(pad,) for pad in [each for each in pads if type(each) is int][:1] if pad not in ends]
    if len(found) > MAX_FORBIDDEN:
        raise fields.error("bad_words_ids", f"{len(found)} lists", f"at most {MAX_FORBIDDEN}, suppress_tokens included")
    return tuple(dict.fromkeys(words for words in found if all(0 <= token < vocab_size for token in words)))


def generation_limits(
    folder: Path, *, vocab_size: int, ends: Collection[int], has_sources: bool = False
) -> GenerationLimits:
    """The limits of a model in a folder, as `forbidden_tokens` has their forbidden tokens; a GGUF file states none.

    The prompt of an encoder-decoder is how its outputs begin. `min_new_tokens` goes before `min_length`, as in transformers,
    where it counts tokens after the first one of an encoder-decoder. ModelFileError for values of another form.
    """
    forbidden = forbidden_tokens(folder, vocab_size=vocab_size, ends=ends, has_sources=has_sources)
    fields = generation_fields(folder)
    ngram = _count(fields, "no_repeat_ngram_size")
    if ngram > MAX_NGRAM:
        raise fields.error("no_repeat_ngram_size", ngram, f"at most {MAX_NGRAM}")
    if not fields.has("min_new_tokens"):
        return GenerationLimits(forbidden, ngram, min_length=_count(fields, "min_length"))
    least = _count(fields, "min_new_tokens")
    if has_sources and least:
        return GenerationLimits(forbidden, ngram, min_length=least + 1)
    return GenerationLimits(forbidden, ngram, min_tokens=least)


def left_out(folder: Path) -> list[str]:
    """The settings that transformers' `generate` would apply and the engine does not, as `name value`."""
    values = generation_fields(folder).values
    stated = {key: values[key] for key in NEUTRAL if values.get(key) is not None}
    return [f"{key} {shown(value)}" for key, value in stated.items() if value not in NEUTRAL[key]]


def _fields(path: Path) -> Fields:
    return Fields(read_json(path) if path.is_file() else {}, str(path))


def _count(fields: Fields, key: str) -> int:
    """A whole number; 0 where there is none, and for one below 0, which transformers does not apply either."""
    value = fields.values.get(key)
    return 0 if type(value) is int and value < 0 else fields.integer(key, 0)


def _sequences(fields: Fields) -> list[tuple[int, ...]]:
    value = fields.values.get("bad_words_ids")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(words, list) and words for words in value):
        raise fields.error("bad_words_ids", value, "lists of token ids, none of them empty")
    return [_ids(fields, "bad_words_ids", words) for words in value]


def _ids(fields: Fields, key: str, value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise fields.error(key, value, "a list of token ids")
    return tuple(value)
