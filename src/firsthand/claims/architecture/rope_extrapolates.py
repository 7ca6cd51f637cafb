"""Loss past the trained length, by positional encoding."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Rotary Position Embeddings (RoPE) encode position as a rotation in complex space and generalize better to sequences longer than training.",
    source="Su et al. 2021, arXiv:2104.09864; Press et al. 2021, arXiv:2108.12409",
    kind="ours",
    cost_s=60,
)
LENGTHS = (32, 48, 64, 96, 128)


def measure(lab: Lab) -> Measurement:
    """Models of equal size trained at 32 tokens, tried at up to 128."""
    from firsthand.claims.position_models import TRAINED, loss_by_length, position_model

    found = {kind: loss_by_length(position_model(lab, kind), LENGTHS, seed=lab.seed) for kind in ("rope", "alibi", "none")}
    rows = tuple((str(length), *(found[kind][length] for kind in found)) for length in LENGTHS)
    rise = {kind: losses[LENGTHS[-1]] - losses[TRAINED] for kind, losses in found.items()}
    return Measurement(
        rise["rope"] - rise["alibi"], f"rise of the loss from {TRAINED} to {LENGTHS[-1]} tokens, RoPE less ALiBi", unit="nats",
        columns=("tokens", "RoPE", "ALiBi", "no positions"), rows=rows,
        curves={name: [(float(r[0]), float(r[at])) for r in rows] for name, at in (("RoPE", 1), ("ALiBi", 2), ("none", 3))},
        axes=("tokens of the text", "loss of the last tokens, nats"),
    )


def judge(m: Measurement) -> Verdict:
    """Generalising better means a smaller rise than the alternative named by the list."""
    if m.value < 0:
        return ruling("holds here", f"RoPE's loss rises {-m.value:.2f} nats less than ALiBi's past the trained length")
    if m.value < 0.1:
        return ruling("holds in part", f"RoPE's loss rises {m.value:.2f} nats more than ALiBi's past the trained length, hardly more")
    return ruling("does not hold here", f"RoPE's loss rises {m.value:.2f} nats more than ALiBi's past the trained length; scaling (YaRN) mends it")
