"""Memory that a paged cache leaves unused."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="PagedAttention (vLLM) virtualizes KV cache like OS paging",
    source="Kwon et al. 2023, arXiv:2309.06180",
    kind="ours",
    cost_s=1,
)
MOST = 2400


def measure(lab: Lab) -> Measurement:
    """The engine's pool of blocks under texts of many lengths, against a piece of the longest for each."""
    from random import Random

    from firsthand.engine.memory.blocks import BlockPool

    rng, rows = Random(lab.seed), []
    lengths = [rng.choice((60, 150, 300, 900, 2000)) + rng.randrange(20, 400) for _ in range(200)]
    for size in (8, 16, 32):
        pool = BlockPool(40_000, size)
        tables: list[list[int]] = [[] for _ in lengths]
        for table, length in zip(tables, lengths, strict=True):
            pool.extend(table, 0, length)
        held = sum(map(len, tables)) * size
        assert pool.num_used * size == held
        rows.append((f"blocks of {size}", 1 - sum(lengths) / held))
    rows.append((f"one piece of {MOST} a text", 1 - sum(lengths) / (MOST * len(lengths))))
    return Measurement(
        rows[1][1],
        "share of the memory in use that holds nothing, blocks of 16",
        n=len(lengths),
        columns=("layout", "unused share"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """The paper's figure is under 4%."""
    if m.value < 0.04:
        return ruling(
            "holds here",
            f"{m.value:.1%} is unused, in each text's last block; like pages, blocks are shared and need not lie "
            "together",
        )
    if m.value < 0.2:
        return ruling("holds in part", f"{m.value:.1%} is unused")
    return ruling("does not hold here", f"{m.value:.0%} is unused, no better than one piece a text")
