"""Parameters and compute of mixtures of experts."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="MoE enables 10x parameter scale at ~2x compute cost",
    source="Shazeer et al. 2017, arXiv:1701.06538",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Each mixture against a dense model whose MLP is one routed expert and the shared ones."""
    from dataclasses import replace

    from firsthand.hub.model_shapes import KNOWN_SHAPES
    from firsthand.hub.resource_plan import forward_flops

    rows = []
    for name in ("mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3"):
        shape = KNOWN_SHAPES[name]
        dense = replace(
            shape, num_experts=0, experts_per_token=0, intermediate_size=shape.expert_size + shape.shared_size
        )
        rows.append(
            (name, shape.parameters / dense.parameters, forward_flops(shape, 1024) / forward_flops(dense, 1024))
        )
    return Measurement(
        max(row[1] / row[2] for row in rows),
        "largest ratio of parameters gained to compute paid",
        columns=("model", "times the parameters of its dense form", "times the compute"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """10x at 2x is a ratio of five."""
    if m.value >= 5:
        why = f"parameters grow up to {m.value:.0f} times faster than compute, by how many experts there are"
        return ruling("holds here", f"{why}; Mixtral alone has 6.4 times the parameters at 1.8 times the compute")
    return ruling("does not hold here", f"parameters grow at most {m.value:.1f} times faster than compute")
