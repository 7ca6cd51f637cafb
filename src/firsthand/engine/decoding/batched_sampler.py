"""Drawing the next tokens of many rows at once, on the device that has their logits.

The same choice as `sampler`'s, from the same random numbers: a row's number is a hash of (seed, index, position), and
cumulative weights are float64. Where a number falls between two tokens to within rounding the two may differ. Left out, and
done by `sampler` on the host: penalties, biases, grammars, rows whose logits serve several answers, and guesses.
"""

# M rows, V vocabulary, C candidates

from __future__ import annotations

from collections.abc import Sequence as Row
from typing import NamedTuple

import torch
from torch import Tensor

from firsthand.engine.core.sequence import Chunk
from firsthand.engine.decoding.sampler import is_plain, uniform
from firsthand.kernels.attention.gather import is_pinned


class Draw(NamedTuple):
    """How to choose a row's token."""

    temperature: float
    """Above 0."""
    top_k: int
    top_p: float
    min_p: float
    number: float
    """In [0, 1): the only randomness."""

    @property
    def sorts(self) -> bool:
        """Whether cuts need the most probable tokens first."""
        return self.top_k > 0 or self.top_p < 1


def draw_after(chunk: Chunk, position: int) -> Draw | None:
    """How to draw the token after a position of a chunk; None where the host must choose, or the most probable one is it."""
    line = chunk.sequence
    s = line.sampling
    is_last = position == len(line.tokens) - 1 and not chunk.draft
    if line.goal != "generate" or not is_last or line.followers or line.guide is not None:
        return None
    if (
        s.temperature == 0
        or not is_plain(s)
        or (line.token_filter is not None and line.token_filter.binds(line.num_answer))
    ):
        return None
    return Draw(s.temperature, s.top_k, s.top_p, s.min_p, uniform(line.seed, line.index, len(line.tokens)))


def draw_rows(logits_MV: Tensor, draws: Row[Draw | None], *, otherwise: Tensor) -> Tensor:
    """A token for each row with a draw, and `otherwise` for the rest: M. No value is asked back from the device."""
    tokens_M = otherwise.clone()
    for sorts in (False, True):
        rows = [row for row, draw in enumerate(draws) if draw is not None and draw.sorts == sorts]
        if rows:
            mine = [draw for draw in draws if draw is not None and draw.sorts == sorts]
            numbers = torch.tensor(mine, dtype=torch.float64, pin_memory=is_pinned(logits_MV.device))
            at_R = torch.tensor(rows, pin_memory=is_pinned(logits_MV.device)).to(logits_MV.device, non_blocking=True)
            columns = numbers.to(logits_MV.device, non_blocking=True).T[..., None]
            choose = sorted_first if sorts else in_order
            tokens_M[at_R] = choose(logits_MV[at_R], *columns)
    return tokens_M


def in_order(
    logits_MV: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, number: Tensor
) -> Tensor:
    """The token at which the cumulative weight passes the number, tokens in the order of their ids. Numbers are M 1."""
    weights_MV = _weights(logits_MV, temperature)
    return _pass(torch.where(weights_MV >= min_p, weights_MV, 0.0), number)


def sorted_first(
    logits_MV: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, number: Tensor
) -> Tensor:
    """The same with the most probable tokens first, cut by top-k, top-p of what that leaves, and min-p."""
    logits_MV, ids_MV = torch.sort(logits_MV, dim=-1, descending=True, stable=True)
    weights_MV = _weights(logits_MV, temperature)
    rank_V = torch.arange(weights_MV.shape[1], device=weights_MV.device)
    weights_MV = torch.where((top_k == 0) | (rank_V < top_k), weights_MV, 0.0)
    before_MV = weights_MV.cumsum(-1) - weights_MV  # a token stays if those before it do not reach p yet
    stays_MV = (before_MV < top_p * weights_MV.sum(-1, keepdim=True)) | (top_p >= 1) | (rank_V == 0)
    kept_MV = torch.where(stays_MV & (weights_MV >= min_p), weights_MV, 0.0)
    return ids_MV.gather(1, _pass(kept_MV, number)[:, None])[:, 0]


def _weights(logits_MV: Tensor, temperature: Tensor) -> Tensor:
    """Not normalised; the largest of a row is 1."""
    scaled_MV = logits_MV.double() / temperature
    weights_MV: Tensor = (scaled_MV - scaled_MV.amax(-1, keepdim=True)).exp()
    return weights_MV


def _pass(weights_MV: Tensor, number: Tensor) -> Tensor:
    """The first place at which the cumulative weight exceeds that part of the whole: M."""
    cumulative_MV = weights_MV.cumsum(-1)
    whole_M1 = cumulative_MV[:, -1:].contiguous()
    place_M1 = torch.searchsorted(cumulative_MV, number * whole_M1, right=True)
    last_M1 = torch.searchsorted(cumulative_MV, whole_M1)
    # numbers that are none are found nowhere, and a place outside would end every request on the device
    return torch.minimum(place_M1, last_M1)[:, 0].clamp(max=weights_MV.shape[1] - 1)
