"""YaRN on a trained model, without training again."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="YaRN extends RoPE to longer contexts without full retraining",
    source="Peng et al. 2023, arXiv:2309.00071",
    kind="ours",
    cost_s=8,
)
LENGTHS = (32, 64, 128)


def measure(lab: Lab) -> Measurement:
    """The model of rope_extrapolates with and without YaRN at a factor of 4."""
    from firsthand.claims.position_models import TRAINED, loss_by_length, position_model, with_rope

    model = position_model(lab, "rope")
    yarn = with_rope(model, kind="yarn", factor=4.0, original_max_position=TRAINED, attention_factor=1.14)
    plain, scaled = (loss_by_length(each, LENGTHS, seed=lab.seed) for each in (model, yarn))
    rows = tuple((str(length), plain[length], scaled[length]) for length in LENGTHS)
    return Measurement(
        plain[LENGTHS[-1]] - scaled[LENGTHS[-1]],
        f"loss that YaRN saves at {LENGTHS[-1]} tokens, trained at {TRAINED}",
        unit="nats",
        columns=("tokens", "RoPE as trained", "with YaRN"),
        rows=rows,
        curves={"RoPE": [(float(r[0]), r[1]) for r in rows], "YaRN": [(float(r[0]), r[2]) for r in rows]},
        axes=("tokens of the text", "loss of the last tokens, nats"),
    )


def judge(m: Measurement) -> Verdict:
    """It extends if the loss at the longer length falls."""
    if m.value > 0.1:
        return ruling(
            "holds here", f"without any training it saves {m.value:.2f} nats at four times the trained length"
        )
    if m.value > 0:
        return ruling(
            "holds in part", f"without any training it saves only {m.value:.2f} nats at four times the trained length"
        )
    return ruling(
        "does not hold here",
        f"without any training it costs {-m.value:.2f} nats at four times the trained length; the paper trains a "
        "little",
    )
