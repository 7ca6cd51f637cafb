"""Streams of policy-gradient algorithms: episodes with an advantage for each answer or token."""

# S episodes, T tokens of one

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.train.episodes import Episode, Graded
from firsthand.train.importance import importance_weights
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.streams import Stream

Floats = NDArray[np.float64]


def policy_streams(
    episodes: Sequence[Episode],
    advantages_S: Sequence[float] | Floats | Sequence[Floats],
    sampled: RolloutSettings,
    *,
    mean_per_answer: bool = False,
    mean_per_branch: bool = False,
    references: Sequence[Floats] | None = None,
    more: Sequence[dict[str, Any]] | None = None,
) -> list[Stream]:
    """One stream for each episode whose sampled tokens all have its advantage, or each its own if arrays are given.

    With `mean_per_answer` each answer counts as one (1 / |o| per token), and is all that its rollout sampled, in all of its
    branches; with `mean_per_branch` each branch does, for losses of whole branches; else each token. The old log-probs are
    those of the distribution that was sampled; with `sampled.correct_to_model` they are the model's own, and the advantages
    are multiplied by the importance weights between the two. Episodes with importance weights of their own have them too.
    `references` are T log-probs of the reference policy, and give `ref_kl` the weights of `pg`. `more` are further fields
    of each stream.
    """
    made = []
    sizes: dict[tuple[str, str], float] = {}
    for episode in episodes:
        sizes[episode.rollout] = sizes.get(episode.rollout, 0.0) + episode.mask.sum()
    for index, episode in enumerate(episodes):
        at, old = episode.sampled, episode.behaviour
        advantage = np.where(episode.mask > 0, advantages_S[index], 0.0)
        if sampled.correct_to_model:
            old = episode.own
            advantage[at] *= importance_weights(
                old[at], episode.behaviour[at], cap=sampled.importance_cap, mode=sampled.importance_mode
            )
        if episode.importance is not None:
            advantage *= episode.importance
        size = sizes[episode.rollout] if mean_per_answer else episode.mask.sum() if mean_per_branch else 1.0
        weight = episode.mask / size
        further: dict[str, Any] = {} if more is None else dict(more[index])
        if references is not None:
            further |= {"reference": references[index], "ref_kl": weight}
        made.append(
            Stream(
                ids=episode.ids,
                pg=weight.astype(np.float32),
                advantage=advantage.astype(np.float32),
                behaviour=old.astype(np.float32),
                group=episode.group,
                source=episode.source,
                adapter=episode.adapter,
                **further,
            )
        )
    return made


def corrected(graded: Graded, trainer: Sequence[Floats], sampled: RolloutSettings) -> Graded:
    """The episodes of a sampler with other arithmetic than the trainer's, corrected by truncated importance sampling.

    `trainer` are the trainer's T log-probs of each episode, under the distribution that was sampled. They take the place of
    the sampler's as the old log-probs, and each token's advantage will be multiplied by exp(trainer - sampler), cut at
    `sampled.importance_cap` (Ionides, 2008). `sampler_gap` is the largest difference of the two.
    """
    episodes, gap = [], 0.0
    for episode, logprobs in zip(graded.episodes, trainer, strict=True):
        at, importance = episode.sampled, np.ones(len(episode.ids))
        new, old = logprobs[at], episode.behaviour[at]
        importance[at] = importance_weights(new, old, cap=sampled.importance_cap, mode=sampled.importance_mode)
        behaviour = episode.behaviour.copy()
        behaviour[at] = new
        gap = max(gap, float(np.abs(new - old).max(initial=0.0)))
        episodes.append(replace(episode, own=behaviour, behaviour=behaviour, importance=importance))
    ratio = np.exp(np.concatenate([(now.behaviour - was.behaviour)[was.sampled]
                                   for now, was in zip(episodes, graded.episodes, strict=True)]))  # fmt: skip
    found = {"sampler_gap": gap, "importance_ratio": float(ratio.mean())}
    found["importance_capped"] = float((ratio > sampled.importance_cap).mean())
    return Graded(tuple(episodes), graded.metrics | found)


def importance_metrics(episodes: Sequence[Episode], cap: float) -> dict[str, float]:
    """The mean importance ratio of the model's own distribution to the sampled one, and the share above the cap."""
    ratio = np.exp(np.concatenate([(each.own - each.behaviour)[each.sampled] for each in episodes]))
    return {"importance_ratio": float(ratio.mean()), "importance_capped": float((ratio > cap).mean())}
