"""Loads a local model: tokenizer, chat template and weights of a file or folder, with an engine on them. No tensors here."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand import __version__
from firsthand.embed.embedding_config import around_texts
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.decoding.constraint import Grammars
from firsthand.errors import ModelFileError
from firsthand.providers.local_completions import Loaded, SourceFormat
from firsthand.tokens import pretrained
from firsthand.tokens.generation_limits import generation_fields, generation_limits, left_out
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from firsthand.nn.sourced_decoder import SourcedDecoder


def load_model(path: Path, config: EngineConfig, adapter: Path | None = None) -> Loaded:
    """Load the model of a file or folder and start its engine.

    Logs the settings of its generation_config.json that are not applied. Raises ModelFileError if the files belong to
    different models, or if an encoder-decoder's outputs cannot begin.
    """
    from firsthand.engine.compute.device_weights import (
        load_weights,  # torch takes a while, and not every install has it
    )
    from firsthand.engine.compute.devices import explain_out_of_memory
    from firsthand.engine.core.engine import Engine
    from firsthand.engine.core.engine_thread import EngineWorker
    from firsthand.nn.sourced_decoder import SourcedDecoder

    tokenizer = pretrained.load(path)
    with explain_out_of_memory(f"the weights of {path.name}"):
        model = load_weights(path, config, adapter)
    if tokenizer.vocab_size > model.architecture.vocab_size:
        raise ModelFileError(
            f"{path} has {tokenizer.vocab_size} tokens in its tokenizer and {model.architecture.vocab_size} in its "
            "weights: the files are from different models"
        )
    chat = ChatTemplate(tokenizer, tokenizer.chat_template, max_tokens=model.architecture.max_position)
    sources = source_format(path, tokenizer, model) if isinstance(model, SourcedDecoder) else None
    limits = generation_limits(
        path, vocab_size=model.architecture.vocab_size, ends=tokenizer.eos_ids, has_sources=sources is not None
    )
    if others := left_out(path):
        logging.getLogger(__name__).warning(
            "%s asks for %s, which the engine does not apply: outputs may differ from those of transformers' generate",
            path, ", ".join(others),
        )  # fmt: skip
    return Loaded(EngineWorker(Engine(model, config)), tokenizer, chat, Grammars(tokenizer), sources, limits)


def source_format(folder: Path, tokenizer: Tokenizer, model: SourcedDecoder) -> SourceFormat:
    """The tokens around an encoder-decoder's texts. ModelFileError for ids that are not in its vocabulary."""
    before, after = around_texts(folder, tokenizer)
    stated = generation_fields(folder)
    forced = stated.integer("forced_bos_token_id") if stated.has("forced_bos_token_id") else None
    starts = (model.inner.architecture.decoder_start, *(() if forced is None else (forced,)))
    if not all(0 <= token < model.architecture.vocab_size for token in starts):
        raise ModelFileError(f"{folder} begins outputs with the tokens {starts}: expected tokens of its vocabulary")
    return SourceFormat(before, after, starts)


def fingerprint(parts: Sequence[str], config: EngineConfig, *, free_calls: bool, weights: str) -> str:
    """The hash of what determines a model's answers: the digests of its files and adapters, its settings, and our version.

    `weights` names weights that came later, from memory; it is empty for those of the files.
    """
    from firsthand.nn.quant import best_mode  # torch takes a while, and not every install has it

    arithmetic = [
        config.device,
        config.weights,
        config.kv_cache,
        best_mode("cpu"),
        str(find_spec("numba") is not None),
        *(["free calls"] if free_calls else []),
        *([weights] if weights else []),
    ]
    digest = hashlib.sha256("|".join([*parts, *arithmetic, __version__]).encode())
    return f"local:{digest.hexdigest()[:16]}"
