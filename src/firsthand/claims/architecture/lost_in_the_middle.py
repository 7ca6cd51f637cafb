"""Recall by the place of a fact."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote='"Lost in the middle" phenomenon shows models attend better to tokens at the start/end.',
    source="Liu et al. 2023, arXiv:2307.03172",
    kind="small",
    cost_s=10,
    needs=("model smollm2",),
)
PLACES = (0.0, 0.5, 1.0)
ITEMS, LINES = 16, 16
NAMES = [
    "Ann",
    "Ben",
    "Cleo",
    "Dan",
    "Eve",
    "Fay",
    "Gus",
    "Hal",
    "Ida",
    "Joe",
    "Kim",
    "Leo",
    "Mia",
    "Ned",
    "Ora",
    "Pat",
    "Roy",
    "Sue",
    "Tom",
    "Una",
]
CODES = [
    "red",
    "blue",
    "green",
    "black",
    "white",
    "brown",
    "pink",
    "grey",
    "gold",
    "orange",
    "purple",
    "silver",
    "yellow",
    "violet",
    "cyan",
    "tan",
    "ivory",
    "navy",
    "teal",
    "lime",
]


def measure(lab: Lab) -> Measurement:
    """Sixteen facts, of which one is asked for; its place is moved and the rest stays."""
    from random import Random

    from firsthand.loop.concurrency import run_sync

    model, found = lab.model("smollm2"), {}
    for place in PLACES:
        hits = []
        for item in range(ITEMS):
            rng = Random(f"{lab.seed}-{item}")
            names, codes = rng.sample(NAMES, LINES), rng.sample(CODES, LINES)
            at = round(place * (LINES - 1))
            order = list(range(1, LINES))
            order.insert(at, 0)
            lines = "\n".join(f"The colour of {names[i]} is {codes[i]}." for i in order)
            scored = run_sync(
                model.score(f"{lines}\nThe colour of {names[0]} is", [f" {code}" for code in codes])
            ).likelihoods
            hits.append(float(max(range(LINES), key=lambda i: scored[i].logprob) == 0))
        found[place] = hits
    rows = tuple((f"{place:.0%}", sum(hits) / ITEMS) for place, hits in found.items())
    edges = [(a + b) / 2 for a, b in zip(found[PLACES[0]], found[PLACES[-1]], strict=True)]
    gap = paired(edges, found[0.5])
    return Measurement(
        gap.difference,
        "recall at start and end less that in the middle",
        gap.low,
        gap.high,
        ITEMS,
        columns=("place of the fact", "recall"),
        rows=rows,
        curves={"SmolLM2 135M": [(p, sum(h) / ITEMS) for p, h in found.items()]},
        axes=("place of the fact", "recall"),
    )


def judge(m: Measurement) -> Verdict:
    """Both ends above the middle, beyond chance."""
    if m.bounds[0] > 0:
        return ruling("holds here", f"start and end are recalled {m.value:+.0%} better than the middle")
    if m.value > 0:
        return ruling("holds in part", f"{m.value:+.0%}, within the interval of no difference, in a short text")
    return ruling(
        "does not hold here",
        f"{m.value:+.0%}: the middle is not worse here; `firsthand run lost_in_middle` has the paper's task",
    )
