"""Answers in a format that is trained, and in one that is shown by examples."""

from __future__ import annotations

from random import Random
from statistics import fmean

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Response style / tone: RAG harder to control; fine-tuning strong style consistency",
    source="the list's table of RAG and fine-tuning",
    kind="ours",
    cost_s=4,
)
PEOPLE = 64
FORM = "so {} !"


def measure(lab: Lab) -> Measurement:
    """Questions about people that were not trained on; two examples of the format stand before RAG's passage."""
    from firsthand.claims.fact_arms import closed_book, fact_index, read, recalled
    from firsthand.claims.fact_language import VALUES, facts_of, people, question, sentence
    from firsthand.claims.fact_models import epochs, reader, tuned

    persons = people(2 * PEOPLE, lab.seed)
    trained, held = (
        facts_of(part, Random(f"style-{lab.seed}-{at}")) for at, part in enumerate((persons[:PEOPLE], persons[PEOPLE:]))
    )
    asked, samples = list(held), closed_book(trained, FORM)
    shown = " ".join(
        f"{sentence(*each, v)} {question(*each)} {FORM.format(v)}" for each, v in list(trained.items())[:2]
    )
    with fact_index(held) as index:
        given = {
            "RAG, no example": read(reader(lab), index, asked, words=3),
            "RAG, two examples": read(reader(lab), index, asked, before=shown, words=3),
            "fine-tuned": recalled(tuned(lab, samples, steps=epochs(samples)), asked, words=3),
        }
    forms = {FORM.format(value) for value in VALUES}
    found = {name: [float(text in forms) for text in texts] for name, texts in given.items()}
    gain = paired(found["fine-tuned"], found["RAG, two examples"])
    return Measurement(
        gain.difference,
        "answers in the format, fine-tuned less RAG with two examples of it",
        gain.low,
        gain.high,
        len(asked),
        columns=("arm", "in the format"),
        rows=tuple((name, fmean(each)) for name, each in found.items()),
    )


def judge(m: Measurement) -> Verdict:
    """Fine-tuned, nine answers of ten are in the format; shown, ten points fewer, beyond chance."""
    tuned = m.cell("fine-tuned", "in the format")
    if tuned < 0.9:
        return ruling("does not hold here", f"{tuned:.0%} of the fine-tuned model's answers are in the format")
    if m.bounds[0] > 0.1:
        return ruling(
            "holds here",
            f"{tuned:.0%} in the format after fine-tuning, {tuned - m.value:.0%} from two examples, in a tiny model that "
            "was trained to follow no instruction",
        )
    return ruling(
        "holds in part", f"{tuned:.0%} in the format after fine-tuning, {tuned - m.value:.0%} from two examples"
    )
