"""Texts compared by the packages' measures and by stemmed words, worked out by hand on short texts."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import DataError, MissingExtra
from firsthand.scorers import locomo_f1 as locomo
from firsthand.scorers import text
from firsthand.stats.figures import figure_detail
from firsthand.task import Task
from firsthand.trace import Trace


def attempt(answer: str | None) -> Trace:
    return Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer)


def task(**secret: Any) -> Task:
    return Task("t", "?", secret=secret)


@pytest.mark.slow
def test_rouge_counts_stemmed_words_pairs_and_subsequences() -> None:
    pytest.importorskip("rouge_score", reason="rouge-score is not installed")
    # the cat sat on mat, a cat sat: two words in common of 5 and 3, one pair of 4 and 2
    found = text.rouge("The cats sat\non mat", "a cat sat")
    assert found == {
        "rouge1": pytest.approx(0.5),
        "rouge2": pytest.approx(1 / 3),
        "rougeL": pytest.approx(0.5),
        "rougeLsum": pytest.approx(0.5),
    }
    assert (
        text.rouge("x y\na b", "a b\nx y")["rougeLsum"] == 1.0 and text.rouge("x y\na b", "a b\nx y")["rougeL"] == 0.5
    )
    assert text.rouge_l_of("c b a z", "a b c") == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert text.rouge_l_of("", "a") == text.rouge_l_of("a", "!") == 0.0
    best = text.rouge_l(task(references=["no", "a b c"]), attempt("a c"))
    assert (best.name, best.value, best.detail) == ("rouge_l", pytest.approx(0.8), {"answer": "a c"})


def test_bleu_and_chrf_use_all_references_and_keep_their_counts() -> None:
    pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    short = text.bleu(task(references=["a b c d e f", "x"]), attempt("a b c d e"))
    assert short.value == pytest.approx(math.exp(1 - 6 / 5)) and short.detail == figure_detail(
        "bleu", (5, 4, 3, 2, 5, 4, 3, 2, 5, 6)
    )
    assert text.bleu(task(answer="a b c d"), attempt("a b c d")).value == pytest.approx(1.0)
    # the second is the nearest: of n-grams of 1, 2, 3 and 4 letters 3, 2, 1 and none of the answer, 4, 3, 2 and 1 of its own
    nearest = text.chrf(task(references=["no", "a bcd", "xyzabc"]), attempt("ab c"))
    counts = [3, 4, 3, 2, 3, 2, 1, 2, 1, 0, 1, 0, *[0] * 6]
    precision, recall = 1.0, (3 / 4 + 2 / 3 + 1 / 2) / 3  # of the three orders that both have
    assert nearest.name == "chrf" and nearest.detail == figure_detail("chrf", counts)
    assert nearest.value == pytest.approx(5 * precision * recall / (4 * precision + recall))
    same = text.corpus_bleu(["a b c d", "e f g h"], [["a b c d"], ["no", "e f g h"]])
    assert same == pytest.approx(1.0) and text.corpus_bleu(["a b c d", "e f g h"], [["e f g h"], ["a b c d"]]) < 0.1
    assert text.corpus_chrf(["abc", "xyz"], [["abc"], ["xyz", "no"]]) == pytest.approx(1.0)


class Stems:
    """Takes off what NLTK's stemmer, which takes long to import, takes off these words too."""

    def stem(self, word: str) -> str:
        return word.removesuffix("ning").removesuffix("s") if len(word) > 3 else word


def test_answers_of_locomo_are_scored_by_their_category(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locomo, "stemmer", Stems)

    def scored(category: Any, answer: str | None, reference: Any) -> float:
        found = locomo.locomo_f1(task(category=category, answer=reference), attempt(answer))
        assert found.name == "locomo_f1" and not found.detail
        return found.value

    assert [
        scored(5, each, "x") for each in ("It is NOT mentioned.", "no information available", "No information", None)
    ] == [1.0, 1.0, 0.0, 0.0]
    assert scored("3", "dogs", " dog ; because") == 1.0 and scored(2, "dogs", "dog; because") == pytest.approx(2 / 3)
    assert scored(1, "cats, running", "run, cat, bird") == pytest.approx(2 / 3) and scored(
        1, "cats running", "cat"
    ) == pytest.approx(2 / 3)
    assert (
        scored(4, "The cat and 1,000 dogs", "cat 1000 a dog") == 1.0
        and scored(4, "", "x") == scored(4, "x", "the") == 0.0
    )
    assert scored(4, "2024", 2024) == 1.0
    assert locomo.stemmed_f1("a b b", "b b c c") == pytest.approx(2 * (2 / 2) * (2 / 4) / (2 / 2 + 2 / 4))
    assert scored(4, "x " * 10_000 + "right", "right") == pytest.approx(2 / 10_002)
    assert (scored(4, " " * 99_995 + "right", "right"), scored(4, " " * 99_996 + "right", "right")) == (1.0, 0.0)
    none = " " * 99_987 + "not mentioned"
    assert (scored(5, none, "x"), scored(5, f" {none}", "x")) == (1.0, 0.0), "more than 100,000 characters"
    assert (
        locomo.parts_f1(",".join("x" * 200) + ",right", "right") == 0.0
        and locomo.parts_f1(",".join("x" * 199) + ",right", "right") == 1.0
    )


