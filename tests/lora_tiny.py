"""The tiny random decoder that the adapter in data/lora was made for."""

from __future__ import annotations

from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.decoder import Decoder, initialise


def base(*, tied: bool = False, vocab_size: int = 96) -> Decoder:
    architecture = Architecture(
        family="llama",
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_position=256,
        norm_eps=1e-5,
        windows=(None, None),
        ropes=(Rope(), Rope()),
        tie_embeddings=tied,
    )
    return initialise(Decoder(architecture), seed=0, std=0.3)
