"""CPU time to take in changed facts, by an index and by fine-tuning."""

from __future__ import annotations

import time
from random import Random
from statistics import fmean

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Cost to update: RAG update index only; fine-tuning retrain or re-fine-tune",
    source="the list's table of RAG and fine-tuning",
    kind="ours",
    cost_s=6,
)
PEOPLE = 64
REPEATS = 3
STEPS, MOST_STEPS = 20, 400


def measure(lab: Lab) -> Measurement:
    """An eighth of 256 facts change, three times: CPU seconds of the index, and of training until 95% are right.

    Training goes on from the model as it was, on all facts as they are now, in pieces of 20 steps up to 400.
    """
    from firsthand.claims.fact_arms import closed_book, correct, fact_index, recalled
    from firsthand.claims.fact_language import changed, facts_of, people
    from firsthand.claims.fact_models import epochs, train, tuned

    facts = facts_of(people(PEOPLE, lab.seed), Random(f"cost-{lab.seed}"))
    samples, rows = closed_book(facts), []
    model = tuned(lab, samples, steps=epochs(samples))
    with fact_index(facts) as index:
        for repeat in range(REPEATS):
            facts = changed(facts, 0.125, Random(f"cost-{lab.seed}-{repeat}"))
            asked, steps, trained = list(facts), 0, 0.0
            indexed, right = index.update(facts), 0.0
            while right < 0.95 and steps < MOST_STEPS:
                start = time.process_time()
                train(model, closed_book(facts), steps=STEPS, seed=lab.seed + steps)
                trained += time.process_time() - start
                steps += STEPS
                right = fmean(correct(recalled(model, asked), asked, facts))
            rows.append((str(repeat + 1), indexed, trained, float(steps), right))
    return _measured(rows)


def _measured(rows: list[tuple[str, float, float, float, float]]) -> Measurement:
    """`rows`: change, seconds of the index, seconds of training, steps, share that is right after them."""
    ratios = sorted(row[2] / row[1] for row in rows)
    return Measurement(
        ratios[REPEATS // 2],
        "CPU seconds of training over those of the index; the median of three changes, with the least and the most",
        ratios[0],
        ratios[-1],
        REPEATS,
        columns=("change", "index, s", "training, s", "steps", "right after it"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Twice the time in the cheapest case is a difference; more time in the median is one in part."""
    if m.bounds[0] >= 2:
        return ruling("holds here", f"training takes {m.value:.0f} times the CPU time of the index, for a tiny model")
    if m.value > 1:
        return ruling(
            "holds in part", f"training takes {m.value:.1f} times the CPU time of the index, for a tiny model"
        )
    return ruling("does not hold here", f"training takes {m.value:.1f} times the CPU time of the index")
