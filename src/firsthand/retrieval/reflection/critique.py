"""Reflections of Self-RAG as numbers: when to retrieve, and how good a segment is (Asai et al., 2023, §3.3 and appendix A).

Every number is made of probabilities, each group normalised by its own sum, so that log-probs are exponentiated first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from firsthand.errors import ConfigError

RETRIEVAL, NO_RETRIEVAL, CONTINUE_EVIDENCE = "[Retrieval]", "[No Retrieval]", "[Continue to Use Evidence]"
RELEVANT, IRRELEVANT = "[Relevant]", "[Irrelevant]"
FULLY, PARTIALLY, NO_SUPPORT = "[Fully supported]", "[Partially supported]", "[No support / Contradictory]"
UTILITIES = ("[Utility:1]", "[Utility:2]", "[Utility:3]", "[Utility:4]", "[Utility:5]")
PARAGRAPH, END_PARAGRAPH = "<paragraph>", "</paragraph>"
RETRIEVAL_WORTH: Mapping[str, float] = {RETRIEVAL: 1.0, CONTINUE_EVIDENCE: 1.0, NO_RETRIEVAL: 0.0}
RELEVANCE_WORTH: Mapping[str, float] = {RELEVANT: 1.0, IRRELEVANT: 0.0}
SUPPORT_WORTH: Mapping[str, float] = {FULLY: 1.0, PARTIALLY: 0.5, NO_SUPPORT: 0.0}
UTILITY_WORTH: Mapping[str, float] = dict(zip(UTILITIES, (-1.0, -0.5, 0.0, 0.5, 1.0), strict=True))
MARKS = (*RETRIEVAL_WORTH, *RELEVANCE_WORTH, *SUPPORT_WORTH, *UTILITY_WORTH)
"""The reflection tokens of the paper's models."""
Combine = Literal["mean", "product"]


@dataclass(frozen=True)
class CritiqueWeights:
    """The weights of the reflections in a segment's score; the defaults are the paper's."""

    relevance: float = 1.0
    support: float = 1.0
    utility: float = 0.5


@dataclass(frozen=True)
class Critique:
    """The reflections on one segment."""

    relevance: float | None = None
    """From 0 to 1; None for a segment without a passage."""
    support: float | None = None
    """From 0 to 1; None for a segment without a passage."""
    utility: float = 0.0
    """From -1 to 1."""


def expected_worth(logprobs: Mapping[str, float], worth: Mapping[str, float]) -> float:
    """sum_i worth_i p_i / sum_i p_i over the tokens of one group; 0 if none of them has a probability.

    A token that is missing has probability 0, whatever its log-prob would be.
    """
    known = {name: logprobs[name] for name in worth if logprobs.get(name, -math.inf) > -math.inf}
    if not known:
        return 0.0
    top = max(known.values())
    shares = {name: math.exp(logprob - top) for name, logprob in known.items()}
    return sum(worth[name] * share for name, share in shares.items()) / sum(shares.values())


def retrieval_probability(logprobs: Mapping[str, float]) -> float:
    """p(retrieve) / (p(retrieve) + p(do not)).

    To continue with the evidence counts as retrieving, above and below the line.
    """
    return expected_worth(logprobs, RETRIEVAL_WORTH)


def segment_score(probability: float, critique: Critique, weights: CritiqueWeights) -> float:
    """f = p(y|x,d,y_<t) + w_rel s_rel + w_sup s_sup + w_use s_use.

    `probability` is the geometric mean of the segment's token probabilities: the product would be 0 for any sentence.
    """
    relevance = 0.0 if critique.relevance is None else critique.relevance
    support = 0.0 if critique.support is None else critique.support
    return probability + weights.relevance * relevance + weights.support * support + weights.utility * critique.utility


def path_score(scores: tuple[float, ...], combine: Combine) -> float:
    """The score of an answer from those of its segments: their mean, or their product as in the paper's code.

    A product is not a ranking once a score is negative: two bad segments would make a good answer.
    """
    if not scores:
        return 0.0
    return math.fsum(scores) / len(scores) if combine == "mean" else math.prod(scores)


def check_weights(weights: CritiqueWeights) -> None:
    """ConfigError for weights that are no numbers."""
    if not all(map(math.isfinite, vars(weights).values())):
        raise ConfigError(f"the weights {vars(weights)} are not finite: give numbers, such as 1, 1 and 0.5")
