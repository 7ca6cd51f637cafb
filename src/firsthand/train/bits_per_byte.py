"""The cross-entropy of a model on held-out text, in nats per token and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from firsthand.nn.decoder import Decoder
from firsthand.train.objective import Objective
from firsthand.train.step_loss import step_loss
from firsthand.train.streams import Stream, counts, micro_batches, packed


class HeldOutLoss(NamedTuple):
    """The loss on held-out text."""

    loss: float
    """Nats per token."""
    bits_per_byte: float
    """Bits of all tokens, the end token included, over the bytes of the text: comparable between tokenizers."""


def held_out_loss(
    model: Decoder,
    streams: Sequence[Stream],
    num_bytes: int,
    *,
    micro_tokens: int = 4096,
    dtype: torch.dtype = torch.float32,
) -> HeldOutLoss:
    """The model's loss on streams whose texts have so many bytes of UTF-8; its mode is left as it was."""
    loss = mean_loss(model, streams, Objective(ce=1.0), micro_tokens=micro_tokens, dtype=dtype)
    return HeldOutLoss(loss, loss * counts(streams)["ce"] / math.log(2) / num_bytes)


def mean_loss(
    model: Decoder,
    streams: Sequence[Stream],
    objective: Objective,
    *,
    micro_tokens: int = 4096,
    dtype: torch.dtype = torch.float32,
) -> float:
    """The loss of a model on streams, without training on them; its mode is left as it was."""
    divisors, was_training = counts(streams), model.training
    model.eval()
    with torch.no_grad():
        parts = [
            step_loss(model, packed(micro), objective, divisors, dtype=dtype)[1]["loss"]
            for micro in micro_batches(streams, micro_tokens)
        ]
    model.train(was_training)
    return math.fsum(parts)
