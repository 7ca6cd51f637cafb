"""Causal scrubbing of the induction circuit: a hypothesis is tested by resampling all that it calls irrelevant.

Chan et al., 2022. The hypothesis about a two-layer attention-only model: an induction head's key at a position depends on
the token before alone, its value and query on the token at the position alone, and all else does not matter. Each of these
is replaced by the same of random texts that agree in just that token. What is left of the gain in loss is what it explains.
"""

# S texts, T tokens, N packed tokens, H heads, K head_dim, D hidden

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.interp.activations import read_activations, run_with_cache
from firsthand.interp.circuits.patching import replacing
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Tap
from firsthand.stats.intervals import Interval, unbounded_mean_interval


@dataclass(frozen=True)
class Scrubbed:
    """Losses on second halves, nats a token, each a mean over texts, and the share of the gain that was kept."""

    model: Interval
    """Of the model as it is."""
    hypothesis: Interval
    """With all that the hypothesis calls irrelevant resampled."""
    wrong_key: Interval
    """The control: keys keep the token at their position in place of the one before."""
    ablated: Interval
    """With every head's output resampled."""

    def kept(self, found: Interval) -> float:
        """(ablated - found) / (ablated - model)."""
        return (self.ablated.value - found.value) / (self.ablated.value - self.model.value)


def scrub_induction(
    model: Decoder, texts: Sequence[Sequence[int]], heads: Sequence[int], *, half: int, vocabulary: int, seed: int = 0
) -> Scrubbed:
    """Scrubs the second layer's `heads`. ConfigError for a model of other than two layers, or heads it does not have."""
    a = model.architecture
    if a.num_layers != 2 or not heads or not all(0 <= head < a.num_heads for head in heads):
        raise ConfigError(
            f"{a.num_layers} layers and the heads {list(heads)} came: the hypothesis is about heads 0 to {a.num_heads - 1} "
            "of the second of two layers"
        )
    generator = torch.Generator().manual_seed(seed)
    losses: dict[str, list[float]] = {"model": [], "hypothesis": [], "wrong_key": [], "ablated": []}
    for text in texts:
        here = _kept(model, text, 0, vocabulary, generator)
        before = _kept(model, text, -1, vocabulary, generator)
        nothing = _kept(model, text, None, vocabulary, generator)
        losses["model"].append(_loss(model, text, {}, half))
        losses["hypothesis"].append(_loss(model, text, _edits(here, before, nothing, heads), half))
        losses["wrong_key"].append(_loss(model, text, _edits(here, here, nothing, heads), half))
        losses["ablated"].append(_loss(model, text, _edits(here, before, nothing, []), half))
    return Scrubbed(**{name: unbounded_mean_interval(values) for name, values in losses.items()})


def _kept(
    model: Decoder, text: Sequence[int], offset: int | None, vocabulary: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Activations of each position in a random text of its own, which agrees with `text` in one token at most.

    That is the token at the position plus `offset`; with None, not one. The first token is the begin token of all.
    """
    length = len(text)
    texts_TT = torch.randint(vocabulary, (length, length), generator=generator)
    texts_TT[:, 0] = text[0]
    if offset is not None:
        rows = torch.arange(max(0, -offset), length)
        texts_TT[rows, rows + offset] = torch.tensor(text)[rows + offset]
    sites = ["blocks.0.resid.post", "blocks.1.attn.q", "blocks.1.attn.k", "blocks.1.attn.v", "blocks.1.attn.mixed"]
    cache = read_activations(model, texts_TT, sites)
    own = torch.arange(length) * (length + 1)  # the diagonal: position i of the text for position i
    return {site: cache[site][own] for site in sites}


def _edits(
    here: dict[str, Tensor], before: dict[str, Tensor], nothing: dict[str, Tensor], heads: Sequence[int]
) -> dict[str, Tap]:
    """Taps that put the resampled values in place: the circuit's heads by the hypothesis, the rest without any."""
    kept: dict[str, Tensor] = {}

    def other_heads(values: Tensor) -> Tensor:
        mixed = nothing["blocks.1.attn.mixed"].clone()
        mixed[:, list(heads)] = values[:, list(heads)]
        return mixed

    def keep_output(values: Tensor) -> None:
        kept["out"] = values.clone()

    return {
        "blocks.1.attn.q": replacing(here["blocks.1.attn.q"]),
        "blocks.1.attn.k": replacing(before["blocks.1.attn.k"]),
        "blocks.1.attn.v": replacing(here["blocks.1.attn.v"]),
        "blocks.1.attn.mixed": other_heads,
        "blocks.1.attn.out": keep_output,
        # the direct path keeps the token at the position alone
        "blocks.1.resid.mid": lambda values: here["blocks.0.resid.post"] + kept["out"],
    }


def _loss(model: Decoder, text: Sequence[int], edits: dict[str, Tap], half: int) -> float:
    logits_NV = run_with_cache(model, text, (), edits=edits).logits
    losses_T = functional.cross_entropy(logits_NV[:-1], torch.tensor(list(text)[1:]), reduction="none")
    return float(losses_T[-half + 1 :].mean())
