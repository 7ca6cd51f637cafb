"""Streams of policy-gradient algorithms: episodes with an advantage for each answer or token."""

# S episodes, T tokens of one

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.train.episodes import Episode
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
    references: Sequence[Floats] | None = None,
    more: Sequence[dict[str, Any]] | None = None,
) -> list[Stream]:
    """One stream for each episode whose sampled tokens all have its advantage, or each its own if arrays are given.

    With `mean_per_answer` each answer counts as one (1 / |o| per token), else each token. The old log-probs are those of the
    distribution that was sampled; with `sampled.correct_to_model` they are the model's own, and the advantages are
    multiplied by the importance weights between the two. `references` are T log-probs of the reference policy, and give
    `ref_kl` the weights of `pg`. `more` are further fields of each stream.
    """
    made = []
    for index, episode in enumerate(episodes):
        at, old = episode.sampled, episode.behaviour
        advantage = np.where(episode.mask > 0, advantages_S[index], 0.0)
        if sampled.correct_to_model:
            old = episode.own
            advantage[at] *= importance_weights(
                old[at], episode.behaviour[at], cap=sampled.importance_cap, mode=sampled.importance_mode
            )
        weight = episode.mask / episode.mask.sum() if mean_per_answer else episode.mask
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
                **further,
            )
        )
    return made


def importance_metrics(episodes: Sequence[Episode], cap: float) -> dict[str, float]:
    """The mean importance ratio of the model's own distribution to the sampled one, and the share above the cap."""
    ratio = np.exp(np.concatenate([(each.own - each.behaviour)[each.sampled] for each in episodes]))
    return {"importance_ratio": float(ratio.mean()), "importance_capped": float((ratio > cap).mean())}
