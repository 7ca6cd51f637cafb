"""A task that is trained, and one that is shown by examples."""

from __future__ import annotations

from random import Random
from statistics import fmean

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Task specialization: RAG general behavior; fine-tuning deep task expertise",
    source="the list's table of RAG and fine-tuning",
    kind="ours",
    cost_s=7,
)
PEOPLE, HELD = 192, 32
EXAMPLES = 3


def measure(lab: Lab) -> Measurement:
    """The task: answer with the code of the value, by a fixed table. Asked about people who were not trained on.

    Both arms read the passage that a search finds; RAG's model sees three examples of the task, the other was trained on
    768. The last column is what each does with the plain question for the value, which both could answer before.
    """
    from firsthand.claims.fact_arms import correct, fact_index, read
    from firsthand.claims.fact_language import VALUES, facts_of, people, question, sentence
    from firsthand.claims.fact_models import Sample, epochs, reader, tuned

    codes = dict(zip(VALUES, Random(f"codes-{lab.seed}").sample(VALUES, len(VALUES)), strict=True))
    persons = people(PEOPLE + HELD, lab.seed)
    trained, held = (
        facts_of(part, Random(f"task-{lab.seed}-{at}")) for at, part in enumerate((persons[:PEOPLE], persons[PEOPLE:]))
    )
    asked, wanted = list(held), {each: codes[value] for each, value in held.items()}
    samples = [Sample(f"so {sentence(*each, v)} {question(*each)}", f"{codes[v]} .") for each, v in trained.items()]
    shown = " ".join(f"{each.prompt} {each.answer}" for each in samples[:EXAMPLES])
    model, expert = reader(lab), tuned(lab, samples, steps=epochs(samples))
    with fact_index(held) as index:
        found = {
            "RAG, three examples": correct(read(model, index, asked, before=f"{shown} so"), asked, wanted),
            "fine-tuned": correct(read(expert, index, asked, before="so"), asked, wanted),
        }
        plain = [fmean(correct(read(each, index, asked), asked, held)) for each in (model, expert)]
    gain = paired(found["fine-tuned"], found["RAG, three examples"])
    return Measurement(
        gain.difference,
        "right codes, fine-tuned less shown by examples; both with the passage",
        gain.low,
        gain.high,
        len(asked),
        columns=("arm", "the task", "the plain question"),
        rows=tuple((name, fmean(each), kept) for (name, each), kept in zip(found.items(), plain, strict=True)),
    )


def judge(m: Measurement) -> Verdict:
    """Ahead by half of the answers at the task; ahead at all is part of it."""
    plain = m.cell("fine-tuned", "the plain question")
    told = f"{m.value:+.0%} at a task that was trained; of the plain questions the fine-tuned model answers {plain:.0%}"
    if m.bounds[0] > 0.5:
        return ruling("holds here", told)
    return ruling("holds in part" if m.bounds[0] > 0 else "does not hold here", told)
