"""Samples tokens from logits: pure functions over one row at a time, so that a draw is batch-invariant.

The order is penalties, temperature, top-k, top-p, min-p, as in Hugging Face transformers. Randomness is a hash of
(seed, sample, position), never a generator's state, so the same request gets the same random numbers in any batch.
The vocabulary is sorted whole only where top-p needs it: a prefix of the most probable tokens nearly always reaches p.
Each draw also gives its log-prob under the distribution it came from, whose normaliser the draw needs anyway.
"""

# M rows, V vocabulary, C candidates

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from firsthand.engine.decoding.constraint import ids_of
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import LogitRow

PREFIX = 64


class TokenDraw(NamedTuple):
    """A token and the log-prob it was drawn with."""

    token: int
    logprob: float
    """Natural log, after penalties, biases, temperature, cuts and constraints; 0 for the most probable token at
    temperature 0, which is drawn with certainty."""


def uniform(seed: int, index: int, position: int) -> float:
    """A number in [0, 1), a function of the three arguments alone: 53 bits of BLAKE2b."""
    digest = hashlib.blake2b(f"{seed}/{index}/{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def penalise(logits_V: Tensor, sampling: Sampling, prompt: Iterable[int], counts: Counter[int]) -> Tensor:
    """The logits after repetition, presence and frequency penalties and biases; the input is not changed.

    `counts` is how often each token is in the answer. The repetition penalty looks at the prompt too.
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
    """Returns whether logits are used as the model gives them: no penalty, no bias."""
    penalised = sampling.repetition_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
    return not penalised and not sampling.logit_bias


def is_on_policy(sampling: Sampling) -> bool:
    """Returns whether tokens are drawn from the model's own distribution: temperature 1, no cuts, no penalty, no bias."""
    has_cuts = sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0
    return sampling.temperature == 1 and not has_cuts and is_plain(sampling)


def candidates(logits_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn and their unnormalised weights: C ids and C float64.

    Takes penalised logits and a temperature above 0. Without cuts, tokens are in the order of their ids, else the most
    probable ones come first.
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
    below = logits.double() - logits.max()  # before the division: a tiny temperature makes infinities of both
    return (below / sampling.temperature).exp()


def _cut(ids_C: Tensor, weights_C: Tensor, whole: float | None, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Cut by top-p of `whole` (None: the sum of these weights, after top-k), then by min-p; the largest weight is 1."""
    before_C = weights_C.cumsum(0) - weights_C  # a token stays if those before it do not reach p yet
    keep = weights_C >= sampling.min_p
    if sampling.top_p < 1:
        keep &= before_C < sampling.top_p * (float(weights_C.sum()) if whole is None else whole)
        keep[0] = True
    return ids_C[keep], weights_C[keep]


def draw(ids_C: Tensor, weights_C: Tensor, number: float) -> TokenDraw:
    """The candidate at which the cumulative weight passes `number` (in [0, 1)) of the whole.

    There is none where logits were not numbers and cuts compared them: the log-prob is NaN then.
    """
    if not ids_C.numel():
        return TokenDraw(0, math.nan)
    cumulative_C = weights_C.cumsum(0)
    whole = float(cumulative_C[-1])
    place = min(int(torch.searchsorted(cumulative_C, whole * number, right=True)), ids_C.numel() - 1)
    return TokenDraw(int(ids_C[place]), _log(float(weights_C[place])) - _log(whole))


def _log(weight: float) -> float:
    """The natural log of a weight; NaN, which ends the request, where logits were not numbers."""
    return math.log(weight) if weight > 0 else math.nan


def choose(
    logits_V: Tensor,
    sampling: Sampling,
    *,
    number: float,
    prompt: Iterable[int],
    counts: Counter[int],
    allowed: np.ndarray | None = None,
) -> TokenDraw:
    """Chooses the next token; `number` in [0, 1) is the only randomness.

    With `allowed`, a bit for each token in words of 32, all other tokens are taken out before temperature and cuts.
    """
    logits_V = penalise(logits_V, sampling, prompt, counts)
    if allowed is None:
        return _choose(logits_V, sampling, number)
    if can_compile(logits_V):
        from firsthand.engine.decoding import mask_kernel  # importing numba takes a while

        values_C = torch.from_numpy(mask_kernel.take(logits_V.numpy(), allowed))
        place, logprob = _choose(values_C, sampling, number)
        return TokenDraw(int(mask_kernel.nth(allowed, place)), logprob)
    ids_C = torch.from_numpy(ids_of(allowed)).to(logits_V.device)
    place, logprob = _choose(logits_V[ids_C], sampling, number)
    return TokenDraw(int(ids_C[place]), logprob)


def _choose(logits_V: Tensor, sampling: Sampling, number: float) -> TokenDraw:
    if sampling.temperature == 0:
        return TokenDraw(int(logits_V.argmax()), 0.0)
    if sampling.top_k == 0 and can_compile(logits_V):
        from firsthand.kernels.step import token_sampling  # importing numba takes a while

        values = logits_V.numpy()
        if sampling.top_p == 1:
            return TokenDraw(*token_sampling.draw(values, sampling.temperature, sampling.min_p, number))
        return TokenDraw(
            *token_sampling.draw_nucleus(values, sampling.temperature, sampling.top_p, sampling.min_p, number)
        )
    return draw(*candidates(logits_V, sampling), number)


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


def can_compile(logits_V: Tensor) -> bool:
    """Returns whether the compiled draw takes these logits; it may differ where the random number falls on a boundary."""
    fits = logits_V.device.type == "cpu" and logits_V.dtype == torch.float32 and logits_V.is_contiguous()
    return fits and _has_numba()


def most_probable(row: LogitRow, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` most probable tokens with their log-probs, most probable first."""
    if count == 0:
        return ()
    ids = row.values.topk(min(count, row.values.numel())).indices.tolist()
    return tuple((token, row.logprob(token)) for token in ids)


def is_usable(logprob: float) -> bool:
    """Returns whether a log-prob shows that its row of logits was finite: one NaN or +inf makes all of them NaN."""
    return not math.isnan(logprob)
