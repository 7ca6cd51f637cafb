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

import torch
from torch import Tensor

from firsthand.model import Sampling

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
    """The logits with repetition, presence and frequency penalties taken off; the input stays as it is.

    `counts` says how often each token is in the answer. Repetition looks at the prompt too.
    """
    if sampling.repetition_penalty == 1 and sampling.presence_penalty == 0 and sampling.frequency_penalty == 0:
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
    return logits_V


def candidates(logits_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn and their weights, not normalised: C ids and C float64.

    Takes penalised logits and a temperature above 0. Without cuts, all tokens in the order of their ids.
    """
    scaled_V = logits_V.double() / sampling.temperature
    weights_V = (scaled_V - scaled_V.max()).exp()
    vocab = weights_V.numel()
    if sampling.top_k == 0 and sampling.top_p == 1:
        if sampling.min_p == 0:
            return torch.arange(vocab, device=weights_V.device), weights_V
        ids_C = (weights_V >= sampling.min_p).nonzero().squeeze(1)
        return ids_C, weights_V[ids_C]
    ids_C, weights_C = _nucleus(logits_V, weights_V, sampling)
    keep = weights_C >= sampling.min_p  # the largest weight is 1
    return ids_C[keep], weights_C[keep]


def _nucleus(logits_V: Tensor, weights_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The cut by top-k and then top-p, most probable first."""
    vocab = weights_V.numel()
    size = min(sampling.top_k or PREFIX, vocab)
    while True:
        ids_C = logits_V.topk(size).indices
        weights_C = weights_V[ids_C]
        if sampling.top_p == 1:
            return ids_C, weights_C
        before_C = weights_C.cumsum(0) - weights_C  # a token stays if those before it do not reach p yet
        enough = sampling.top_p * float(weights_C.sum() if sampling.top_k else weights_V.sum())
        if sampling.top_k or size == vocab or float(before_C[-1] + weights_C[-1]) >= enough:
            keep = before_C < enough
            keep[0] = True
            return ids_C[keep], weights_C[keep]
        size = min(size * 8, vocab)


def draw(ids_C: Tensor, weights_C: Tensor, number: float) -> int:
    """The candidate at which the cumulative weight passes `number` (in [0, 1)) of the whole."""
    cumulative_C = weights_C.cumsum(0)
    place = int(torch.searchsorted(cumulative_C, float(cumulative_C[-1]) * number, right=True))
    return int(ids_C[min(place, ids_C.numel() - 1)])


def choose(logits_V: Tensor, sampling: Sampling, *, number: float, prompt: Iterable[int], counts: Counter[int]) -> int:
    """The next token; `number` in [0, 1) is the only randomness."""
    logits_V = penalise(logits_V, sampling, prompt, counts)
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    return draw(*candidates(logits_V, sampling), number)


def most_probable(logprobs_V: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` most probable tokens with their log-probs, most probable first."""
    if count == 0:
        return ()
    values, ids = logprobs_V.topk(min(count, logprobs_V.numel()))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))


def is_usable(logprob: float) -> bool:
    """Whether a row's log-prob shows that its logits were numbers (one NaN or +inf spoils the whole row)."""
    return not math.isnan(logprob)
