"""Floating-point operations of training and of a forward pass. Imports no torch."""

# N parameters in matrices, D tokens, L layers, T context

from __future__ import annotations

import time

import numpy as np

from firsthand.nn.architecture import Architecture
from firsthand.nn.matrices import num_multiplied_parameters

TRAINING = 3
"""Passes that training costs in units of a forward pass: one forward, two backward."""


def matrix_parameters(a: Architecture) -> int:
    """Parameters that multiply each token: the matrices of all layers and the head, tied or not, without the embedding.

    Of a mixture of experts those of the token's own experts, of the shared one and of the router.
    """
    return num_multiplied_parameters(a)


def simple_training_flops(parameters: float, tokens: float) -> float:
    """6 N D (Kaplan et al., 2020, section 2.1): two for each parameter forward, four backward."""
    return 6.0 * parameters * tokens


def forward_flops_per_token(a: Architecture, context: int, *, causal: bool = False) -> float:
    """2 N for the matrices, and attention over `context` positions: 4 T heads head_dim for each layer (PaLM, appendix B).

    `causal` counts only the positions that a token may see, half of them on average; a layer's window bounds them.
    """
    attention = 0.0
    for window in a.windows:
        seen = context if window is None else min(context, window)
        positions = _mean_seen(context, seen) if causal else float(seen)
        attention += 4 * positions * a.num_heads * a.head_dim
    return 2 * matrix_parameters(a) + attention


def training_flops(a: Architecture, tokens: float, context: int, *, causal: bool = False) -> float:
    """The compute of training on so many tokens in sequences of `context`: three times the forward pass's."""
    return TRAINING * forward_flops_per_token(a, context, causal=causal) * tokens


def measured_flops_per_second(*, size: int = 1024, seconds: float = 1.0) -> float:
    """The speed of float32 matrix products in numpy on this machine, all its threads: the best of about `seconds`."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    a @ b  # the first product starts threads
    best, end = 0.0, time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        a @ b
        now = time.perf_counter()
        best = max(best, 2 * size**3 / (now - began))
        if now >= end:
            return best


def _mean_seen(context: int, window: int) -> float:
    """The mean number of positions that a token of a sequence sees, its own included, at most `window`."""
    return (window * (window + 1) / 2 + (context - window) * window) / context
