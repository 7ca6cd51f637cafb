"""Decoders whose next token depends on the last one by a table, and a little on all before it."""

from __future__ import annotations

import torch

from firsthand.interp.alignment.request_language import (
    ARROW,
    CONTEXT,
    DECLINE,
    END,
    FIRST,
    HELP,
    NO,
    PRINCIPLES,
    REVISE,
    SECOND,
    VOCABULARY,
    YES,
)
from firsthand.nn.decoder import Decoder
from known_tokens import model_of

PRINCIPLE = {name: 14 + place for place, name in enumerate(PRINCIPLES)}


def attending(table: dict[int, dict[int, float]], vocabulary: int = VOCABULARY, *, context: int = CONTEXT) -> Decoder:
    """A model whose next token depends on the last one by a table, and a little on all before it."""
    model, generator = model_of(table, vocabulary, context=context), torch.Generator().manual_seed(1)
    with torch.no_grad():
        weight, head = model.layers[0].attention.o_proj.weight, model.lm_head.weight
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.002)
        noise = torch.randn(head.shape, generator=generator) * 0.3
        noise[:, list(table)] = 0
        head.add_(noise)
    return model


def undecided() -> Decoder:
    """A model that helps or declines, in whole answers, and judges differently from text to text."""
    either = {HELP: 30.0, DECLINE: 30.0}
    judges = {PRINCIPLE[name]: {YES: 2.0, NO: 2.0, FIRST: 2.0, SECOND: 2.0} for name in PRINCIPLES}
    return attending({
        ARROW: either, REVISE: either, HELP: {170: 30.0, 171: 29.5}, DECLINE: {170: 30.0}, 170: {180: 30.0},
        171: {180: 30.0}, 180: {END: 30.0}, **judges,
    })  # fmt: skip


def same(one: Decoder, other: Decoder) -> bool:
    """True if all weights are equal, to the bit."""
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
