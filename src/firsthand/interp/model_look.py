"""Gathers what `firsthand models look` shows: attention weights of every head, their entropies, and the logit lens."""

# L layers, H heads, T tokens

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from firsthand.errors import ConfigError
from firsthand.interp.activations import attention_weights, run_with_cache
from firsthand.interp.lenses.logit_lens import logit_lens
from firsthand.nn.decoder import Decoder
from firsthand.system.plurals import count_of
from firsthand.tokens.tokenizer import Tokenizer

MAX_TOKENS = 128


@dataclass(frozen=True)
class HeadLook:
    """One head on one text."""

    layer: int
    head: int
    entropy: float
    """Mean entropy of a token's weights, nats."""
    to_first: float
    """Mean weight on the first token, from all but itself."""
    to_previous: float
    """Mean weight on the token before."""
    weights: str
    """T T, row by row, a byte each (255 is 1), in base64."""


@dataclass(frozen=True)
class LensCell:
    """The most probable next tokens after one token, read at one layer."""

    top: list[tuple[str, float]]
    """Tokens and probabilities, most probable first."""
    entropy: float


@dataclass(frozen=True)
class ModelLook:
    """A model on one text."""

    tokens: list[str]
    heads: list[HeadLook]
    lens: list[list[LensCell]]
    """L T."""
    model_layers: int

    @property
    def layers(self) -> list[list[HeadLook]]:
        """The heads by layer."""
        return [[each for each in self.heads if each.layer == layer] for layer in range(self.model_layers)]


def look_at(model: Decoder, tokenizer: Tokenizer, ids: Sequence[int], *, top: int = 5) -> ModelLook:
    """Runs one text. ConfigError for one of more than 128 tokens, whose page nobody could read, or of fewer than 2."""
    if not 2 <= len(ids) <= MAX_TOKENS:
        raise ConfigError(
            f"the text has {count_of(len(ids), 'token')}: expected 2 to {MAX_TOKENS}, which a page can show"
        )
    if model.architecture.latent is not None:
        raise ConfigError(f"{model.architecture.family} mixes keys in latents: its heads have no sites to look at")
    cache = run_with_cache(model, ids, ["blocks.*.attn.q", "blocks.*.attn.k"]).cache
    heads = []
    for layer in range(model.architecture.num_layers):
        weights_HTT = attention_weights(model, cache, layer)
        entropy_H = -(weights_HTT * weights_HTT.clamp_min(1e-12).log()).sum(-1).mean(-1)
        to_first_H = weights_HTT[:, 1:, 0].mean(1)
        to_previous_H = weights_HTT.diagonal(offset=-1, dim1=1, dim2=2).mean(1)
        numbers = (weights_HTT.clamp(0, 1) * 255).round().to(torch.uint8)
        for head in range(len(weights_HTT)):
            packed = base64.b64encode(numbers[head].numpy().tobytes()).decode()
            facts = (float(entropy_H[head]), float(to_first_H[head]), float(to_previous_H[head]))
            heads.append(HeadLook(layer, head, *facts, packed))
    reading = logit_lens(model, ids)
    best, chance = reading.top(min(top, model.architecture.vocab_size))
    entropy = reading.entropy
    words: dict[int, str] = {}

    def word(id: int) -> str:
        if id not in words:
            words[id] = tokenizer.decode([id], skip_special=False)
        return words[id]

    lens = [
        [
            LensCell(
                [(word(id), float(p)) for id, p in zip(best[layer, t].tolist(), chance[layer, t].tolist(), strict=True)],
                float(entropy[layer, t]),
            )
            for t in range(len(ids))
        ]
        for layer in range(len(best))
    ]  # fmt: skip
    return ModelLook([word(id) for id in ids], heads, lens, model.architecture.num_layers)
