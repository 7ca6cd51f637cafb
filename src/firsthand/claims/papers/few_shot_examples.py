"""A small model's answers with and without examples."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Demonstrates that scale alone enables emergent few-shot and zero-shot learning.",
    source="Brown et al. 2020, arXiv:2005.14165",
    kind="small",
    cost_s=8,
    needs=("model smollm2",),
)
ANIMALS = [
    "cat",
    "dog",
    "horse",
    "lion",
    "tiger",
    "wolf",
    "rabbit",
    "sheep",
    "eagle",
    "salmon",
    "goat",
    "mouse",
    "bear",
    "duck",
    "snake",
    "frog",
]
TOOLS = [
    "hammer",
    "saw",
    "drill",
    "wrench",
    "pliers",
    "shovel",
    "axe",
    "ladder",
    "screwdriver",
    "rake",
    "knife",
    "brush",
    "needle",
    "scissors",
    "nail",
    "spade",
]


def measure(lab: Lab) -> Measurement:
    """Animals are zil and tools are fop: a rule that no text has, told by examples alone."""
    from random import Random

    from firsthand.loop.concurrency import run_sync

    model, rng, rows, right = lab.model("smollm2"), Random(lab.seed), [], {}
    items = [(word, "zil") for word in ANIMALS] + [(word, "fop") for word in TOOLS]
    rng.shuffle(items)
    shown, asked = items[:8], items[8:]
    for shots in (0, 2, 8):
        head = "".join(f"{word}: {label}\n" for word, label in shown[:shots])
        hits = []
        for word, label in asked:
            scored = run_sync(model.score(f"{head}{word}:", [" zil", " fop"])).likelihoods
            hits.append(float((scored[0].logprob > scored[1].logprob) == (label == "zil")))
        right[shots] = hits
        rows.append((str(shots), sum(hits) / len(hits)))
    gain = paired(right[8], right[0])
    return Measurement(
        gain.difference,
        "accuracy with 8 examples of a made-up rule less that with none",
        gain.low,
        gain.high,
        len(asked),
        columns=("examples", "accuracy"),
        rows=tuple(rows),
        curves={"SmolLM2 135M": [(float(r[0]), r[1]) for r in rows]},
        axes=("examples", "accuracy"),
    )


def judge(m: Measurement) -> Verdict:
    """If a small model gains from examples, scale is not what it takes."""
    if m.bounds[0] > 0:
        return ruling(
            "holds in part",
            f"135M parameters learn a rule from examples too ({m.value:+.0%}): it is not scale alone, and scale "
            "is not tested here",
        )
    if m.value > 0:
        return ruling("cannot be tested here", f"{m.value:+.0%}, within the interval of no difference")
    return ruling(
        "holds here", f"examples do not help 135M parameters ({m.value:+.0%}), so that scale may be what it takes"
    )
