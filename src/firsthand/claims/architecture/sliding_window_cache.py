"""KV cache of a sliding window."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Sliding Window Attention enables longer contexts",
    source="Jiang et al. 2023, arXiv:2310.06825",
    kind="arithmetic",
    cost_s=1,
)
LENGTHS = (1024, 2048, 4096, 8192, 32_768)


def measure(lab: Lab) -> Measurement:
    """Bytes of the cache by length, with and without the window."""
    from dataclasses import replace

    from firsthand.hub.model_shapes import KNOWN_SHAPES

    shape = KNOWN_SHAPES["mistral-7b"]
    full = replace(shape, window=None, windowed_layers=0)
    rows = tuple((str(n), 2.0 * full.kv_values(n) / 2**20, 2.0 * shape.kv_values(n) / 2**20) for n in LENGTHS)
    return Measurement(
        rows[-1][2] / rows[2][2],
        "cache of Mistral 7B at 32,768 tokens over that at 4,096",
        columns=("tokens", "MiB without window", "MiB with window 4,096"),
        rows=rows,
        curves={"no window": [(float(r[0]), r[1]) for r in rows], "window 4,096": [(float(r[0]), r[2]) for r in rows]},
        axes=("tokens", "MiB"),
    )


def judge(m: Measurement) -> Verdict:
    """Past the window the cache must not grow."""
    if m.value <= 1.01:
        why = "the cache stops growing at the window; what lies further back reaches a token only through other layers"
        return ruling("holds here", why)
    return ruling("does not hold here", f"the cache still grows {m.value:.1f} times past the window")