class Words:
    """Splits texts as rouge-score's tokenizer, which takes long to import, splits these."""

    def __init__(self, use_stemmer: bool = False) -> None:
        self.stemmed = use_stemmer

    def tokenize(self, words: str) -> list[str]:
        split = words.replace("!", " ").lower().split()
        return [each.removesuffix("s") if self.stemmed and len(each) > 3 else each for each in split]


def test_rouge_l_is_of_stemmed_words_and_nothing_for_a_text_without_words(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rouge_score", reason="rouge-score is not installed")
    monkeypatch.setitem(sys.modules, "rouge_score.tokenizers", SimpleNamespace(DefaultTokenizer=Words))
    for answer, reference, value in (
        ("cats", "cat", 1.0),
        ("the cats sat down", "Cat sat", 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("sat", "the cats sat down", 2 * 1 * (1 / 4) / (1 + 1 / 4)),
        ("b a", "a b", 1 / 2),
        ("a", "b", 0.0),
        ("a", "!", 0.0),
        ("a", "", 0.0),
        ("!", "a", 0.0),
        ("", "", 0.0),
    ):
        assert text.rouge_l_of(answer, reference) == pytest.approx(value), (answer, reference)
    best = text.rouge_l(task(references=["", "dogs", "cats sat"]), attempt("cat"))
    assert (best.name, best.value, best.detail) == ("rouge_l", pytest.approx(2 / 3), {"answer": "cat"})
    assert text.rouge_l(task(answer="x"), attempt(None)).value == 0.0


def test_the_longest_common_subsequence_is_counted_once_per_word() -> None:
    for left, right, length in (
        ("aaaa", "aa", 2), ("aa", "aaaa", 2), ("abcabba", "cbabac", 4), ("ab" * 50, "ba" * 50, 99), ("abc", "cba", 1),
        ("x" * 200, "x" * 130 + "y", 130), ("ab", "cd", 0), ("", "", 0), ("a", "a", 1), ("axbxc", "abc", 3),
    ):  # fmt: skip
        assert text.common_length(left, right) == length == text.common_length(right, left), (left, right)


def test_word_overlap_is_with_the_best_reference_within_the_bound() -> None:
    long = "x " * 49_999 + " "
    for secret, answer, value in (
        ({"references": ["x c", "b c", "b"]}, "b c d", 2 * 2 / 5),
        ({"references": ["", "b"]}, "", 0.0),
        ({"answers": ["x c", "", "b"]}, "b", 1.0),
        ({"answers": ["b", ""]}, "", 0.0),
        ({"references": ["c"], "answer": "b"}, "b", 0.0),
        ({"answer": 7}, "7", 1.0),
        ({"answer": "y"}, long + "y", 2 / 50_001),
        ({"answer": "y"}, f"{long} y", 0.0),
        ({"answer": long + "y"}, "y", 2 / 50_001),
        ({"answer": "c c b d"}, "c b b", 2 * 2 / 7),
    ):
        found = text.token_f1(task(**secret), attempt(answer))
        assert (found.name, found.value) == ("token_f1", pytest.approx(value)), (secret.keys(), (answer or "")[-9:])
    assert text.token_f1(task(answer="y"), attempt("z" * 201)).detail == {"answer": "z" * 200}
    assert text.token_f1(task(references=["b"]), attempt(" " * 99_999 + "b")).value == 1.0
    assert text.token_f1(task(references=["b"]), attempt(" " * 100_000 + "b")).value == 0.0, "nor one that is too long"
    for nothing in ({"references": []}, {}, {"answer": ""}, {"references": [""]}):
        with pytest.raises(DataError, match="no reference answer to compare with"):
            text.token_f1(task(**nothing), attempt(None))
    with pytest.raises(DataError, match="has 100,001 characters, and texts are compared up to 100,000: "):
        text.token_f1(task(references=["y", f"{long} y"]), attempt("y"))


@pytest.fixture
def fresh_stemmer() -> Iterator[None]:
    locomo.stemmer.cache_clear()
    yield
    locomo.stemmer.cache_clear()


@pytest.mark.usefixtures("fresh_stemmer")
def test_the_stemmer_of_locomo_is_nltks_own_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []

    class Porter(Stems):
        ORIGINAL_ALGORITHM = MARTIN_EXTENSIONS = "another"

        def __init__(self, *given: Any, **named: Any) -> None:
            made.append((given, named))

    monkeypatch.setitem(sys.modules, "nltk.stem", SimpleNamespace(PorterStemmer=Porter))
    assert locomo.stemmed_f1("Cats, and the well-known dogs!", "an wellknown cat") == pytest.approx(4 / 5)
    assert locomo.stemmed_f1("the", "a") == locomo.stemmed_f1("", "") == locomo.stemmed_f1("cat", "") == 0.0
    assert locomo.stemmed_f1("sandy band", "sandy band") == 1.0 and locomo.stemmed_f1("s y", "sandy") == 0.0
    assert made == [((), {})], "as the authors make it"
    assert locomo.parts_f1("dogs , cats", "cat, dog,bird") == pytest.approx(2 / 3)
    assert locomo.parts_f1("", "cat") == 0.0 and locomo.parts_f1("cat", "cat,") == 0.5


@pytest.mark.slow  # importing NLTK takes seconds
@pytest.mark.usefixtures("fresh_stemmer")
def test_words_have_the_stems_of_nltks_extended_algorithm() -> None:
    pytest.importorskip("nltk", reason="nltk is not installed")
    assert locomo._stems("dying flies, skies and the lying") == ["die", "fli", "sky", "lie"]
    assert locomo.stemmed_f1("dying", "die") == 1.0


@pytest.mark.usefixtures("fresh_stemmer")
def test_measures_without_their_package_say_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, package, purpose, use in (
        ("nltk.stem", "nltk", "LoCoMo's F1", locomo.stemmer),
        ("sacrebleu", "sacrebleu", "BLEU and chrF", lambda: text.corpus_bleu(["a"], [["a"]])),
        ("sacrebleu", "sacrebleu", "BLEU and chrF", lambda: text.bleu(task(answer="a"), attempt("a"))),
        ("rouge_score.scoring", "rouge-score", "ROUGE", lambda: text.rouge_l_of("a", "a")),
        ("rouge_score.rouge_scorer", "rouge-score", "ROUGE", lambda: text.rouge("a", "a")),
    ):
        with monkeypatch.context() as patch, pytest.raises(MissingExtra) as refused:
            patch.setitem(sys.modules, module, None)
            use()
        assert str(refused.value) == f"{purpose} needs the package {package!r}: pip install 'firsthand[text]'"


def test_the_stemmer_is_made_once_as_the_authors_make_it_and_its_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    module: Any = ModuleType("nltk.stem")
    module.PorterStemmer = lambda *given, **named: made.append((given, named)) or "stemmer"
    locomo.stemmer.cache_clear()
    try:
        monkeypatch.setitem(sys.modules, "nltk", ModuleType("nltk"))
        monkeypatch.setitem(sys.modules, "nltk.stem", None)  # type: ignore[arg-type]
        with pytest.raises(MissingExtra, match="LoCoMo's F1"):
            locomo.stemmer()
        monkeypatch.setitem(sys.modules, "nltk.stem", module)
        assert [locomo.stemmer(), locomo.stemmer()] == ["stemmer"] * 2 and made == [((), {})]
    finally:
        locomo.stemmer.cache_clear()


@pytest.mark.slow
def test_words_are_stemmed_by_the_variant_of_the_package_that_the_authors_use() -> None:
    pytest.importorskip("nltk", reason="NLTK is not installed")
    words = "dying dies died lying tying skies news innings enjoyed says fly flies happily running"
    stems = "die die die lie tie sky news inning enjoy say fli fli happili run"
    assert [locomo.stemmer().stem(word) for word in words.split()] == stems.split()
    assert locomo.stemmed_f1("He was dying", "he dies") == pytest.approx(2 * (2 / 3) * (2 / 2) / (2 / 3 + 2 / 2))
