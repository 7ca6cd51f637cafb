"""Recall by length, inside the window."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote="RULER benchmark tests real long-context retrieval vs. just fitting",
    source="Hsieh et al. 2024, arXiv:2404.06654",
    kind="small",
    cost_s=10,
    needs=("model smollm2",),
)
LINES = (2, 8, 32)
ITEMS = 12


def measure(lab: Lab) -> Measurement:
    """One of many similar facts is asked for, in longer and longer texts."""
    from random import Random

    from firsthand.claims.architecture.lost_in_the_middle import CODES, NAMES
    from firsthand.loop.concurrency import run_sync

    model, found = lab.model("smollm2"), {}
    for lines in LINES:
        hits = []
        for item in range(ITEMS):
            rng = Random(f"{lab.seed}-{lines}-{item}")
            people = [f"{rng.choice(NAMES)} {number}" for number in rng.sample(range(100, 999), lines)]
            colours = [rng.choice(CODES) for _ in people]
            text = "\n".join(f"The colour of {one} is {colour}." for one, colour in zip(people, colours, strict=True))
            at = rng.randrange(lines)
            scored = run_sync(
                model.score(f"{text}\nThe colour of {people[at]} is", [f" {code}" for code in CODES])
            ).likelihoods
            hits.append(float(CODES[max(range(len(CODES)), key=lambda i: scored[i].logprob)] == colours[at]))
        found[lines] = hits
    rows = tuple((str(lines), sum(hits) / ITEMS) for lines, hits in found.items())
    low, high = proportion_interval(sum(found[LINES[-1]]), ITEMS)
    return Measurement(
        rows[0][1] - rows[-1][1],
        f"recall among {LINES[0]} facts less that among {LINES[-1]} (there in [{low:.0%}, {high:.0%}]); all fit "
        "the window",
        n=ITEMS,
        columns=("facts", "recall"),
        rows=rows,
        curves={"SmolLM2 135M": [(float(r[0]), r[1]) for r in rows]},
        axes=("facts in the text", "recall"),
    )


def judge(m: Measurement) -> Verdict:
    """A fall inside the window shows the difference."""
    if m.value >= 0.2:
        return ruling("holds here", f"recall falls by {m.value:.0%} while the text still fits: fitting is not finding")
    if m.value > 0:
        return ruling("holds in part", f"recall falls by {m.value:.0%} while the text still fits")
    return ruling("does not hold here", "recall does not fall within these lengths")
