"""Samples the next tokens of many rows at once, on the device that holds their logits.

The same choice as `sampler`'s, from the same random numbers: a row's number is a hash of (seed, index, position), and
cumulative weights are float64. Where a number falls between two tokens to within rounding the two may differ. Left to
`sampler` on the host: penalties, biases, grammars, rows whose logits serve several answers, and drafts.
"""

# M rows, V vocabulary, C candidates

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from firsthand.engine.core.sequence import SequenceChunk
from firsthand.engine.decoding.sampler import is_plain, uniform
from firsthand.kernels.attention.gather import is_pinned


class DrawSettings(NamedTuple):
    """The settings that a row's token is drawn with."""

    temperature: float
    """Above 0."""
    top_k: int
    top_p: float
    min_p: float
    number: float
    """In [0, 1): the only randomness."""

    @property
    def sorts(self) -> bool:
        """True if cuts need the most probable tokens first."""
        return self.top_k > 0 or self.top_p < 1

    @property
    def is_on_policy(self) -> bool:
        """True if the token is drawn from the model's own distribution, whose log-prob is known anyway."""
        return self.temperature == 1 and not self.sorts and self.min_p == 0


class DrawnTokens(NamedTuple):
    """The tokens of some rows, and the log-probs they were drawn with."""

    tokens: Tensor
    """M, int64."""
    logprobs: Tensor
    """M, float64; 0 where no token was drawn, or it was drawn from the model's own distribution."""


def draw_after(chunk: SequenceChunk, position: int) -> DrawSettings | None:
    """The settings to draw the token after a position of a chunk; None if the host chooses it, or decoding is greedy."""
    sequence = chunk.sequence
    s = sequence.sampling
    is_last = position == len(sequence.tokens) - 1 and not chunk.draft
    if sequence.goal != "generate" or not is_last or sequence.followers or sequence.guide is not None:
        return None
    if (
        s.temperature == 0
        or not is_plain(s)
        or (sequence.token_filter is not None and sequence.token_filter.binds(sequence.num_answer, sequence.num_prompt))
    ):
        return None
    return DrawSettings(
        s.temperature, s.top_k, s.top_p, s.min_p, uniform(sequence.seed, sequence.index, len(sequence.tokens))
    )


def draw_rows(logits_MV: Tensor, draws: Sequence[DrawSettings | None], *, otherwise: Tensor) -> DrawnTokens:
    """Draws a token for each row with settings, and takes `otherwise` for the rest. Never waits for the device."""
    tokens_M = otherwise.clone()
    logprobs_M = torch.zeros(len(tokens_M), dtype=torch.float64, device=tokens_M.device)
    for sorts in (False, True):
        rows = [row for row, draw in enumerate(draws) if draw is not None and draw.sorts == sorts]
        if rows:
            mine = [draw for draw in draws if draw is not None and draw.sorts == sorts]
            numbers = torch.tensor(mine, dtype=torch.float64, pin_memory=is_pinned(logits_MV.device))
            at_R = torch.tensor(rows, pin_memory=is_pinned(logits_MV.device)).to(logits_MV.device, non_blocking=True)
            columns = numbers.to(logits_MV.device, non_blocking=True).T[..., None]
            choose = sorted_first if sorts else in_order
            tokens_M[at_R], weights_R1, whole_R1 = choose(logits_MV[at_R], *columns)
            if not all(draw.is_on_policy for draw in mine):
                logprobs_M[at_R] = (weights_R1.log() - whole_R1.log())[:, 0]
    return DrawnTokens(tokens_M, logprobs_M)


def in_order(
    logits_MV: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, number: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The token at which the cumulative weight, in the order of ids, passes the number: M. Numbers are M 1.

    With its weight and the sum of all weights, M 1 each.
    """
    weights_MV = _weights(logits_MV, temperature)
    place_M1, weight_M1, whole_M1 = _pass(torch.where(weights_MV >= min_p, weights_MV, 0.0), number)
    return place_M1[:, 0], weight_M1, whole_M1


def sorted_first(
    logits_MV: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, number: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the most probable tokens first, cut by top-k, top-p of what that leaves, and min-p."""
    logits_MV, ids_MV = torch.sort(logits_MV, dim=-1, descending=True, stable=True)
    weights_MV = _weights(logits_MV, temperature)
    rank_V = torch.arange(weights_MV.shape[1], device=weights_MV.device)
    weights_MV = torch.where((top_k == 0) | (rank_V < top_k), weights_MV, 0.0)
    before_MV = weights_MV.cumsum(-1) - weights_MV  # a token stays if those before it do not reach p yet
    stays_MV = (before_MV < top_p * weights_MV.sum(-1, keepdim=True)) | (top_p >= 1) | (rank_V == 0)
    place_M1, weight_M1, whole_M1 = _pass(torch.where(stays_MV & (weights_MV >= min_p), weights_MV, 0.0), number)
    return ids_MV.gather(1, place_M1)[:, 0], weight_M1, whole_M1


def _weights(logits_MV: Tensor, temperature: Tensor) -> Tensor:
    """Unnormalised; the largest of a row is 1."""
    below_MV = logits_MV.double() - logits_MV.amax(-1, keepdim=True)  # before the division, as `sampler` does
    weights_MV: Tensor = (below_MV / temperature).exp()
    return weights_MV


def _pass(weights_MV: Tensor, number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first place at which the cumulative weight exceeds that part of the whole, its weight, and the whole: M 1."""
    cumulative_MV = weights_MV.cumsum(-1)
    whole_M1 = cumulative_MV[:, -1:].contiguous()
    place_M1 = torch.searchsorted(cumulative_MV, number * whole_M1, right=True)
    last_M1 = torch.searchsorted(cumulative_MV, whole_M1)
    # NaN passes no number, and an index out of range would end every request on the device
    place_M1 = torch.minimum(place_M1, last_M1).clamp(max=weights_MV.shape[1] - 1)
    return place_M1, weights_MV.gather(1, place_M1), whole_M1
