"""Work of different attention heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

if TYPE_CHECKING:
    from firsthand.interp.circuits.induction_heads import HeadScore

CLAIM = Claim(
    quote=(
        "Multiple attention heads let the model attend to different aspects simultaneously (syntax, semantics, "
        "coreference)."
    ),
    source="Olsson et al. 2022, arXiv:2209.11895",
    kind="ours",
    cost_s=4,
)
STEPS = 200


def measure(lab: Lab) -> Measurement:
    """Attention of each head of a small model trained on repeated texts."""
    from firsthand.interp.circuits.induction_heads import head_scores
    from firsthand.interp.circuits.induction_model import BEGIN, VOCABULARY, trained_induction_model

    model = trained_induction_model(steps=STEPS, batch=24, seed=lab.seed)
    return _measured(head_scores(model, range(VOCABULARY), texts=8, half=16, begin=BEGIN, seed=lab.seed))


def _measured(scores: Sequence[HeadScore]) -> Measurement:
    rows = tuple((f"layer {s.layer}, head {s.head}", s.previous.value, s.induction.value) for s in scores)
    kinds = {"previous" if s.previous.value > 0.4 else "induction" if s.is_induction else "other" for s in scores}
    return Measurement(
        len(kinds),
        f"kinds of heads found in a trained two-layer model: {', '.join(sorted(kinds))}",
        n=len(scores),
        columns=("head", "looks at the token before", "looks after the first occurrence"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Three kinds of work, two, or one."""
    if m.value >= 3:
        return ruling(
            "holds here", "some look at the token before, some at what followed the same token earlier, some at neither"
        )
    if m.value == 2:
        return ruling("holds in part", "two kinds of heads are found")
    return ruling("does not hold here", "all heads do the same")
