"""A quantized 70B model in 64 GB."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="GGUF: run Llama 70B on a Mac with 64GB RAM",
    source="llama.cpp",
    kind="arithmetic",
    cost_s=1,
)
DTYPES = ("int4", "int8", "float16")


def measure(lab: Lab) -> Measurement:
    """Weights and cache by our planner."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES
    from firsthand.hub.resource_plan import plan_serving

    shape = KNOWN_SHAPES["llama-3-70b"]
    rows = tuple((dtype, plan_serving(shape, dtype, context=8192).total_bytes / 1e9) for dtype in DTYPES)
    return Measurement(
        rows[0][1],
        f"Llama 3 70B at {DTYPES[0]} with 8,192 tokens of cache",
        unit="GB",
        columns=("weights", "GB"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """macOS lets a GPU use about three quarters of memory."""
    if m.value <= 0.75 * 64 * 1.073741824:
        return ruling(
            "holds here",
            f"{m.value:.0f} GB is below the 51 GB that macOS lets a GPU use of 64 GiB; at 8 bits it does not fit",
        )
    if m.value <= 64 * 1.073741824:
        return ruling("holds in part", f"{m.value:.0f} GB fits into memory, but not into what macOS lets a GPU use")
    return ruling("does not hold here", f"{m.value:.0f} GB does not fit")
