"""The embedding config in GGUF metadata: `ARCH.pooling_type` and `tokenizer.ggml.add_eos_token`, read and written.

`add_sep_token` is left out: it stands between the two texts of a pair. So is the length at which a folder truncates texts
(`max_seq_length`), for which GGUF has no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firsthand.embed.embedding_config import (
    EmbeddingConfig,
    Pooling,
    default_embedding_config,
    read_embedding_config,
    states_embedding,
)
from firsthand.errors import ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import read_gguf
from firsthand.nn.model_config import family_of, folder_architecture
from firsthand.tokens import pretrained
from firsthand.tokens.tokenizer import Tokenizer

POOLING_TYPES: dict[Pooling, int] = {"mean": 1, "cls": 2, "lasttoken": 3}
"""The numbers of the gguf package's PoolingType; 0 (none) and 4 (rank) give no vector of a text."""
_POOLINGS = {number: name for name, number in POOLING_TYPES.items()}
_ADD_EOS, _EOS, _BOS, _ADD_BOS = (
    f"tokenizer.ggml.{key}" for key in ("add_eos_token", "eos_token_id", "bos_token_id", "add_bos_token")
)
_ENDS = (_EOS, "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def stated_pooling(metadata: Mapping[str, Any], where: str) -> Pooling | None:
    """Returns the pooling that a GGUF file states, None if it states none; ModelFileError for one that is not supported."""
    fields = Fields(metadata, where)
    own = Fields(metadata, where, f"{fields.text('general.architecture', '')}.")
    if not own.has("pooling_type"):
        return None
    number = own.integer("pooling_type")
    if number not in _POOLINGS:
        raise own.error("pooling_type", number, "1 (mean), 2 (cls) or 3 (last token), or give the pooling yourself")
    return _POOLINGS[number]


def adds_eos(metadata: Mapping[str, Any], where: str) -> bool:
    """True if a GGUF file says that its end token follows a text."""
    return Fields(metadata, where).flag(_ADD_EOS, False)


def gguf_embedding_config(
    metadata: Mapping[str, Any], tokenizer: Tokenizer, most: int, *, where: str, pooling: Pooling | None = None
) -> EmbeddingConfig:
    """Returns the config that a GGUF file states: BOS and EOS around a text, and the pooling, or the last token's.

    `most` is the most tokens the model takes, and `pooling` overrides the file's. ModelFileError for a pooling that is not
    supported, an end token that is missing, or no room for a text.
    """
    chosen = pooling or stated_pooling(metadata, where) or "lasttoken"
    config = default_embedding_config(tokenizer, most, pooling=chosen)
    if adds_eos(metadata, where):
        end = Fields(metadata, where).integer(_EOS)
        if end >= tokenizer.vocab_size:
            raise Fields(metadata, where).error(_EOS, end, f"a token of the vocabulary of {tokenizer.vocab_size}")
        config = EmbeddingConfig(chosen, most, config.before, (end,))
    if config.max_text_tokens < 1:
        raise ModelFileError(f"{where} takes {most} tokens a text, which leaves no room for the text itself")
    return config


def other_than_default(path: Path, pooling: Pooling | None) -> list[str]:
    """Names what a GGUF file states that is not the default: an end token after a text, and another pooling than the last
    token's, unless `pooling` overrides it."""
    metadata = read_gguf(path).metadata
    chosen = pooling or stated_pooling(metadata, str(path)) or "lasttoken"
    named = [chosen] if pooling is None and chosen != "lasttoken" else []
    return [*(["EOS"] if adds_eos(metadata, str(path)) else []), *named]


def embedding_metadata(folder: Path, vocabulary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the vocabulary's metadata with a folder's embedding config, so that the GGUF file embeds as the folder.

    Unchanged for a folder that is no embedder: one without modules.json that attends causally. ModelFileError for a config
    that GGUF cannot express.
    """
    a = folder_architecture(folder)
    if a.is_causal and not states_embedding(folder):
        return dict(vocabulary)
    config = read_embedding_config(folder, pretrained.load(folder), a.max_position, default="lasttoken")
    if config.lower or len(config.before) > 1 or len(config.after) > 1:
        what = "lower-cases texts" if config.lower else "puts several tokens before or after a text"
        raise ModelFileError(f"{folder} {what}, which GGUF cannot express: keep it as a folder")
    kind = family_of(a).to_gguf(a)["general.architecture"]
    made = dict(vocabulary) | {f"{kind}.pooling_type": POOLING_TYPES[config.pooling]}
    made |= {_ADD_BOS: bool(config.before), _ADD_EOS: bool(config.after)}
    if config.before:
        made[_BOS] = config.before[0]
    if config.after:  # it becomes the first of the end tokens, as in llama.cpp's converter
        ends = list(dict.fromkeys([config.after[0], *(made[key] for key in _ENDS if key in made)]))
        if len(ends) > len(_ENDS):
            raise ModelFileError(f"{folder} has {len(ends)} end tokens, and GGUF has places for {len(_ENDS)}")
        made |= dict(zip(_ENDS, ends, strict=False))
    return made
