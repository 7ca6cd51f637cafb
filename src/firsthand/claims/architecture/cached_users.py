"""Compute that the KV cache saves, and memory that bounds users."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Enables 100–1,000x more concurrent users",
    source="Raschka, Coding the KV Cache",
    kind="arithmetic",
    cost_s=1,
)
LENGTHS = (10, 100, 1000, 10_000)


def measure(lab: Lab) -> Measurement:
    """FLOPs of one token with and without the cache of Llama 3 8B, and how many caches fit."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES
    from firsthand.hub.resource_plan import forward_flops

    shape = KNOWN_SHAPES["llama-3-8b"]
    rows = []
    for length in LENGTHS:
        once = forward_flops(shape, length)
        again = sum(forward_flops(shape, seen) for seen in range(1, length + 1, max(1, length // 64))) * max(
            1, length // 64
        )
        room = (80e9 - 2.0 * shape.parameters) / (2.0 * shape.kv_values(length))
        rows.append((str(length), again / once, room))
    return Measurement(
        rows[2][1],
        "compute of a token at 1,000 tokens without the cache over that with it",
        columns=("tokens", "times less compute", "users whose cache fits beside an 8B model in 80 GB"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """A factor of 100 or more in compute is not yet one in users."""
    if m.value < 100:
        return ruling("does not hold here", f"the cache saves a factor of {m.value:.0f} at 1,000 tokens")
    room = m.rows[2][2] if m.rows else 0.0
    why = (
        f"the cache saves a factor of {m.value:.0f} of compute at 1,000 tokens, but memory then allows {room:.0f} users"
    )
    return ruling("holds in part", f"{why}: the factor is the length, and users are bounded by memory")
