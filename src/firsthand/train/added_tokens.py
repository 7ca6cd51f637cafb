"""Adds special tokens to a model and its tokenizer, such as the reflection tokens of Self-RAG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from firsthand.errors import ConfigError
from firsthand.nn.decoder import Decoder
from firsthand.tokens.tokenizer import Tokenizer


def with_added_tokens(model: Decoder, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Decoder, Tokenizer]:
    """The model and tokenizer in which each of `texts` is one special token; those that are stay as they are.

    New tokens follow the known ones. Their rows of the embedding, and of an output layer that is not tied to it, are the
    mean of all known rows, so that at first they are neither likely nor unlikely (Hewitt, 2021). ConfigError for a model
    whose embedding is in blocks of a GGUF file.
    """
    known = tokenizer.vocab_size
    missing = [text for text in texts if tokenizer.token_id(text) is None]
    if not missing:
        return model, tokenizer
    settings = tokenizer.settings()
    description = settings["description"]
    added = [
        {
            "id": known + place, "content": text, "special": True, "lstrip": False, "rstrip": False,
            "single_word": False, "normalized": False,
        }
        for place, text in enumerate(missing)
    ]  # fmt: skip
    description["added_tokens"] = [*description.get("added_tokens", ()), *added]
    grown = Tokenizer(
        **settings, chat_template=tokenizer.chat_template, tool_template=tokenizer.tool_template,
        recommended=tokenizer.recommended,
    )  # fmt: skip
    if grown.vocab_size <= model.architecture.vocab_size:
        _fill(model.embed, known, known + len(missing))
        if isinstance(model.lm_head, nn.Linear) and model.lm_head.weight is not model.embed.weight:
            _fill(model.lm_head, known, known + len(missing))
        return model, grown
    larger = Decoder(replace(model.architecture, vocab_size=grown.vocab_size)).to(model.embed.weight.dtype)
    state = model.state_dict()
    for name, rows in larger.state_dict().items():
        if name not in state:
            raise ConfigError(
                f"the model has no {name}: tokens can be added to weights in floats, not to blocks of GGUF"
            )
        if rows.shape != state[name].shape:
            state[name] = torch.cat(
                [state[name], state[name].new_zeros(rows.shape[0] - len(state[name]), rows.shape[1])]
            )
    larger.load_state_dict(state)
    _fill(larger.embed, known, grown.vocab_size)
    if isinstance(larger.lm_head, nn.Linear) and larger.lm_head.weight is not larger.embed.weight:
        _fill(larger.lm_head, known, grown.vocab_size)
    return larger.to(model.embed.weight.device), grown


def _fill(layer: nn.Module, first: int, end: int) -> None:
    """Set new rows to the mean of those before them."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        weight[first:end] = weight[:first].float().mean(0).to(weight.dtype)
