"""Importance weights of tokens that another distribution sampled than the one that is trained."""

# T tokens of one sequence

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ImportanceMode = Literal["token", "sequence", "token_mask", "sequence_mask"]


def importance_weights(
    own_T: Floats, behaviour_T: Floats, *, cap: float = 3.0, mode: ImportanceMode = "token"
) -> Floats:
    """The ratio of the trained distribution to the sampled one, at most `cap`: T.

    exp(own - behaviour) of each token, or their product over the sequence for each of its tokens. The modes with `mask`
    give 0 where the ratio is above the cap instead of the cap. The cap trades variance for a bias: Ionides (2008),
    "Truncated importance sampling"; TRL's `token_truncate`, `sequence_truncate`, `token_mask` and `sequence_mask`. Tokens
    that the sampled distribution had cut off never come, and no weight replaces them.
    """
    log_ratio = own_T - behaviour_T
    if mode.startswith("sequence"):
        log_ratio = np.full_like(log_ratio, log_ratio.sum())
    ratio = np.exp(np.minimum(log_ratio, 700.0))
    return np.where(ratio > cap, 0.0, ratio) if mode.endswith("mask") else np.minimum(ratio, cap)
