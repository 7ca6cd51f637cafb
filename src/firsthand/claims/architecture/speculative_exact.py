"""Speculative decoding's answers and steps."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Speculative decoding: draft model generates tokens, large model verifies",
    source="Leviathan et al. 2022, arXiv:2211.17192",
    kind="ours",
    cost_s=8,
)


def measure(lab: Lab) -> Measurement:
    """The engine's greedy answer with and without drafts, and its steps."""
    from firsthand.claims.generated_tokens import generated
    from firsthand.claims.small_decoders import small_decoder

    rows, same = [], []
    for name, settings in (
        ("plain", {"speculation": "off"}),
        ("drafts from the prompt", {"speculation": "prompt_lookup"}),
    ):
        model = small_decoder(lab.seed, std=0.3, num_kv_heads=4)
        answers, steps = generated(model, [tuple(range(1, 9)) * 6], 96, **settings)
        same.append(answers)
        rows.append((name, float(steps), float(len(answers[0]) / steps)))
    equal = float(same[0] == same[1])
    return Measurement(
        rows[0][1] / rows[1][1] if equal else 0.0,
        "steps of the large model without drafts over those with them (0: the answers differ)",
        columns=("decoding", "steps", "tokens a step"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Equal answers in fewer steps."""
    if m.value > 1.05:
        return ruling(
            "holds here",
            f"the same tokens in {m.value:.1f} times fewer steps; here drafts come from the text itself, a draft "
            "model is the other way",
        )
    if m.value > 0:
        return ruling("holds in part", "the same tokens, but no fewer steps on this text")
    return ruling("does not hold here", "the answers differ")
