"""Answers after facts have changed, from an index and from a fine-tuned model."""

from __future__ import annotations

from random import Random
from statistics import fmean

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Knowledge freshness: RAG real-time, always current; fine-tuning baked in at training time",
    source="the list's table of RAG and fine-tuning",
    kind="ours",
    cost_s=7,
)
PEOPLE = 64


def measure(lab: Lab) -> Measurement:
    """Half of 256 facts change; the index is brought up to date or not, the fine-tuned model trained again or not."""
    from firsthand.claims.fact_arms import closed_book, correct, fact_index, read, recalled
    from firsthand.claims.fact_language import changed, facts_of, people
    from firsthand.claims.fact_models import epochs, reader, tuned

    before = facts_of(people(PEOPLE, lab.seed), Random(f"fresh-{lab.seed}"))
    after = changed(before, 0.5, Random(f"change-{lab.seed}"))
    new = [each for each in after if after[each] != before[each]]
    same = [each for each in after if after[each] == before[each]]
    model, found = reader(lab), {}
    with fact_index(before) as index:
        found["RAG, index not updated"] = [correct(read(model, index, each), each, after) for each in (new, same)]
        index.update(after)
        found["RAG, index updated"] = [correct(read(model, index, each), each, after) for each in (new, same)]
    for name, facts in (("fine-tuned, not trained again", before), ("fine-tuned again", after)):
        samples = closed_book(facts)
        arm = tuned(lab, samples, steps=epochs(samples))
        found[name] = [correct(recalled(arm, each), each, after) for each in (new, same)]
    gain = paired(found["RAG, index updated"][0], found["fine-tuned, not trained again"][0])
    return Measurement(
        gain.difference,
        "right answers on changed facts, RAG with its index updated less the fine-tuned model as it was",
        gain.low,
        gain.high,
        len(new),
        columns=("arm", "changed facts", "unchanged facts"),
        rows=tuple((name, fmean(each[0]), fmean(each[1])) for name, each in found.items()),
    )


def judge(m: Measurement) -> Verdict:
    """Ahead by half of the answers, and `always current`: right on changed facts before its index is updated too."""
    stale = m.cell("RAG, index not updated", "changed facts")
    if m.bounds[0] <= 0:
        return ruling("does not hold here", f"{m.value:+.0%} of the answers on changed facts")
    if m.bounds[0] > 0.5 and stale > 0.5:
        return ruling(
            "holds here", f"{m.value:+.0%} of the answers on changed facts, whether the index is updated or not"
        )
    return ruling(
        "holds in part",
        f"{m.value:+.0%} of the answers on changed facts once the index is updated; before that {stale:.0%} are right: "
        "RAG is as current as its index",
    )
