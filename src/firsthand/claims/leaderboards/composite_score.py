"""The first place under one composite score."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote="Single composite score plus per-benchmark breakdowns.",
    source="BenchLM",
    kind="sim",
    cost_s=1,
)
BOARDS = 200


def measure(lab: Lab) -> Measurement:
    """Ten models of known skill on twelve benchmarks, put together by four rules."""
    import numpy as np

    from firsthand.boards.aggregates import borda_ranks, mean_win_rates

    rng, moved = np.random.default_rng(lab.seed), 0
    for _ in range(BOARDS):
        skill = rng.normal(0, 1, (10, 1))
        values = skill + rng.normal(0, 1, (10, 12)) + rng.normal(0, 3, (1, 12))
        values = values * np.exp(rng.normal(0, 0.7, (1, 12)))
        firsts = {int(values.mean(1).argmax()), int(borda_ranks(values).argmin()), int(mean_win_rates(values).argmax())}
        firsts.add(int(((values - values.mean(0)) / values.std(0)).mean(1).argmax()))
        moved += len(firsts) > 1
    low, high = proportion_interval(moved, BOARDS)
    return Measurement(
        moved / BOARDS,
        "boards whose first place depends on how scores are put together",
        low,
        high,
        BOARDS,
        columns=("boards", "first place moves"),
        rows=((str(BOARDS), float(moved)),),
    )


def judge(m: Measurement) -> Verdict:
    """A single score means the same first place whatever the rule."""
    if m.bounds[0] > 0.1:
        return ruling(
            "holds in part",
            f"a single score can be given, but on {m.value:.0%} of boards the first place depends on mean, "
            "z-score, Borda or win rate",
        )
    if m.bounds[1] > 0.1:
        told = f"the first place depends on the rule on {m.value:.0%} of {m.n} boards"
        return ruling("cannot be tested here", f"{told}, too few to say whether on more than 10%")
    return ruling("holds here", f"the first place is the same by all four rules on {1 - m.value:.0%} of boards")
