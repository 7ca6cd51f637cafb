"""Decoders of a few layers for claims about architecture: their settings are real, their weights random unless trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsthand.nn.architecture import Architecture, Rope

if TYPE_CHECKING:
    from firsthand.nn.decoder import Decoder


def small_decoder(seed: int = 0, *, std: float = 0.1, **changes: Any) -> Decoder:
    """A decoder of Llama's form with random weights; `changes` are fields of its Architecture."""
    from firsthand.nn.decoder import Decoder, initialise

    layers = changes.get("num_layers", 2)
    settings: dict[str, Any] = dict(
        family="llama",
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_layers=layers,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_position=4096,
        norm_eps=1e-5,
        windows=(None,) * layers,
        ropes=(Rope(),) * layers,
        tie_embeddings=True,
    )
    return initialise(Decoder(Architecture(**{**settings, **changes})), seed=seed, std=std)


def kept_weights(path: Path, model: Decoder, train: Callable[[], None]) -> Decoder:
    """The model with the weights at the path; where there are none, `train` makes them and they are kept there."""
    from safetensors.torch import load_model, save_model

    if path.exists():
        load_model(model, path)
    else:
        train()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, str(part := path.with_suffix(f".{os.getpid()}.part")))
        part.replace(path)
    return model.eval()


def random_ids(length: int, seed: int = 0, vocab: int = 128) -> Any:
    """Token ids drawn evenly: a tensor of shape (length)."""
    import torch

    return torch.randint(0, vocab, (length,), generator=torch.Generator().manual_seed(seed))
