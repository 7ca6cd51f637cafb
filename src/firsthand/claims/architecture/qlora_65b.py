"""Memory of QLoRA on a 65B model."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="QLoRA: fine-tune 65B model on a single 48GB GPU",
    source="Dettmers et al. 2023, arXiv:2305.14314",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Weights, adapters, optimizer and activations by our planner."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES
    from firsthand.hub.resource_plan import Training, plan_training_memory

    shape = KNOWN_SHAPES["llama-65b"]
    rows = []
    methods: tuple[Training, ...] = ("full", "lora", "qlora")
    for method in methods:
        needs = plan_training_memory(shape, method, "bfloat16", context=512, rank=64)
        rows.append((method, needs.checkpointed_total_bytes / 1e9, needs.trained_parameters / 1e6))
    return Measurement(
        rows[2][1],
        "QLoRA of rank 64 on Llama 65B, sequences of 512",
        unit="GB",
        columns=("method", "GB", "M trained"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """At most the 48 GiB of the card."""
    if m.value <= 48 * 1.073741824:
        return ruling(
            "holds here",
            f"{m.value:.0f} GB of the 51.5 that 48 GiB are, with recomputed activations, by our planner; full "
            "training needs many GPUs",
        )
    return ruling("does not hold here", f"our planner counts {m.value:.0f} GB")
