"""From logits to tokens: pure functions, one row at a time, so that a choice never depends on its neighbours in a batch.

The order is penalties, temperature, top-k, top-p, min-p, as in Hugging Face transformers. Randomness is a hash of
(seed, sample, position), never a generator's state, so the same request draws the same numbers whatever happens around it.
The vocabulary is never sorted whole unless top-p needs it: a prefix of the most probable tokens nearly always reaches p.
"""

# M rows, V vocabulary, C candidates

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from firsthand.engine.decoding.constraint import ids_of
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import LogitRow

PREFIX = 64


@dataclass(frozen=True)
class Choice:
    """A token, its log-prob under the unmodified distribution, and whether it was the most probable one there."""

    token: int
    logprob: float
    is_greedy: bool


def uniform(seed: int, index: int, position: int) -> float:
    """A number in [0, 1) that these three decide: 53 bits of BLAKE2b."""
    digest = hashlib.blake2b(f"{seed}/{index}/{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def penalise(logits_V: Tensor, sampling: Sampling, prompt: Iterable[int], counts: Counter[int]) -> Tensor:
    """The logits with repetition, presence and frequency penalties taken off and biases added; the input stays as it is.

    `counts` says how often each token is in the answer. Repetition looks at the prompt too.
    """
    if is_plain(sampling):
        return logits_V
    logits_V = logits_V.clone()
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted(counts.keys() | set(prompt)), device=logits_V.device)
        old = logits_V[seen]
        logits_V[seen] = torch.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
    if counts:
        answer = torch.tensor(list(counts.keys()), device=logits_V.device)
        times = torch.tensor(list(counts.values()), device=logits_V.device)
        logits_V[answer] -= sampling.presence_penalty + sampling.frequency_penalty * times
    if sampling.logit_bias:
        ids, biases = zip(*sampling.logit_bias, strict=True)
        logits_V[torch.tensor(ids, device=logits_V.device)] += torch.tensor(
            biases, dtype=logits_V.dtype, device=logits_V.device
        )
    return logits_V


def is_plain(sampling: Sampling) -> bool:
    """Whether logits are taken as the model gives them: no penalty, no bias."""
    penalised = sampling.repetition_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
    return not penalised and not sampling.logit_bias


def candidates(logits_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn and their weights, not normalised: C ids and C float64.

    Takes penalised logits and a temperature above 0. Without cuts, all tokens in the order of their ids, else the most
    probable ones first.
    """
    if sampling.top_k:
        logits_C, ids_C = logits_V.topk(min(sampling.top_k, logits_V.numel()))
        return _cut(ids_C, _weights(logits_C, sampling), None, sampling)
    weights_V = _weights(logits_V, sampling)
    if sampling.top_p == 1:
        if sampling.min_p == 0:
            return torch.arange(weights_V.numel(), device=weights_V.device), weights_V
        ids_C = (weights_V >= sampling.min_p).nonzero().squeeze(1)
        return ids_C, weights_V[ids_C]
    size, whole = min(PREFIX, weights_V.numel()), float(weights_V.sum())
    while True:
        ids_C = logits_V.topk(size).indices
        weights_C = weights_V[ids_C]
        if size == weights_V.numel() or float(weights_C.sum()) >= sampling.top_p * whole:
            return _cut(ids_C, weights_C, whole, sampling)
        size = min(size * 8, weights_V.numel())


def _weights(logits: Tensor, sampling: Sampling) -> Tensor:
    scaled = logits.double() / sampling.temperature
    return (scaled - scaled.max()).exp()


def _cut(ids_C: Tensor, weights_C: Tensor, whole: float | None, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Cut by top-p of the whole (of what is here, after top-k), then by min-p; the largest weight is 1."""
    before_C = weights_C.cumsum(0) - weights_C  # a token stays if those before it do not reach p yet
    keep = weights_C >= sampling.min_p
    if sampling.top_p < 1:
        keep &= before_C < sampling.top_p * (float(weights_C.sum()) if whole is None else whole)
        keep[0] = True
    return ids_C[keep], weights_C[keep]


def draw(ids_C: Tensor, weights_C: Tensor, number: float) -> int:
    """The candidate at which the cumulative weight passes `number` (in [0, 1)) of the whole."""
    cumulative_C = weights_C.cumsum(0)
    place = int(torch.searchsorted(cumulative_C, float(cumulative_C[-1]) * number, right=True))
    return int(ids_C[min(place, ids_C.numel() - 1)])


def choose(
    logits_V: Tensor,
    sampling: Sampling,
    *,
    number: float,
    prompt: Iterable[int],
    counts: Counter[int],
    allowed: np.ndarray | None = None,
) -> int:
    """The next token; `number` in [0, 1) is the only randomness.

    With `allowed`, a bit for each token in words of 32, the others are taken out before temperature and cuts, as if they
    did not exist.
    """
    logits_V = penalise(logits_V, sampling, prompt, counts)
    if allowed is None:
        return _choose(logits_V, sampling, number)
    if can_compile(logits_V):
        from firsthand.engine.decoding import mask_kernel  # importing numba takes a while

        values_C = torch.from_numpy(mask_kernel.take(logits_V.numpy(), allowed))
        return int(mask_kernel.nth(allowed, _choose(values_C, sampling, number)))
    ids_C = torch.from_numpy(ids_of(allowed)).to(logits_V.device)
    return int(ids_C[_choose(logits_V[ids_C], sampling, number)])


def _choose(logits_V: Tensor, sampling: Sampling, number: float) -> int:
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    if sampling.top_k == 0 and can_compile(logits_V):
        from firsthand.kernels.step import token_sampling  # importing numba takes a while

        values = logits_V.numpy()
        if sampling.top_p == 1:
            return int(token_sampling.draw(values, sampling.temperature, sampling.min_p, number))
        return int(token_sampling.draw_nucleus(values, sampling.temperature, sampling.top_p, sampling.min_p, number))
    return draw(*candidates(logits_V, sampling), number)


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


def can_compile(logits_V: Tensor) -> bool:
    """Whether the compiled draw takes these logits; where a number falls between two tokens the two may differ."""
    is_plain = logits_V.device.type == "cpu" and logits_V.dtype == torch.float32 and logits_V.is_contiguous()
    return is_plain and _has_numba()


def most_probable(row: LogitRow, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` most probable tokens with their log-probs, most probable first."""
    if count == 0:
        return ()
    ids = row.values.topk(min(count, row.values.numel())).indices.tolist()
    return tuple((token, row.logprob(token)) for token in ids)


def is_usable(logprob: float) -> bool:
    """Whether a row's log-prob shows that its logits were numbers (one NaN or +inf spoils the whole row)."""
    return not math.isnan(logprob)
