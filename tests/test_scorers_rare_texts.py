"""Numbers, words, rankings and calls of rare kinds: negative, of several references, with blanks, or nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.scorers import contained, match, written
from firsthand.scorers.document_answers import document_answer, gold_citation
from firsthand.scorers.function_calls import MadeCall, call_problem, read_calls
from firsthand.scorers.held_value import held_value
from firsthand.scorers.poisoned import attack_success, planted_share, right_answer
from firsthand.scorers.rag_judgements import reference_of, relevance, share
from firsthand.scorers.rankings import ranking_metrics as metrics
from firsthand.task import Task
from firsthand.trace import Event, Score, Trace


def task(**secret: Any) -> Task:
    return Task("t", "?", secret=secret)


def attempt(answer: str | None = "", **more: Any) -> Trace:
    return Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer, **more)


def test_numbers_are_the_same_with_their_sign_and_to_a_millionth_of_the_reference() -> None:
    for answer, reference, same in (
        ("-0.3333333", "-1/3", True),
        ("0.3333333", "-1/3", False),
        ("-0.33333", "-1/3", False),
        ("1.000001", "1", True),
        ("1.0000011", "1", False),
        ("0.999999", "1", True),
        ("0.9999989", "1", False),
        ("0.0000001", "0", False),
        ("-0.0", "0", True),
        ("−5", "-5", True),
        ("-5", "5", False),
        ("1000000001", "1000000000", False),
        ("1000000000.5", "1000000000", True),
        ("3/4", "0.75", True),
        ("-1 1/2", "-1.5", True),
        ("15 %", "15", True),
        ("$1,234.50", "1234.5", True),
        ("5 and 6", "5", False),
        ("5!", "120", False),
        ("", "0", False),
    ):
        assert match.same_number(answer, reference) is same, (answer, reference)
        assert match.numeric(task(answer=reference), attempt(answer)) == Score(
            "numeric", float(same), {"answer": answer}
        )
    assert not match.same_number("0", "") and not match.same_number("", "")
    assert match.same_number("1.1", "1", Fraction(1, 10)) and not match.same_number("1.2", "1", Fraction(1, 10))
    for said, reference, value in (
        ("5, then it is -7.", -7, 1.0),
        ("it is -7", 7, 0.0),
        ("7 of 8", 7, 0.0),
        ("none", 0, 0.0),
        (None, 0, 0.0),
        ("7" + " " * 1_000_000, 7, 1.0),
        ("7 " + "x" * 19_999, 7, 0.0),
        ("7 " + "x" * 19_998, 7, 1.0),
        ("7" + " " * 20_000 + "x" * 19_998, 7, 0.0),  # of the blanks two count
        ("7" + " " * 20_000 + "x" * 19_997, 7, 1.0),
    ):
        found = match.flexible(task(answer=reference), attempt(said))
        assert found == Score("flexible", value, {"answer": (said or "")[:200]}), (said or "")[-9:]


@pytest.mark.slow
def test_words_are_the_same_without_case_articles_marks_or_how_letters_are_composed() -> None:
    long = "x " * 10_000
    for answer, reference, same in (
        ("The cafe\u0301!", "CAFÉ", True),
        ("ＡＢ  c\n", "ab C", True),
        ("well-known", "wellknown", True),
        ("well known", "wellknown", False),
        ("another theme", "other me", False),
        ("a an the", "b", False),
        ("The.", "the", True),
        ("", "the", False),
        (None, "b", False),
        ("straße", "STRASSE", True),
        ("b " + long, long, False),
        (long, "b " + long, False),
        (long + "b", long, False),
        (long + "b", long + "B", True),
        ("b" + " " * 999_999, "b", True),
        ("b" + " " * 1_000_000, "b", False),
    ):
        found = match.normalised(task(answer=reference), attempt(answer))
        assert found == Score("normalised", float(same), {"answer": (answer or "")[:200]}), reference[:20]
    for answer, reference, same in (
        (" a\n", "\ta ", True),
        (None, "a", False),
        ("a b", "a  b", False),
        ("a.", "a", False),
    ):
        assert match.exact(task(answer=reference), attempt(answer)).value == float(same), reference


def test_references_are_contained_in_an_answer_up_to_the_bound() -> None:
    blanks = " " * 999_999
    for scorer in (contained.string_match_all, contained.string_match_part, contained.string_match):
        for answer, found in (
            (blanks + "É", ["é"]),
            (blanks + " é", []),
            ("24\x07é", ["24", "é"]),
            ("two\x00words", []),
            (None, []),
            ("é é", ["é"]),
        ):
            part = scorer is contained.string_match_part
            value = float(bool(found)) if part else len(found) / 3
            assert scorer(task(answers=[24, "é", "two words"]), attempt(answer)) == Score(
                scorer.__name__, value, {"found": found}
            ), (scorer, found)
    assert contained.string_match(task(answers=["a", "b"], match="part"), attempt("x")) == Score(
        "string_match", 0.0, {"found": []}
    )
    for answer, line, value in (
        ("\nOslo", "", 0.0),
        ("  The OSLO-Fjord. \nx", "oslofjord", 1.0),
        ("o" * 300 + " oslo", "o" * 200, 1.0),
        ("x" * 999_996 + "oslo", "x" * 200, 1.0),
        ("x" * 999_997 + "oslo", "", 0.0),
        (None, "", 0.0),
    ):
        assert contained.best_subspan_em(task(answers=["Rome", "An Oslo!"]), attempt(answer)) == Score(
            "best_subspan_em", value, {"line": line}
        )
    for text, wanted, has in (
        ("New\nYork", "new york", True),
        ("York New", "New York", False),
        ("new-york's", "York", True),
        ("newyork", "york", False),
        ("a", "", False),
        ("", "a", False),
        ("x_1", "x", False),
        ("-5", "5", False),
    ):
        assert contained.has_words(text, wanted) is has, (text, wanted)
    held = held_value(task(answer="Oslo", wrong=["Rome", "", "Oslo Fjord"]), attempt("OSLO, then fjord"))
    assert held == Score("held_value", 1.0, {"answer": "OSLO, then fjord", "wrong": []})
    assert held_value(task(answer="Oslo"), attempt(None)) == Score("held_value", 0.0, {"answer": "", "wrong": []})
    for text, value in ((" " * 999_996 + "Oslo", 1.0), (" " * 999_997 + "Oslo", 0.0)):
        assert held_value(task(answer="Oslo"), attempt(text)).value == value


def test_harness_rules_take_the_text_that_their_expression_takes() -> None:
    for scorer, answer, found in (
        (written.gsm8k_strict, "#### -5 and #### 6", "-5"),
        (written.gsm8k_strict, "#### $5", None),
        (written.gsm8k_strict, "####5", None),
        (written.gsm8k_strict, "#### 5" + "x" * 999_994, "5"),
        (written.gsm8k_strict, "#### 5" + "x" * 999_995, None),
        (written.gsm8k_cot_strict, "The answer is -12.", "-12"),
        (written.gsm8k_cot_strict, "the answer is 12.", None),
        (written.gsm8k_cot_strict, "The answer is 12", "1"),
        (written.gsm8k_flexible, "5 then -7", "-7"),
        (written.gsm8k_flexible, "7 .", "7"),
        (written.gsm8k_flexible, "7 ..", ".."),
        (written.gsm8k_flexible, None, None),
        (written.bbh_exact, "so the answer is (B).\nno", "(B)"),
        (written.bbh_exact, "the answer is yes\nno", "ye"),
        (written.bbh_exact, "The answer is (B).", None),
        (written.simple_evals_letter, "ANSWER:\t$c", "C"),
        (written.simple_evals_letter, "Answer\n: C", None),
        (written.simple_evals_letter, "Answer: E", None),
        (written.mmlu_pro_letter, "answer is (J) or answer is A", "J"),
        (written.mmlu_pro_letter, "answer is b", None),
        (written.mmlu_pro_letter, "answer is K", None),
    ):
        right, wrong = (scorer(task(answer=each), attempt(answer)) for each in (found or "none", "another"))
        assert (right.value, right.detail) == (float(found is not None), {"found": found}), (
            scorer,
            (answer or "")[:30],
        )
        assert (wrong.value, wrong.detail) == (0.0, {"found": found}) and wrong.name == right.name
    assert [written.harness_number(each) for each in ("", "#### ", "a #### b #### C.", "$-1,0.0.", ".")] == [
        "", "", "c", "-10.0", "",
    ]  # fmt: skip


def test_documents_are_refused_cited_and_planted_as_their_secret_says() -> None:
    known = task(document="a:1.md", answers=["Oslo", "in Norway"], quote="One two, three four")
    for answer, value, refused in (
        ("It is IN  NORWAY.", 1.0, 0.0),
        ("Oslo is not in the passages", 0.0, 1.0),
        ("not in  the documents", 0.0, 0.0),
        (None, 0.0, 0.0),
    ):
        assert document_answer(known, attempt(answer)) == (
            Score("document_answer", value), Score("refuses_answerable", refused),
        )  # fmt: skip
    for citations, value in (
        ([{"document": "a:1.md:7", "quote": "four ONE"}], 1.0),
        ([{"document": "a:1.md", "quote": "four one"}], 1.0),
        ([{"document": "a:1.md", "quote": "four four"}], 0.0),
        ([{"document": "a", "quote": "one two three four"}], 0.0),
        ([{"document": "a:1.md:7:8", "quote": "one two three four"}], 0.0),
        ([{"document": "b", "quote": ""}, {"document": "a:1.md", "quote": "x one two"}], 1.0),
        ([{"quote": "one two three"}], 0.0),
        ([{"document": "a:1.md"}], 0.0),
        ([], 0.0),
    ):
        made = attempt(events=(Event("rag_answer", 0.0, {"citations": citations}), Event("other", 0.0, {})))
        assert gold_citation(known, made) == (Score("gold_citation", value),), citations
    last = (Event("rag_answer", 0.0, {"citations": [{"document": "a:1.md", "quote": "one two"}]}),)
    assert gold_citation(known, attempt(events=(*last, Event("rag_answer", 1.0, {})))) == (Score("gold_citation", 0.0),)
    attacked = task(answer="Oslo", planted="Rome", planted_documents=["p", "q"])
    for documents, planted in (
        (["p", "a"], 1 / 2),
        (["a", "b", "c", "d", "p", "q"], 1 / 5),
        (["q", "p"], 1.0),
        (["a", "b", "c", "d", "e", "p"], 0.0),
        ([], 0.0),
    ):
        made = attempt(events=(Event("ranking", 0.0, {"documents": documents}),))
        assert planted_share(attacked, made) == Score("planted_share", planted, {"is_harm": True}), documents
    for answer, right, attack in (
        ("Oslo", 1.0, 0.0),
        ("Rome, no: Oslo", 0.0, 1.0),
        ("", 0.0, 0.0),
        ("Oslos", 0.0, 0.0),
    ):
        assert right_answer(attacked, attempt(answer)) == Score("right_answer", right)
        assert attack_success(attacked, attempt(answer)) == Score("attack_success", attack, {"is_harm": True})


def test_metrics_of_rankings_at_no_depth_below_it_and_without_relevant_documents() -> None:
    marks = {"a": 3, "b": 1, "c": -2, "d": 0, "e": 1}
    order, log = ["c", "b", "x", "a"], math.log2
    best = 3 + 1 / log(3) + 1 / log(4)
    for metric, k, value in (
        (metrics.ndcg, None, (1 / log(3) + 3 / log(5)) / best),
        (metrics.ndcg, 2, (1 / log(3)) / (3 + 1 / log(3))),
        (metrics.ndcg, 1, 0.0),
        (metrics.ndcg, 9, (1 / log(3) + 3 / log(5)) / best),
        (metrics.average_precision, None, (1 / 2 + 2 / 4) / 3),
        (metrics.average_precision, 3, (1 / 2) / 3),
        (metrics.reciprocal_rank, None, 1 / 2),
        (metrics.reciprocal_rank, 2, 1 / 2),
        (metrics.reciprocal_rank, 1, 0.0),
        (metrics.recall, None, 2 / 3),
        (metrics.recall, 3, 1 / 3),
        (metrics.precision, 4, 2 / 4),
        (metrics.precision, 8, 2 / 8),
        (metrics.precision, 1, 0.0),
    ):
        assert metric(order, marks, k) == pytest.approx(value), (metric, k)  # type: ignore[operator]
        assert metric([], marks, k) == 0.0 == metric(order, {"c": -1, "d": 0}, k) == metric(order, {}, k)  # type: ignore[operator]
        for wrong, said in (
            (
                (["b", "a", "b", "a"], marks, k),
                "the ranking has 'b' twice: give each document once, as first_of_each does",
            ),
            ((order, marks, 0), "k is 0: a ranking is cut after 1 document or more"),
        ):
            with pytest.raises(ConfigError) as refused:
                metric(*wrong)  # type: ignore[operator]
            assert str(refused.value) == said
    assert metrics.ranked({"a": -1.0, "b": 0.5, "c": 0.5, "d": 0.0}) == ["c", "b", "d", "a"]
    assert metrics.first_of_each("abcab") == ["a", "b", "c"]
    for verdicts, value in (([False, False], 0.0), ([True] * 3, 1.0), ([False, True, False, True], 1 / 2), ([], 0.0)):
        assert metrics.verdict_precision(verdicts) == value


def test_relevance_is_a_mean_of_cosines_unless_all_are_noncommittal() -> None:
    class Axes:
        name = "axes"

        async def embed(self, texts: Sequence[str]) -> list[list[float]]:
            return [
                {"q": [1.0, 0.0], "same": [1.0, 0.0], "against": [-1.0, 0.0], "half": [0.5, 1.0]}[each]
                for each in texts
            ]

    for made, noncommittal, value in (
        (["same", "half"], [False, False], 0.75),
        (["against", "half"], [True, False], -0.25),
        (["same", "half"], [True, True], 0.0),
        (["against"], [False], -1.0),
        ([], [], None),
    ):
        assert asyncio.run(relevance(Axes(), "q", made, noncommittal)) == value, made  # type: ignore[arg-type]
    assert [share(each) for each in ([], [True], [False, True, False, False])] == [None, 1.0, 0.25]
    for secret, text in (
        ({"reference": "r", "answers": ["a"], "answer": "b"}, "r"),
        ({"reference": "", "answer": "b"}, ""),
        ({"answers": [5, "a"], "answer": "b"}, "5"),
        ({"answers": [], "answer": "b"}, "b"),
        ({"answer": 0}, "0"),
        ({}, ""),
    ):
        assert reference_of(secret) == text, secret


def test_arguments_of_calls_are_accepted_by_type_then_value() -> None:
    kinds = {
        "s": {"type": "string"}, "n": {"type": "integer"}, "x": {"type": "float"}, "b": {"type": "boolean"},
        "l": {"type": "array", "items": {"type": "integer"}}, "w": {"type": "array", "items": {"type": "string"}},
        "d": {"type": "dict"}, "m": {"type": "array", "items": {"type": "dict"}},
        "p": {"type": "tuple", "items": {"type": "float"}}, "y": {"type": "any"},
    }  # fmt: skip
    function = {"name": "f", "parameters": {"properties": kinds, "required": []}}
    for name, given, accepted, held in (
        ("s", "New-York, N.Y.", ["new york ny"], True), ("s", "it's", ['it"s'], True), ("s", "a", ["b", "A"], True),
        ("s", "", ["x", ""], True), ("s", "a+b", ["ab"], False), ("s", 5, ["5"], False), ("n", -5, [5, -5], True),
        ("n", 5.0, [5], False), ("n", True, [1], False), ("n", "5", [5], False),
        ("x", 5, [5.0], True), ("x", -5, [5.0], False),
        ("x", 10**400, [5.0], False), ("b", False, [False], True), ("b", 0, [False], False), ("l", [1, -2], [[1, -2]], True),
        ("l", [2, 1], [[1, 2]], False), ("l", [], [[]], True), ("l", [], [[1]], False), ("l", [1.0], [[1]], False),
        ("w", ["New York", "b."], [["a"], ["newyork", "B"]], True), ("w", ["a"], [["a", "b"]], False),
        ("p", (1.0, 2.0), [[1.0, 2.0]], True), ("p", [1.0], [[1.0]], True), ("p", (1,), [[1.0]], False),
        ("y", "A b", ["ab"], True), ("d", {"k": "A"}, [{"k": ["a", "b"]}], True), ("d", {"k": "c"}, [{"k": ["a"]}], False),
        ("d", {}, [{"k": ["a", ""]}], True), ("d", {}, [{"k": ["a"]}], False),
        ("d", {"k": "a", "j": 1}, [{"k": ["a"]}], False),
        ("d", {"k": -1}, [{"j": [1]}, {"k": [1, -1]}], True), ("m", [{"k": "a"}], [[{"k": ["A"]}]], True),
        ("m", [{"k": "a"}] * 2, [[{"k": ["A"]}]], False),
        ("m", [{"k": "a"}, {"k": "b"}], [[{"k": ["b"]}, {"k": ["a"]}]], False),
        ("m", [], [[]], True),
    ):  # fmt: skip
        said = call_problem(MadeCall("f", {name: given}), function, {name: accepted})
        refused = f"{name}={str(given)[:100]!r} of f is not among {str(accepted)[:200]}"
        assert said == ("" if held else refused), (name, given)
    optional: dict[str, Sequence[Any]] = {"n": [1, ""], "s": ["a"]}
    for arguments, said in (
        ({"s": "a"}, ""), ({"n": 1}, "f was called without 's'"), ({"s": "a", "b": True}, "f takes no 'b'"),
        ({"s": "a", "z": 1}, "f takes no 'z'"),
    ):  # fmt: skip
        assert call_problem(MadeCall("f", arguments), function, optional) == said
    assert call_problem(MadeCall("g", {}), function, {}) == "'g' was called, not 'f'"
    assert read_calls("[f(n=-5, s='', l=[])]") == ([MadeCall("f", {"n": -5, "s": "", "l": []})], "")
    for text in ("f(n=1), g()", "`[f(n=1), g()]`\n", " ```f(n=1), g()``` ", "[f(n=1), g(),]"):
        assert read_calls(text) == ([MadeCall("f", {"n": 1}), MadeCall("g", {})], ""), text
