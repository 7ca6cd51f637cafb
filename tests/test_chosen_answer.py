"""Answers that are a sentence of the passages, chosen by how likely the question is after it."""

from __future__ import annotations

import asyncio

import pytest

from corpus_tiny import tiny_corpus
from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS, Answer
from firsthand.retrieval.answers.chosen import MARGIN, MAX_SENTENCES, candidates, chosen
from firsthand.retrieval.answers.citations import holds
from firsthand.retrieval.answers.variant_parts import recorded_answer
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.rag.naive import naive
from firsthand.retrieval.rag.team import team
from firsthand.retrieval.retriever import Hit
from firsthand.retrieval.writer import ModelWriter
from firsthand.rollout import rollout
from firsthand.task import Task

TEXTS = {
    "mill.md": (
        "# When was the mill built?\n\nThe mill was built in 1871. It burned down\nin 1902. "
        "Was the wheel rebuilt? Nobody died.\n"
    ),
    "river.md": "The river Tesk has 12 bridges.\nThe mill stands beside it.\n",
}
CORPUS = tiny_corpus(TEXTS)
QUESTION = "When was the mill  built?"
WORDS = 5


def hits() -> list[Hit]:
    return [Hit(Chunk(name, 0, len(text), text), 1.0) for name, text in TEXTS.items()]


def by_sentence(gains: dict[str, float], alone: float = -20.0) -> Scripted:
    """A model after whose sentences the question is likelier by so many nats."""

    def logprob(prompt: str, continuation: str) -> float:
        assert continuation == "When was the mill built?"
        return alone + sum(gain for sentence, gain in gains.items() if sentence in prompt)

    return Scripted(lambda messages, sampling, index: "READY", score=logprob)


def ask(gains: dict[str, float], found: list[Hit] | None = None) -> tuple[Answer, Scripted]:
    model = by_sentence(gains)
    return asyncio.run(chosen(QUESTION, hits() if found is None else found, ModelWriter(model), CORPUS)), model


def test_the_sentence_after_which_the_question_is_likeliest_is_quoted_word_for_word() -> None:
    made, _ = ask({"It burned down in 1902.": 9.0, "The mill was built": 8.0})
    assert made.text == "“It burned down in 1902.” [1]"
    (citation,) = made.citations
    assert citation.quote == "It burned down\nin 1902." and citation.match == "exact" and citation.label == "mill.md:3"
    assert holds(citation, CORPUS.index.document("mill.md"))
    assert made.unsupported == () and made.forged == 0


def test_a_question_that_no_sentence_makes_likelier_by_the_margin_is_refused() -> None:
    least = MARGIN * WORDS
    assert ask({"The mill was built": least + 0.01})[0].in_documents
    made, _ = ask({"The mill was built": least - 0.01})
    assert made.text == NOT_IN_DOCUMENTS and made.citations == () and made.hits


def test_without_passages_the_model_is_not_asked() -> None:
    made, model = ask({}, [])
    assert made.text == NOT_IN_DOCUMENTS and model.asked == []


def test_headings_questions_short_and_repeated_sentences_are_no_candidates() -> None:
    found = candidates(hits())
    quoted = {hits()[each.hit].chunk.text[each.start : each.end] for each in found}
    assert "The mill was built in 1871." in quoted and "Nobody died." in quoted
    assert not any(each.startswith("#") or each.endswith("?") for each in quoted)
    twice = [Hit(Chunk(name, 0, 27, "The mill was built in 1871. Yes."), 1.0) for name in ("a", "b")]
    assert [(each.hit, each.start, each.end) for each in candidates(twice)] == [(0, 0, 27)]


def test_no_more_than_forty_sentences_are_scored() -> None:
    text = " ".join(f"The mill had owner number {number}." for number in range(60))
    assert len(candidates([Hit(Chunk("mill.md", 0, len(text), text), 1.0)])) == MAX_SENTENCES


def test_a_sentence_is_shown_with_its_source_and_without_control_tokens() -> None:
    text = "The mill <|im_end|> was built in 1871."
    _, model = ask({}, [Hit(Chunk("mill.md", 0, len(text), text, heading="Mills > Old"), 1.0)])
    shown = model.asked[-1].prompt[-1].text
    assert "Mills > Old: The mill <\\|im_end|> was built" in shown


def test_a_model_without_log_probs_is_named() -> None:
    class Mute(Scripted):
        async def score(self, prompt, continuations):  # type: ignore[no-untyped-def]
            raise ConfigError(f"{self.name} gives no log-probs")

    with pytest.raises(ConfigError, match="gives no log-probs"):
        asyncio.run(chosen(QUESTION, hits(), ModelWriter(Mute([])), CORPUS))


@pytest.mark.parametrize("pattern", [naive, team])
def test_variants_take_the_form_and_record_the_answer(pattern, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from firsthand.claims.made_up_pages import put_pages

    put_pages(tmp_path / "pages.index", TEXTS)
    model = by_sentence({"The mill was built": 9.0})
    options = {"index": str(tmp_path / "pages.index"), "search": "lexical", "form": "chosen"}
    trace = asyncio.run(rollout(Agent("a", model, pattern, options), Task("t", "When was the mill built?")))
    assert trace.error is None and trace.answer == "“The mill was built in 1871.” [1]"
    recorded = recorded_answer(trace)
    assert recorded is not None and recorded["citations"][0]["quote"] == "The mill was built in 1871."
