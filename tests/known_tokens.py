"""A decoder whose next token depends on the last one alone, by a table of logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch

from firsthand.interp.alignment import request_language as language
from firsthand.interp.alignment.small_models import small_decoder
from firsthand.nn.decoder import Decoder

Table = Mapping[int, Mapping[int, float]]


def model_of(table: Table, vocabulary: int = language.VOCABULARY, *, context: int = 32) -> Decoder:
    """A model with these logits of next tokens after a token, and 0 for all others."""
    hidden = 8 * -(-vocabulary // 8)
    model = small_decoder(vocabulary, context, layers=1, hidden=hidden).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")) or name == "lm_head.weight":
                weight.zero_()
        model.embed.weight.copy_(torch.eye(vocabulary, hidden))
        for last, row in table.items():
            for id, logit in row.items():
                model.lm_head.weight[id, last] = logit * math.sqrt(1 / hidden + 1e-5)
    return model


def chain(*ids: int) -> dict[int, dict[int, float]]:
    """Each token is followed by the next one, almost surely."""
    return {one: {other: 60.0} for one, other in pairwise(ids)}
