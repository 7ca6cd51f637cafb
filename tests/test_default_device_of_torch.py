"""What a model computes stays on the model's own device, whatever torch's default device is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from firsthand.kernels.attention.score_terms import BucketBias, ScoreTerms
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Attention, Packed
from firsthand.nn.blocks.positions import sinusoidal
from firsthand.nn.blocks.rope import frequencies
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.encoder import Encoder, Together
from firsthand.nn.encoder_decoder import EncoderDecoder
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.families.bert import BertArchitecture
from firsthand.nn.nf4 import four_bits
from firsthand.nn.sourced_decoder import SourcedDecoder
from firsthand.nn.textbook_cache import TextbookCache

BART = EncoderDecoderArchitecture(
    "bart", 20, 12, 1, 1, 2, 2, 6, 18, 18, "learned", 30, 1e-5, position_offset=2, has_logit_bias=True, decoder_start=2
)
T5 = EncoderDecoderArchitecture(
    "t5",
    20,
    12,
    1,
    1,
    2,
    2,
    6,
    18,
    18,
    "relative",
    30,
    1e-5,
    is_t5=True,
    num_buckets=8,
    max_distance=20,
    decoder_start=2,
)
MARIAN = replace(BART, family="marian", positions="sinusoidal", position_offset=0)
A = Architecture(
    "llama", 20, 12, 16, 2, 2, num_kv_heads=1, head_dim=6, max_position=64, norm_eps=1e-5, windows=(3, None),
    ropes=(Rope(), Rope(kind="ntk", factor=2.0)), tie_embeddings=False, alibi_slopes=(0.5, 0.25),
)  # fmt: skip


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), device="cpu")


def filled(module: Any) -> Any:
    """The module with random weights."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return module.eval()


def same_elsewhere(compute: Callable[[], Any]) -> None:
    """The result is the same, and on the CPU, where torch makes new tensors on another device."""
    with torch.no_grad():
        expected = compute()
        with torch.device("meta"):
            found = compute()
    if isinstance(expected, Tensor):
        assert found.device.type == "cpu" and torch.equal(found, expected)
    else:
        assert found == expected


def test_the_frequencies_of_every_rope_are_made_on_the_cpu() -> None:
    trained = {"original_max_position": 8, "factor": 2.0}
    long = {"divisors": (2.0, 3.0, 4.0), "short_divisors": (1.0, 1.5, 1.0)}
    for kind, settings in (
        ("default", {}), ("none", {}), ("linear", {"factor": 2.0}), ("ntk", {"factor": 2.0}), ("dynamic", trained),
        ("llama3", trained), ("yarn", trained), ("longrope", trained | long), ("divided", long),
    ):  # fmt: skip
        rope = Rope(kind=kind, **settings)  # type: ignore[arg-type]
        for length in (0, 20):
            same_elsewhere(lambda rope=rope, length=length: frequencies(rope, 6, length=length))


def test_attention_makes_its_masks_beside_its_queries() -> None:
    q, k, v = numbers(5, 2, 6), numbers(5, 2, 6, seed=1), numbers(5, 2, 6, seed=2)
    table = numbers(8, 2, seed=3)
    terms = ScoreTerms(bias=BucketBias(table, 20, is_causal=True))
    for attend in (Packed([2, 3]), Together([2, 3])):
        for each in (None, terms):
            same_elsewhere(lambda by=attend, given=each: by(0, q, k, v, scale=0.5, window=None, terms=given))
    same_elsewhere(lambda: Packed([5])(0, q, k, v, scale=0.5, window=2))
    same_elsewhere(lambda: Packed([5])(0, q, k, v, scale=0.5, window=2, terms=terms))
    same_elsewhere(lambda: TextbookCache()(0, q, k, v, scale=0.5, window=2))
    same_elsewhere(lambda: sinusoidal(torch.arange(3, device="cpu"), 6))
    same_elsewhere(lambda: four_bits(numbers(3, 70)).values())
    same_elsewhere(lambda: four_bits(numbers(3, 70), levels="int4", double=False).values())


def test_models_are_computed_on_the_device_of_their_weights() -> None:
    model = initialise(Decoder(A), seed=3, std=0.3)
    ids, positions = torch.tensor([3, 7, 1, 19]), torch.arange(4)

    def states() -> Tensor:
        model._frequencies.clear()
        for block in model.layers:
            assert isinstance(block.attention, Attention)
            block.attention._alibi = None
        return model(ids, positions, Packed([4]))

    same_elsewhere(states)
    for a in (BART, T5, MARIAN):
        pair = filled(EncoderDecoder(a))
        same_elsewhere(lambda pair=pair: pair.generate([4, 9, 19], max_tokens=5))
        sourced = SourcedDecoder(pair)
        same_elsewhere(lambda sourced=sourced: torch.cat([each.keys[0] for each in sourced.encoded([(4, 9), (7,)])]))
    mpnet = filled(Encoder(BertArchitecture("mpnet", 20, 12, 16, 1, 2, 18, 2, 0, 1e-5, num_buckets=8)))
    same_elsewhere(lambda: mpnet(ids, positions, Together([4])))
