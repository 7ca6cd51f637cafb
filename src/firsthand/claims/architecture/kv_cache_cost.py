"""The cost of one more token with a KV cache, by how many tokens came before."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, seconds

CLAIM = Claim(
    quote="10,000-token generation runs at constant per-token cost instead of growing quadratically.",
    source="Raschka, Coding the KV Cache",
    kind="ours",
    cost_s=5,
)
LENGTHS = (256, 1024, 4096, 10_000)
PIECE = 1000
"""Tokens that go into the cache at once."""


def measure(lab: Lab) -> Measurement:
    """CPU time of one step of a decoder whose cache holds that many tokens, and its multiplications."""
    from functools import partial

    import torch

    from firsthand.claims.small_decoders import random_ids, small_decoder
    from firsthand.nn.textbook_cache import TextbookCache

    model = small_decoder(lab.seed, hidden_size=128, num_heads=8, num_kv_heads=8, max_position=16_384)
    a = model.architecture
    weights = sum(p.numel() for p in model.layers.parameters())
    rows = []

    def one_more(cache: TextbookCache) -> None:
        model(random_ids(1), torch.tensor([cache.length(0)]), cache)

    with torch.inference_mode():
        for length in LENGTHS:
            cache = TextbookCache()
            for first in range(0, length, PIECE):
                count = min(PIECE, length - first)
                model(random_ids(count, lab.seed), torch.arange(first, first + count), cache)
            step = seconds(partial(one_more, cache), 9)
            attended = 2 * a.num_layers * a.num_heads * a.head_dim * length
            rows.append((str(length), step * 1000, float(weights + attended)))
    return Measurement(
        rows[-1][2] / rows[0][2],
        "multiplications of a step after 10,000 tokens over one after 256",
        columns=("tokens before", "ms of CPU", "multiplications"),
        rows=tuple(rows),
        curves={"ms of CPU per token": [(float(length), row[1]) for length, row in zip(LENGTHS, rows, strict=True)]},
        axes=("tokens in the cache", "ms"),
    )


def judge(m: Measurement) -> Verdict:
    """Constant means the same at any length; quadratic growth would multiply by (10,000/256) squared."""
    if m.value < 1.05:
        return ruling("holds here", f"a step costs {m.value:.2f} times as much after 10,000 tokens as after 256")
    if m.value < 10_000 / 256 * 1.05:
        why = (
            f"no token is computed twice, but each attends to all before it: the step costs {m.value:.1f} times as much"
        )
        return ruling("holds in part", f"{why}, growing linearly, not quadratically")
    return ruling("does not hold here", f"a step costs {m.value:.0f} times as much, more than linear growth allows")
