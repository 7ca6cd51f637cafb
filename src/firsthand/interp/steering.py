"""Steering vectors: the mean difference of two sets of texts is added to the residual stream, with its side effects.

Effect and cost stand beside those of a random vector of the same length: any push changes a model.
"""

# N tokens, D hidden

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from firsthand.errors import DataError
from firsthand.interp.activations import read_activations, run_with_cache, run_with_edits
from firsthand.interp.saes.sae_evaluation import cross_entropy
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Tap
from firsthand.stats.intervals import Interval, mean_interval


@dataclass(frozen=True)
class SteeringRow:
    """One strength of a vector, and of a random one of the same length."""

    strength: float
    effect: Interval
    """Change of the metric on the prompts."""
    random_effect: Interval
    cost: Interval
    """Change of cross-entropy on unrelated texts, nats a token."""
    random_cost: Interval


def steering_vector(
    model: Decoder, site: str, towards: Sequence[Sequence[int]], away: Sequence[Sequence[int]]
) -> Tensor:
    """The mean activation after `towards` texts less that after `away` texts, at their last tokens: D.

    DataError if either set is empty, or if both give the same.
    """
    if not towards or not away:
        raise DataError(
            f"{len(towards)} texts to steer towards and {len(away)} away from came: give one or more of each"
        )
    means = []
    for texts in (towards, away):
        cache = read_activations(model, texts, site)
        means.append(cache[site][cache.last].mean(0))
    vector_D = means[0] - means[1]
    if float(vector_D.norm()) < 1e-6:
        raise DataError("both sets of texts have the same mean activation: they differ in nothing that the site shows")
    return vector_D


def adding(vector_D: Tensor, strength: float = 1.0) -> Tap:
    """A tap that adds a vector to every token."""
    return lambda values: values + strength * vector_D.to(values.dtype)


def steering_study(
    model: Decoder, site: str, vector_D: Tensor, prompts: Sequence[Sequence[int]], metric: Callable[[Tensor], float],
    unrelated: Sequence[Sequence[int]], *, strengths: Sequence[float] = (0.5, 1.0, 2.0), seed: int = 0,
) -> list[SteeringRow]:  # fmt: skip
    """The effect on `metric(logits N V)` of the prompts and the cost on unrelated texts, at each strength."""
    noise_D = torch.randn(vector_D.shape, generator=torch.Generator().manual_seed(seed))
    random_D = noise_D / noise_D.norm() * vector_D.norm()
    plain = [metric(run_with_cache(model, text, ()).logits) for text in prompts]
    losses = [cross_entropy(run_with_cache(model, text, ()).logits, text) for text in unrelated]
    rows = []
    for strength in strengths:
        found = []
        for vector in (vector_D, random_D):
            edits = {site: adding(vector, strength)}
            changes = [
                metric(run_with_edits(model, text, edits)) - before for text, before in zip(prompts, plain, strict=True)
            ]
            costs = [
                cross_entropy(run_with_edits(model, text, edits), text) - before
                for text, before in zip(unrelated, losses, strict=True)
            ]
            found += [mean_interval(changes), mean_interval(costs)]
        effect, cost, random_effect, random_cost = found
        rows.append(SteeringRow(strength, effect, random_effect, cost, random_cost))
    return rows
