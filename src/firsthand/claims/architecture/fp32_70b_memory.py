"""Memory of a 70B model in float32."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Running a 70B model in FP32 requires ~280GB VRAM.",
    source="arithmetic: 4 bytes a parameter",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Weights and cache by our planner."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES
    from firsthand.hub.resource_plan import plan_serving

    shape = KNOWN_SHAPES["llama-2-70b"]
    rows = tuple(
        (dtype, plan_serving(shape, dtype).total_bytes / 1e9) for dtype in ("float32", "float16", "int8", "nf4")
    )
    return Measurement(
        plan_serving(shape, "float32").weight_bytes / 1e9,
        "bytes of the weights of Llama 2 70B in float32",
        unit="GB",
        columns=("weights", "GB with 4,096 tokens of cache"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Within ten GB."""
    if 270 <= m.value <= 290:
        return ruling("holds here", f"{m.value:.0f} GB of weights; the KV cache comes on top")
    return ruling("does not hold here", f"the weights take {m.value:.0f} GB")
