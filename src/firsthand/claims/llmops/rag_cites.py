"""Quotations that resolve to a document, from RAG and from a fine-tuned model."""

from __future__ import annotations

from random import Random
from statistics import fmean

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Citability / traceability: RAG source attribution built-in; fine-tuning hard to attribute",
    source="the list's table of RAG and fine-tuning",
    kind="ours",
    cost_s=3,
)
PEOPLE = 64


def measure(lab: Lab) -> Measurement:
    """Half of 256 facts change after training; each arm writes the fact as a sentence, which must stand in a document.

    The RAG arm's sentence is looked for in the passage it was shown; the fine-tuned one's, which has none, in the
    document that a search finds for the question afterwards.
    """
    from firsthand.claims.fact_arms import closed_book, correct, fact_index, read, recalled
    from firsthand.claims.fact_language import changed, facts_of, people, sentence
    from firsthand.claims.fact_models import epochs, reader, tuned
    from firsthand.retrieval.answers.citations import find_quote

    before = facts_of(people(PEOPLE, lab.seed), Random(f"cites-{lab.seed}"))
    now = changed(before, 0.5, Random(f"cites-change-{lab.seed}"))
    samples, asked = closed_book(before), list(now)
    with fact_index(now) as index:
        hits = index.search(asked)
        given = {
            "RAG, the passage shown": read(reader(lab), index, asked),
            "fine-tuned, a search afterwards": recalled(tuned(lab, samples, steps=epochs(samples)), asked),
        }
    found, rows = [], []
    for name, texts in given.items():
        stands = [
            float(find_quote(hit.chunk.text, sentence(*each, text)) is not None)
            for hit, each, text in zip(hits, asked, texts, strict=True)
        ]
        found.append(stands)
        rows.append((name, fmean(correct(texts, asked, now)), fmean(stands)))
    gain = paired(*found)
    return Measurement(
        gain.difference,
        "answers whose sentence stands in a document, RAG less the fine-tuned model with a search afterwards",
        gain.low,
        gain.high,
        len(asked),
        columns=("arm", "right", "quotation resolves"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """RAG's quotations resolve nine times of ten, and a search afterwards finds few (under half) for the other."""
    shown = m.cell("RAG, the passage shown", "quotation resolves")
    after = m.cell("fine-tuned, a search afterwards", "quotation resolves")
    told = f"{shown:.0%} of RAG's sentences stand in the passage it was shown"
    if m.bounds[0] <= 0 or shown < 0.9:
        return ruling(
            "does not hold here", f"{told}, {m.value:+.0%} against a fine-tuned model with a search afterwards"
        )
    if after < 0.5:
        return ruling("holds here", f"{told}; a search afterwards finds {after:.0%} of the fine-tuned model's")
    return ruling(
        "holds in part",
        f"{told}; the fine-tuned model names no source, but a search afterwards finds {after:.0%} of its sentences, and "
        "fails where it is out of date",
    )
