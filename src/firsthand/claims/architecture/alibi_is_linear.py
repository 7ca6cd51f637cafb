"""ALiBi's penalty by distance."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="ALiBi adds linear distance penalties to attention scores instead of embedding positions.",
    source="Press et al. 2021, arXiv:2108.12409",
    kind="ours",
    cost_s=2,
)


def measure(lab: Lab) -> Measurement:
    """Attention over equal scores shows the penalty alone: values are one-hot, so outputs are weights."""
    import torch

    from firsthand.kernels.attention.score_terms import AlibiBias, ScoreTerms
    from firsthand.nn.families.bloom import alibi_slopes
    from firsthand.nn.textbook_cache import TextbookCache

    slopes = torch.tensor(alibi_slopes(4))
    length = 64
    k = torch.zeros(length, 4, 8)
    v = torch.eye(length)[:, None, :].repeat(1, 4, 1)
    cache = TextbookCache()
    out_1HT = cache(
        0, torch.zeros(length, 4, 8), k, v, scale=1.0, window=None, terms=ScoreTerms(bias=AlibiBias(slopes))
    )[-1]
    logits_HT = out_1HT.clamp_min(1e-30).log()
    steps_HT = logits_HT[:, 1:] - logits_HT[:, :-1]
    return _measured([(float(slopes[h]), float(steps_HT[h, -20:].mean())) for h in range(4)])


def _measured(heads: Sequence[tuple[float, float]]) -> Measurement:
    """`heads`: each head's slope, and its penalty per token."""
    rows = tuple((f"head {at}", *each) for at, each in enumerate(heads))
    worst = max(abs(row[1] - row[2]) / row[1] for row in rows)
    return Measurement(
        worst,
        "largest relative gap between a head's penalty per token and its slope",
        columns=("head", "slope", "penalty per token"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Linear to a thousandth."""
    if m.value < 1e-3:
        return ruling(
            "holds here",
            "with equal scores, weights fall by the head's slope in the logarithm for each token of distance",
        )
    return ruling("does not hold here", f"the penalty differs from a line by {m.value:.1%}")
