"""Changes that an evaluation can tell from chance."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote="Without evals, you can't know if a prompt change helped or hurt.",
    source="Hamel Husain, Your AI product needs evals",
    kind="sim",
    cost_s=3,
)
SIZES = (10, 30, 100, 300, 1000)
TRIALS = 60


def measure(lab: Lab) -> Measurement:
    """A change that helps by ten points, tried on more and more tasks."""
    from random import Random

    rng, rows = Random(lab.seed), []
    for tasks in SIZES:
        known = 0
        for _ in range(TRIALS):
            ease = [rng.random() for _ in range(tasks)]
            before = [float(rng.random() < each) for each in ease]
            after = [float(rng.random() < min(1.0, each + 0.1)) for each in ease]
            known += paired(after, before).low > 0
        rows.append((str(tasks), known / TRIALS))
    low, high = proportion_interval(round(rows[0][1] * TRIALS), TRIALS)
    return Measurement(
        rows[0][1],
        f"chance that {SIZES[0]} examples show an improvement of 10 points",
        low,
        high,
        TRIALS,
        columns=("tasks", "chance to see it"),
        rows=tuple(rows),
        curves={"seen": [(float(r[0]), r[1]) for r in rows]},
        axes=("tasks", "chance to see +10 points"),
    )


def judge(m: Measurement) -> Verdict:
    """Looking at a few examples must mostly miss it."""
    if max(m.value, m.bounds[1]) < 0.2:
        return ruling(
            "holds here",
            f"a look at a few examples shows it in {m.value:.0%} of cases; a hundred tasks are too few, too: "
            "`firsthand power` says how many are needed",
        )
    if m.value < 0.2:
        told = f"a look at a few examples shows it in {m.value:.0%} of {m.n} cases"
        return ruling("holds in part", f"{told}, too few to say that it mostly misses it")
    return ruling("holds in part", f"even a few examples show it in {m.value:.0%} of cases")
