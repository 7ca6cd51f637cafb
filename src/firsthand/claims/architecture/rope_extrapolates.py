"""Loss past the trained length, by positional encoding."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote=(
        "Rotary Position Embeddings (RoPE) encode position as a rotation in complex space and generalize better to "
        "sequences longer than training."
    ),
    source="Su et al. 2021, arXiv:2104.09864; Press et al. 2021, arXiv:2108.12409",
    kind="ours",
    cost_s=15,
)
LENGTHS = (32, 48, 64, 128)
KINDS = ("rope", "alibi", "absolute")


def measure(lab: Lab) -> Measurement:
    """Models of equal size trained at 32 tokens, tried at up to 128."""
    from firsthand.claims.position_models import TRAINED, loss_by_length, position_model

    found = {kind: loss_by_length(position_model(lab, kind), LENGTHS, seed=lab.seed) for kind in KINDS}
    rows: tuple[tuple[str | float, ...], ...] = tuple(
        (str(length), *(found[kind][length] for kind in KINDS)) for length in LENGTHS
    )
    rise = {kind: losses[LENGTHS[-1]] - losses[TRAINED] for kind, losses in found.items()}
    return Measurement(
        max(rise["rope"], 0.0) / max(rise["absolute"], 1e-3),
        f"rise of RoPE's loss from {TRAINED} to {LENGTHS[-1]} tokens ({rise['rope']:.2f} nats) over that of "
        "learned positions",
        columns=("tokens", *KINDS),
        rows=rows,
        curves={kind: [(float(row[0]), float(row[at])) for row in rows] for at, kind in enumerate(KINDS, 1)},
        axes=("tokens of the text", "loss of the last tokens, nats"),
    )


def judge(m: Measurement) -> Verdict:
    """Better than learned positions is the least; well past the trained length is what the sentence says."""
    if m.value < 0.1:
        return ruling(
            "holds here",
            f"RoPE's loss past the trained length rises {m.value:.2f} times as much as that of learned positions",
        )
    if m.value < 1:
        return ruling(
            "holds in part",
            f"RoPE's loss rises {m.value:.2f} times as much as that of learned positions: better, but ALiBi's "
            "hardly rises",
        )
    return ruling("does not hold here", f"RoPE's loss rises {m.value:.1f} times as much as that of learned positions")
