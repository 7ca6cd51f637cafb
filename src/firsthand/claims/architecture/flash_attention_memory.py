"""Peak memory of attention with and without tiling, by length."""

from __future__ import annotations

import math
from functools import partial

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="O(n^2) memory & compute with sequence length. Flash Attention reduces memory to O(n) via tiling",
    source="Dao et al. 2022, arXiv:2205.14135",
    kind="ours",
    cost_s=1,
)
LENGTHS = (128, 256, 512, 1024)


def measure(lab: Lab) -> Measurement:
    """The exponent of the growth of bytes allocated by one call, for scores in full and for our tiled kernel."""
    import torch

    from firsthand.claims.live_bytes import peak_bytes
    from firsthand.kernels.attention.flash_attention import flash_attention

    def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ v

    rows = []
    for length in LENGTHS:
        q, k, v = torch.randn(3, 1, 2, length, 32, generator=torch.Generator().manual_seed(lab.seed))
        full = peak_bytes(partial(plain, q, k, v))
        tiled = peak_bytes(partial(flash_attention, q, k, v, scale=1 / math.sqrt(32)))
        gap = float((plain(q, k, v) - flash_attention(q, k, v, scale=1 / math.sqrt(32))).abs().max())
        rows.append((str(length), full, tiled, gap))
    span = math.log(LENGTHS[-1] / LENGTHS[1])
    growth = [math.log(rows[-1][1] / rows[1][1]) / span, math.log(rows[-1][2] / rows[1][2]) / span]
    return Measurement(
        growth[1],
        f"exponent of the tiled kernel's peak memory in the length (in full: {growth[0]:.2f})",
        columns=("tokens", "peak bytes in full", "peak bytes tiled", "largest difference"),
        rows=tuple(rows),
        curves={
            "scores in full": [(float(row[0]), row[1] / 2**20) for row in rows],
            "tiled": [(float(row[0]), row[2] / 2**20) for row in rows],
        },
        axes=("tokens", "peak MiB"),
    )


def judge(m: Measurement) -> Verdict:
    """Exponent 1 is linear, 2 quadratic."""
    if m.value < 1.2:
        return ruling("holds here", f"memory grows with the length to the power {m.value:.2f}; compute stays quadratic")
    if m.value < 1.7:
        return ruling(
            "holds in part", f"memory grows with the length to the power {m.value:.2f}, between linear and quadratic"
        )
    return ruling("does not hold here", f"memory grows with the length to the power {m.value:.2f}")
