"""Right answers by the number of facts, from an index and from a fine-tuned model."""

from __future__ import annotations

from random import Random
from statistics import fmean

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Knowledge size: RAG unlimited (external DB); fine-tuning limited by context/capacity",
    source="the list's table of RAG and fine-tuning",
    kind="ours",
    cost_s=25,
)
PEOPLE = (16, 128, 1024)
ASKED = 400


def measure(lab: Lab) -> Measurement:
    """64, 512 and 4,096 facts: a question for 400 of them; the fine-tuned model sees each fact 40 times at every size."""
    from firsthand.claims.fact_arms import closed_book, correct, fact_index, read, recalled
    from firsthand.claims.fact_language import facts_of, people
    from firsthand.claims.fact_models import epochs, reader, tuned
    from firsthand.stats.intervals import proportion_interval

    model, rows = reader(lab), []
    for count in PEOPLE:
        rng = Random(f"size-{lab.seed}-{count}")
        facts = facts_of(people(count, lab.seed), rng)
        asked = rng.sample(list(facts), min(ASKED, len(facts)))
        with fact_index(facts) as index:
            searched = fmean(correct(read(model, index, asked), asked, facts))
        samples = closed_book(facts)
        learned = fmean(correct(recalled(tuned(lab, samples, steps=epochs(samples)), asked), asked, facts))
        rows.append((str(len(facts)), searched, learned))
    low, high = proportion_interval(round(rows[-1][2] * ASKED), ASKED)
    return Measurement(
        rows[-1][2],
        f"right answers of the fine-tuned model of {sum(each.numel() for each in model.parameters()):,} weights at "
        f"{rows[-1][0]} facts",
        low,
        high,
        ASKED,
        columns=("facts", "RAG", "fine-tuned"),
        rows=tuple(rows),
        curves={
            name: [(float(row[0]), float(row[at])) for row in rows] for at, name in ((1, "RAG"), (2, "fine-tuned"))
        },
        axes=("facts", "right answers"),
    )


def judge(m: Measurement) -> Verdict:
    """From the fewest facts to the most, RAG loses less than 5 points and the fine-tuned model more than 20."""
    drop = {name: m.rows[0][at] - m.rows[-1][at] for at, name in ((1, "RAG"), (2, "tuned"))}  # type: ignore[operator]
    sizes = f"from {m.rows[0][0]} to {m.rows[-1][0]} facts"
    told = f"{sizes} RAG loses {drop['RAG']:.0%}, the fine-tuned model {drop['tuned']:.0%}"
    if drop["RAG"] < 0.05 and drop["tuned"] > 0.2:
        return ruling("holds here", f"{told}; an index is bounded by disk and time, which is not `unlimited`")
    if drop["RAG"] < 0.05:
        return ruling("holds in part", f"{told}: its capacity is not reached at this size")
    return ruling("does not hold here", told)
