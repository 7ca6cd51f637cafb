"""Text scorers beside the reference packages, and embedding similarity beside its definition."""

import dataclasses
import random

import pytest

import firsthand
from firsthand.scorers.text import (
    bleu,
    chrf,
    corpus_bleu,
    corpus_chrf,
    embedding_similarity,
    f1,
    rouge,
    rouge_l,
    rouge_l_of,
    token_f1,
)
from firsthand.task import Task
from firsthand.trace import Trace

EMPTY = Trace("t", "b", "a", {"name": "n"}, 0, 0, "2026-01-01T00:00:00+00:00", 0.0)
PAIRS = [
    ("The cat sat on the mat.", "A cat was sitting on the mat."),
    ("Er kam, sah und siegte.", "Er kam und siegte, nachdem er gesehen hatte."),
    ("identical text here", "identical text here"),
    ("", "nothing was said"),
    ("完全に違う文", "全く違う文です"),
]


def value(scorer, answer, *references):
    task = Task("a", "p", secret={"references": list(references)})
    return scorer(task, dataclasses.replace(EMPTY, answer=answer)).value


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "reference"), PAIRS)
def test_bleu_chrf_and_rouge_are_those_of_the_packages(answer, reference):
    sacrebleu = pytest.importorskip("sacrebleu")
    rouge_score = pytest.importorskip("rouge_score.rouge_scorer")
    assert value(bleu, answer, reference) == pytest.approx(sacrebleu.sentence_bleu(answer, [reference]).score / 100)
    assert value(chrf, answer, reference) == pytest.approx(sacrebleu.sentence_chrf(answer, [reference]).score / 100)
    theirs = rouge_score.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(reference, answer)
    found = rouge(answer, reference)
    assert {name: found[name] for name in theirs} == {name: each.fmeasure for name, each in theirs.items()}
    if reference.isascii():
        assert value(rouge_l, answer, "other words", reference) >= found["rougeL"]
    else:
        with pytest.raises(firsthand.errors.DataError, match="in a script that ROUGE does not read"):
            value(rouge_l, answer, "other words", reference)


@pytest.mark.slow
def test_rouge_l_is_the_package_s_on_any_texts_and_fast_on_long_ones():
    rouge_score = pytest.importorskip("rouge_score.rouge_scorer")
    theirs, rng = rouge_score.RougeScorer(["rougeL"], use_stemmer=True), random.Random(3)
    words = ["the", "cat", "cats", "sat", "running", "runs", "x1", "é", "-", "A"]
    for _ in range(300):
        answer, reference = (" ".join(rng.choices(words, k=rng.randrange(12))) for _ in range(2))
        assert rouge_l_of(answer, reference) == theirs.score(reference, answer)["rougeL"].fmeasure
    assert 0 < rouge_l_of("a b " * 5000, "the cat a b " * 1600) < 1  # 10,000 words against 6,400


def test_a_corpus_is_no_mean_of_its_sentences():
    sacrebleu = pytest.importorskip("sacrebleu")
    answers, references = [a for a, _ in PAIRS], [[b] for _, b in PAIRS]
    assert corpus_bleu(answers, references) == pytest.approx(
        sacrebleu.corpus_bleu(answers, [[b for _, b in PAIRS]]).score / 100
    )
    assert corpus_chrf(answers, references) == pytest.approx(
        sacrebleu.corpus_chrf(answers, [[b for _, b in PAIRS]]).score / 100
    )
    ragged = [["The cat sat.", "A cat sat."], ["He came."]]
    assert corpus_bleu(["A cat sat.", "He came."], ragged) == pytest.approx(1.0)


def test_token_f1_is_that_of_squad():
    assert f1("The Norman conquest, of 1066", "norman conquest") == pytest.approx(2 * 2 / (4 + 2))
    assert f1("", "") == 1 and f1("a", "the") == 0 and f1("", "x") == 0 and f1("x x", "x") == pytest.approx(2 / 3)
    assert value(token_f1, "Denver Broncos", "Carolina", "the Denver Broncos") == 1


def test_similarity_is_the_cosine_with_the_nearest_reference():
    class Axes:
        name = "axes"

        async def embed(self, texts):
            known = {"x": [1.0, 0.0], "y": [0.0, 1.0], "between": [0.6, 0.8]}
            return [known[text] for text in texts]

    scorer = embedding_similarity(Axes())

    def similarity(answer, *references):
        task = Task("a", "p", secret={"references": list(references)})
        return firsthand.run_sync(scorer(task, dataclasses.replace(EMPTY, answer=answer))).value

    assert similarity("between", "x", "y") == pytest.approx(0.8)
    assert similarity("x", "x") == 1 and similarity("x", "y") == 0 and similarity("  ", "y") == 0


@pytest.mark.parametrize("reference", ["Столица Франции - Париж", "东京 3", "ab где"])
def test_rouge_refuses_a_reference_whose_letters_it_drops(reference):
    pytest.importorskip("rouge_score")
    attempt = Trace("t", "b", "a", {"name": "x"}, 0, 0, "2026-01-01T00:00:00+00:00", 1.0, answer="x")
    with pytest.raises(firsthand.errors.DataError, match="in a script that ROUGE does not read: take chrf"):
        rouge_l(Task("a", "?", secret={"references": [reference]}), attempt)
    for read in ("ab гд", "été à Paris", "1147", "3 α-helices"):
        assert (
            rouge_l(Task("a", "?", secret={"references": [read]}), dataclasses.replace(attempt, answer=read)).value == 1
        )


@pytest.mark.parametrize("words", [1, 3, 7, 9])
def test_a_perfect_answer_has_a_bleu_of_exactly_1(words):
    pytest.importorskip("sacrebleu")
    text = " ".join(f"w{n}" for n in range(words))
    assert value(bleu, text, text) == 1.0 and value(chrf, text, text) == 1.0
    assert corpus_bleu([text], [[text]]) <= 1.0


def test_similarity_of_vectors_of_rounded_length_stays_within_its_range():
    class Rounded:
        name = "rounded"

        async def embed(self, texts):
            return [[-1.00001] if text == "opposite" else [1.00001] for text in texts]

    def similarity(answer, reference):
        task = Task("a", "p", secret={"references": [reference]})
        scored = embedding_similarity(Rounded())(task, dataclasses.replace(EMPTY, answer=answer))
        return firsthand.run_sync(scored).value

    assert (similarity("x", "x"), similarity("x", "opposite")) == (1.0, -1.0)
