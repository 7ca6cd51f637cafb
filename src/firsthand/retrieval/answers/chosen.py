"""An answer that is a sentence of the passages: the one under which the question is likeliest, or none.

The model writes nothing. It says how likely the question is after each sentence (query likelihood: Ponte and Croft, 1998;
with a language model that is asked for a question: Sachan et al., 2022). Small models that neither cite nor refuse can tell
that. If no sentence makes the question likelier than it is without one, the documents do not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS, Answer
from firsthand.retrieval.answers.citations import Citation, label_of, locate, sentences
from firsthand.retrieval.answers.evidence import escaped
from firsthand.retrieval.answers.held_words import content_words
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.retriever import Hit
from firsthand.retrieval.retrievers.selection import above
from firsthand.retrieval.writer import Writer

MARGIN = 1.25
"""Nats for each word of the question by which a sentence must make it likelier, at least."""
MAX_SENTENCES = 40
MIN_WORDS = 2
"""A sentence of fewer content words states nothing that can be quoted alone."""
_ALONE = "Write a question."
_ASKED = "Write a question that this sentence answers.\n\n{source}: {sentence}"


class Candidate(NamedTuple):
    """A sentence of a passage."""

    hit: int
    start: int
    end: int
    """Its span in the passage."""


async def chosen(
    question: str,
    hits: Sequence[Hit],
    writer: Writer,
    corpus: Corpus,
    *,
    floor: float | None = None,
    margin: float = MARGIN,
) -> Answer:
    """The sentence under which the question is likeliest, quoted and cited; NOT_IN_DOCUMENTS if none passes the margin.

    A scoring request for each sentence of the hits, 40 at most, and one for the question alone. ConfigError if the model has
    no log-probs.
    """
    hits = await above(corpus, question, hits, floor)
    found = candidates(hits)
    if not found:
        return Answer(NOT_IN_DOCUMENTS, hits=tuple(hits))
    asked = " ".join(question.split())
    (alone,) = await writer.logprobs(_ALONE, (asked,))
    likelihoods = []
    for each in found:
        chunk = hits[each.hit].chunk
        sentence = " ".join(chunk.text[each.start : each.end].split())
        prompt = _ASKED.format(source=escaped(chunk.heading or chunk.document), sentence=escaped(sentence))
        likelihoods.append((await writer.logprobs(prompt, (asked,)))[0])
    best = max(range(len(found)), key=likelihoods.__getitem__)
    if likelihoods[best] - alone < margin * len(asked.split()):
        return Answer(NOT_IN_DOCUMENTS, hits=tuple(hits))
    hit, start, end = found[best]
    chunk, place = hits[hit].chunk, (await locate(corpus, hits))[hit]
    quote, at = chunk.text[start:end], chunk.start + start
    label = label_of(hits[hit], place, at)
    cited = Citation(1, chunk.document, place.sha256, at, chunk.start + end, quote, place.source, label, "exact")
    return Answer(f"“{' '.join(quote.split())}” [1]", (cited,), tuple(hits))


def candidates(hits: Sequence[Hit]) -> list[Candidate]:
    """The sentences of the hits that can answer: no headings, fences or questions, and two content words or more."""
    found, told = [], set[str]()
    for number, hit in enumerate(hits):
        text = hit.chunk.text
        for start, end in sentences(text):
            sentence = text[start:end]
            folded = " ".join(sentence.casefold().split())
            if sentence.startswith(("#", "```")) or sentence.endswith(("?", "？", "؟")) or folded in told:
                continue
            if len(content_words(sentence)) >= MIN_WORDS:
                told.add(folded)
                found.append(Candidate(number, start, end))
    return found[:MAX_SENTENCES]
