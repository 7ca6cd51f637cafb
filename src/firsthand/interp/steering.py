"""Steering vectors: the mean difference of two sets of texts, or of pairs of answers, is added to the residual stream.

Effect and cost stand beside those of a random vector of the same length: any push changes a model.
"""

# N tokens, D hidden

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from firsthand.errors import DataError
from firsthand.interp.activations import read_activations, run_with_cache, run_with_edits
from firsthand.interp.saes.sae_evaluation import cross_entropy
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Tap
from firsthand.nn.steering_vector import SteeringVector, write_steering
from firsthand.stats.intervals import Interval, unbounded_mean_interval

Effect = Callable[[Mapping[str, Tap]], float]
"""A number that edits change."""


class Answered(NamedTuple):
    """A prompt with an answer."""

    ids: Sequence[int]
    start: int
    """Index of the first token of the answer, 1 or more."""


class Pair(NamedTuple):
    """Two answers to one prompt."""

    chosen: Answered
    rejected: Answered


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


def contrast_vector(model: Decoder, site: str, pairs: Sequence[Pair]) -> Tensor:
    """The mean over pairs of the activation over the chosen answer's tokens less that over the rejected one's: D.

    Contrastive activation addition (Rimsky et al., 2024, arXiv:2312.06681), with all of an answer's tokens where the paper
    takes its letter. DataError if there is no pair, or if nothing differs.
    """
    if not pairs:
        raise DataError("no pair came: give one or more, each with a chosen and a rejected answer")
    differences = []
    for pair in pairs:
        chosen, rejected = (read_activations(model, each.ids, site)[site][each.start :].mean(0) for each in pair)
        differences.append(chosen - rejected)
    vector_D = torch.stack(differences).mean(0)
    if float(vector_D.norm()) < 1e-6:
        raise DataError(
            "chosen and rejected answers have the same mean activation: they differ in nothing that the site shows"
        )
    return vector_D


def save_vector(vector_D: Tensor, site: str, file: Path) -> None:
    """Writes the file; `+steer:FILE@STRENGTH` after a model's name adds the vector."""
    write_steering(SteeringVector(site, vector_D, name=file.stem), file)


def adding(vector_D: Tensor, strength: float = 1.0) -> Tap:
    """A tap that adds a vector to every token."""
    return lambda values: values + strength * vector_D.to(values.dtype)


def choice_effect(model: Decoder, prompt: Sequence[int], metric: Callable[[Tensor], float]) -> Effect:
    """The metric of a prompt's scores of every next token (N V), under edits."""
    return lambda edits: metric(run_with_edits(model, prompt, edits))


def margin_effect(model: Decoder, pair: Pair) -> Effect:
    """log p(chosen) - log p(rejected) of a pair's answers, under edits."""

    def margin(edits: Mapping[str, Tap]) -> float:
        chosen, rejected = (_logprob(run_with_edits(model, each.ids, edits), each) for each in pair)
        return chosen - rejected

    return margin


def _logprob(logits_NV: Tensor, answer: Answered) -> float:
    rows = logits_NV[answer.start - 1 : -1].log_softmax(-1)
    return float(rows[range(len(rows)), answer.ids[answer.start :]].sum())


def steering_study(
    model: Decoder, site: str, vector_D: Tensor, effects: Sequence[Effect], unrelated: Sequence[Sequence[int]],
    *, strengths: Sequence[float] = (0.5, 1.0, 2.0), seed: int = 0,
) -> list[SteeringRow]:  # fmt: skip
    """The change of each effect and the cost on unrelated texts, at each strength."""
    noise_D = torch.randn(vector_D.shape, generator=torch.Generator().manual_seed(seed))
    random_D = noise_D / noise_D.norm() * vector_D.norm()
    plain = [effect({}) for effect in effects]
    losses = [cross_entropy(run_with_cache(model, text, ()).logits, text) for text in unrelated]
    rows = []
    for strength in strengths:
        found = []
        for vector in (vector_D, random_D):
            edits = {site: adding(vector, strength)}
            changes = [effect(edits) - before for effect, before in zip(effects, plain, strict=True)]
            costs = [
                cross_entropy(run_with_edits(model, text, edits), text) - before
                for text, before in zip(unrelated, losses, strict=True)
            ]
            found += [unbounded_mean_interval(changes), unbounded_mean_interval(costs)]
        moved, cost, random_effect, random_cost = found
        rows.append(SteeringRow(strength, moved, random_effect, cost, random_cost))
    return rows
