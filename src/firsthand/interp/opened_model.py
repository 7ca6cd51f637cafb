"""Opens a model by name for interpretation: float32 weights in torch's modules, and the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from firsthand.errors import ConfigError
from firsthand.hub.fetch_model import fetch_model
from firsthand.interp.activations import sites_matching
from firsthand.nn.decoder import Decoder
from firsthand.nn.weights import load, open_checkpoint, skeleton
from firsthand.tokens import pretrained
from firsthand.tokens.tokenizer import Tokenizer


class OpenedModel(NamedTuple):
    """A model on disk, loaded."""

    model: Decoder
    tokenizer: Tokenizer
    path: Path


def open_for_interp(name: str, *, shown: bool = True, threads: int = 0, sites: Sequence[str] = ()) -> OpenedModel:
    """Loads a known name, a .gguf file or a folder, pulled first if needed; `threads` limits torch's, 0 leaves them.

    ConfigError, before any weight is read, if one of `sites` (names or patterns) is no site of the model.
    """
    if threads:
        torch.set_num_threads(threads)
    path = fetch_model(name, shown=shown)
    if sites:
        shape_of(name, shown=shown, sites=sites)
    return OpenedModel(load(path), pretrained.load(path), path)


def choice_of(tokenizer: Tokenizer, answer: str, other: str) -> tuple[int, int]:
    """The first tokens of two words that continue a text. ConfigError if a word is empty, or if both tokens are the same."""
    first, second = (tokenizer.encode(text, continuing=True)[:1] for text in (answer, other))
    if not (first and second):
        raise ConfigError(f"{answer!r} and {other!r} came: each needs a token, so give two words")
    if first == second:
        raise ConfigError(f"{answer!r} and {other!r} begin with the same token: give words that differ there")
    return first[0], second[0]


def shape_of(name: str, *, shown: bool = True, sites: Sequence[str] = ()) -> Decoder:
    """The model without values, on torch's meta device, pulled first if needed; no weight is read.

    ConfigError if one of `sites` (names or patterns) is no site of the model.
    """
    model = skeleton(open_checkpoint(fetch_model(name, shown=shown)))
    if sites:
        sites_matching(model, sites)
    return model
