"""The probability of each retrieved document, from the scores of a retriever."""

from __future__ import annotations

import math
from collections.abc import Sequence

from firsthand.errors import ConfigError


def document_logprobs(scores: Sequence[float], *, scale: float = 1.0) -> list[float]:
    """Log p(z|x) of each document: log-softmax over the scores of the documents that were found (Lewis et al., 2020, §2.2).

    The paper's scores are inner products of a trained encoder, whose spread decides how peaked the distribution is. Cosines
    lie between -1 and 1, so that `scale` 1 leaves it almost flat; sentence-transformers trains with 20.
    """
    if not scores:
        raise ConfigError("there is no document to marginalise over: retrieve at least one")
    if not all(map(math.isfinite, scores)) or not math.isfinite(scale):
        raise ConfigError(f"scores {list(scores)[:5]} times {scale} are not finite: a probability needs numbers")
    scaled = [scale * score for score in scores]
    return log_normalised(scaled)


def log_normalised(logprobs: Sequence[float]) -> list[float]:
    """The logs of non-negative weights, less the log of their sum."""
    whole = log_sum(logprobs)
    return [each - whole for each in logprobs]


def log_sum(logs: Sequence[float]) -> float:
    """log(sum(exp(x))) without overflow; -inf for no numbers, or none above -inf."""
    top = max(logs, default=-math.inf)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(each - top) for each in logs))
