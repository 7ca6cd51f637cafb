"""Trained weights of LoRA."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote=(
        "LoRA and QLoRA enable fine-tuning on consumer hardware by only training small low-rank adapter matrices, "
        "leaving base weights frozen."
    ),
    source="Hu et al. 2021, arXiv:2106.09685",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Our planner's memory of full training, LoRA and QLoRA."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES
    from firsthand.hub.resource_plan import plan_training_memory

    rows = []
    for name in ("smollm2-135m", "llama-2-7b", "llama-3-8b"):
        shape = KNOWN_SHAPES[name]
        full = plan_training_memory(shape, "full", "bfloat16", context=1024)
        lora = plan_training_memory(shape, "lora", "bfloat16", context=1024)
        qlora = plan_training_memory(shape, "qlora", "bfloat16", context=1024)
        share = 100 * lora.trained_parameters / shape.parameters
        gigabytes = [each.checkpointed_total_bytes / 1e9 for each in (full, lora, qlora)]
        rows.append((name, share, gigabytes[0], gigabytes[1], gigabytes[2]))
    return Measurement(
        rows[-1][4],
        "memory of QLoRA of rank 16 on Llama 3 8B",
        unit="GB",
        columns=("model", "% trained", "GB full", "GB LoRA", "GB QLoRA"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """A consumer card has 16 GB."""
    if m.value <= 16:
        return ruling(
            "holds here",
            f"{m.value:.0f} GB fits a consumer card, and under 1% of the weights are trained; plain LoRA in "
            "bfloat16 needs one of 24 GB",
        )
    return ruling("does not hold here", f"{m.value:.0f} GB fits no consumer card of 16 GB")
