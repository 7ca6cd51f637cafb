"""Induction heads (Olsson et al., 2022): heads that look at what came after the same token before, found on repeated texts.

A text of random tokens that is repeated holds nothing else to predict by. The score of a head is its attention from a token
of the second half to the token after its first occurrence; the null is the same place in texts that are not repeated.
"""

# S texts, T tokens of a half, L layers, H heads

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.interp.activations import attention_weights, run_with_cache
from firsthand.nn.decoder import Decoder
from firsthand.stats.intervals import Interval, mean_interval, unbounded_mean_interval


@dataclass(frozen=True)
class HeadScore:
    """One head's scores, means over texts with their intervals."""

    layer: int
    head: int
    induction: Interval
    """Attention to the token after the first occurrence."""
    null: Interval
    """The same on texts without repetition."""
    previous: Interval
    """Attention to the token before: an induction head needs such a head in an earlier layer."""

    @property
    def is_induction(self) -> bool:
        """True if the score is above 0.3 and its interval above the null's."""
        return self.induction.value > 0.3 and self.induction.low > self.null.high


@dataclass(frozen=True)
class RepetitionGain:
    """Cross-entropy of both halves of repeated random texts, nats a token."""

    first: Interval
    second: Interval


def repeated_texts(
    vocabulary: Sequence[int], *, texts: int, half: int, begin: int | None = None, seed: int = 0
) -> list[list[int]]:
    """Random tokens and the same again, after a begin token if there is one."""
    if half < 2 or texts < 2 or len(vocabulary) < 2:
        raise ConfigError(
            f"halves of {half} tokens, {texts} texts and {len(vocabulary)} tokens came: expected 2 or more of each; an "
            "interval needs several texts"
        )
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(texts):
        chosen = torch.randint(len(vocabulary), (half,), generator=generator).tolist()
        ids = [vocabulary[i] for i in chosen]
        found.append([*([] if begin is None else [begin]), *ids, *ids])
    return found


def head_scores(
    model: Decoder,
    vocabulary: Sequence[int],
    *,
    texts: int = 16,
    half: int = 24,
    begin: int | None = None,
    seed: int = 0,
) -> list[HeadScore]:
    """Scores every head, in order of layers and heads."""
    repeated = repeated_texts(vocabulary, texts=texts, half=half, begin=begin, seed=seed)
    other = repeated_texts(vocabulary, texts=texts, half=half, begin=begin, seed=seed + 1)
    offset = 0 if begin is None else 1
    plain = [one[: offset + half] + two[offset : offset + half] for one, two in zip(repeated, other, strict=True)]
    on_repeated, on_plain = (torch.stack([_looks(model, text, half) for text in each]) for each in (repeated, plain))
    found = []
    for layer in range(on_repeated.shape[1]):
        for head in range(on_repeated.shape[2]):
            ahead, before = on_repeated[:, layer, head].T.tolist()
            null = on_plain[:, layer, head, 0].tolist()
            found.append(HeadScore(layer, head, mean_interval(ahead), mean_interval(null), mean_interval(before)))
    return found


def repetition_gain(model: Decoder, texts: Sequence[Sequence[int]], half: int) -> RepetitionGain:
    """The loss of the second half beside the first's: a model without induction has no gain."""
    first, second = [], []
    for text in texts:
        losses_T = functional.cross_entropy(
            run_with_cache(model, text, ()).logits[:-1], torch.tensor(list(text)[1:]), reduction="none"
        )
        second.append(float(losses_T[-half + 1 :].mean()))
        first.append(float(losses_T[:-half][-half:].mean()))
    return RepetitionGain(unbounded_mean_interval(first), unbounded_mean_interval(second))


def _looks(model: Decoder, text: Sequence[int], half: int) -> Tensor:
    """Mean attention of every head to the token after the first occurrence, and to the token before: L H 2."""
    cache = run_with_cache(model, text, ["blocks.*.attn.q", "blocks.*.attn.k"]).cache
    later_T = torch.arange(len(text) - half + 1, len(text))  # the first token of the second half could only guess
    every_T = torch.arange(2, len(text))
    layers = []
    for layer in range(model.architecture.num_layers):
        weights_HTT = attention_weights(model, cache, layer)
        ahead_H = weights_HTT[:, later_T, later_T - half + 1].mean(1)
        layers.append(torch.stack([ahead_H, weights_HTT[:, every_T, every_T - 1].mean(1)], 1))
    return torch.stack(layers)
