"""KV cache with grouped queries."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Grouped Query Attention (GQA) cuts KV heads for efficiency",
    source="Ainslie et al. 2023, arXiv:2305.13245",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Bytes of the cache at float16 with and without grouping, from published shapes."""
    from dataclasses import replace

    from firsthand.hub.model_shapes import KNOWN_SHAPES

    rows = []
    for name in ("llama-3-8b", "llama-3-70b", "mistral-7b", "qwen2.5-7b", "smollm2-135m"):
        shape = KNOWN_SHAPES[name]
        full = replace(shape, num_kv_heads=shape.num_heads)
        rows.append(
            (
                name,
                2.0 * full.kv_values(4096) / 2**20,
                2.0 * shape.kv_values(4096) / 2**20,
                shape.num_heads / shape.num_kv_heads,
            )
        )
    return Measurement(
        rows[0][1] / rows[0][2],
        "KV cache of Llama 3 8B with a KV head per query head, over the one it has",
        columns=("model", "MiB with all heads, 4,096 tokens", "MiB with GQA", "times smaller"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Fewer KV heads must show in bytes."""
    if m.value > 1.5:
        return ruling(
            "holds here", f"Llama 3 8B keeps {m.value:.0f} times fewer keys and values; quality is not measured by this"
        )
    return ruling("does not hold here", f"the cache is only {m.value:.2f} times smaller")
