"""Log-probs and values of given streams under a model, without gradient: references, old values, KTO's baseline."""

# N packed tokens, T tokens of a stream

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.train.objective import Targets, token_logprobs
from firsthand.train.step_loss import on
from firsthand.train.streams import Stream, packed

Floats = NDArray[np.float64]


class StreamNumbers(NamedTuple):
    """Log-probs and values of one stream under a model: T each."""

    logprobs: Floats
    """Log-prob of each token after those before it; 0 at the first."""
    values: Floats | None
    """The value before each token, with the value head; 0 at the first."""
    last_value: float
    """The value after the last token: a reward model's score."""


@torch.no_grad()
def stream_logprobs(
    model: Decoder,
    streams: Sequence[Stream | NDArray[np.int32]],
    *,
    values: nn.Module | None = None,
    policy_logprobs: Callable[[Tensor, Targets], Tensor] | None = None,
    micro_tokens: int = 4096,
    dtype: torch.dtype = torch.float32,
) -> list[StreamNumbers]:
    """Returns the numbers of each stream, or sequence of ids, in their order.

    `policy_logprobs` gives the log-probs of another distribution than the model's own, as in an `Objective`. A `dtype` other
    than float32 is autocast, as in `fit`: a policy and its reference must round alike, or they differ before any step.
    """
    ids = [each.ids if isinstance(each, Stream) else np.asarray(each, dtype=np.int32) for each in streams]
    found: dict[int, StreamNumbers] = {}
    device = model.embed.weight.device
    was_training = model.training
    model.eval()
    for rows in _chunks(ids, micro_tokens):
        batch = packed([Stream(ids[row], source=str(row)) for row in rows])
        at_M = on(np.flatnonzero(batch.positions), device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            hidden_ND = model(on(batch.ids, device), on(batch.positions, device), Packed(batch.lengths))
            logits_MV = model.logits(hidden_ND[at_M - 1])
            values_N = None if values is None else values(hidden_ND).float().reshape(-1)
        ids_M = on(batch.ids, device)[at_M]
        if policy_logprobs is None:
            logprobs_M = token_logprobs(logits_MV, ids_M)
        else:
            logprobs_M = policy_logprobs(logits_MV, _targets(ids_M))
        logprobs_N = _spread(logprobs_M, at_M, len(batch.ids))
        before_N = None if values_N is None else _spread(values_N[at_M - 1], at_M, len(batch.ids))
        start = 0
        for row, length in zip(sorted(rows, key=lambda row: len(ids[row])), batch.lengths, strict=True):
            part = slice(start, start := start + length)
            last = 0.0 if values_N is None else float(values_N[part.stop - 1])
            found[row] = StreamNumbers(logprobs_N[part], None if before_N is None else before_N[part], last)
    model.train(was_training)
    return [found[row] for row in range(len(ids))]


def _chunks(ids: Sequence[NDArray[np.int32]], micro_tokens: int) -> list[list[int]]:
    """Rows for each forward pass, the shorter sequences first, of at most `micro_tokens` tokens or one sequence."""
    chunks: list[list[int]] = []
    size = 0
    for row in sorted(range(len(ids)), key=lambda row: len(ids[row])):
        if not chunks or size + len(ids[row]) > micro_tokens:
            chunks.append([])
            size = 0
        chunks[-1].append(row)
        size += len(ids[row])
    return chunks


def _spread(values_M: Tensor, at_M: Tensor, size: int) -> Floats:
    spread_N = torch.zeros(size, dtype=torch.float64, device=values_M.device)
    spread_N[at_M] = values_M.double()
    return spread_N.cpu().numpy()


def _targets(ids_M: Tensor) -> Targets:
    """Targets of which only the ids are known."""
    zeros_M = torch.zeros(len(ids_M), device=ids_M.device)
    return Targets(ids_M, torch.zeros_like(ids_M), *([zeros_M] * 9))
