"""What scorers accept, and that nothing a model writes can stop them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand.errors import DataError
from firsthand.message import assistant
from firsthand.scorers.choice import acc, acc_norm
from firsthand.scorers.match import exact, flexible, normalised, numeric, same_number, strict
from firsthand.task import Task
from firsthand.trace import Call, Node, Trace

SCORERS = [exact, normalised, numeric, flexible, strict, acc, acc_norm]


def trace(answer, *, said=(), likelihoods=None):
    nodes = tuple(Node(None, assistant(text)) for text in said)
    calls = [Call(":0", "generate", None, 0.0, 0.0, "", nodes=tuple(range(len(nodes))))] if said else []
    if likelihoods is not None:
        calls.append(Call(":1", "score", None, 0.0, 0.0, "", detail={"likelihoods": likelihoods}))
    return Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=nodes, calls=tuple(calls), answer=answer)


def task(answer, choices=(), gold=None):
    return Task("1", "?", choices=tuple(choices), secret={"answer": answer, "gold": gold})


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("72", "72", True), ("72.0", "72", True), ("$1,234.50", "1234.5", True), ("15%", "15", True),
        ("3/4", "0.75", True),
        ("1 1/2", "1.5", True), ("-1 1/2", "-1.5", True), ("−5", "-5", True), ("72 apples", "72", True),
        ("\\frac{1}{2}", "0.5", True), ("0.3333333", "1/3", True), ("1e3", "1000", True), ("73", "72", False), 
        ("", "72", False),
        ("72 or 73", "72", False), ("1/0", "1", False), ("1e999999", "1", False), ("nan", "5", False),
        ("10000001", "10000000", False), ("18 cm^2", "18", True), ("18 cm²", "18", True), ("1.5 × 10^3", "1500", True),
        ("1.5 \\times 10^{-3}", "0.0015", True), ("\\frac23", "2/3", True), ("– 5", "-5", True), ("- 5", "-5", True),
        ("–5", "-5", True), ("½", "0.5", True), ("1½", "1.5", True), ("12,34", "1234", False), ("7!", "7", True),
        ("1,234,567", "1234567", True), ("12,34,567", "1234567", True), ("1,2345", "12345", False), ("5 m^3", "5", True),
        ("2^3", "2", False), ("x^2", "2", False), ("$ 5", "5", True), ("$1,000", "1000", True), ("3 x 10^8", "3e8", True),
        ("-½", "-0.5", True), ("-1½", "-1.5", True), ("10^3", "10", False), ("1e3 m", "1000", True), ("5 – 3", "5", False),
    ],
)  # fmt: skip
def test_numbers_are_compared_by_value(answer, reference, right):
    assert numeric(task(reference), trace(answer)).value == right


def test_a_decimal_of_six_digits_is_what_rounds_to_it_in_either_order():
    for one, other in (
        ("1/3", "0.333333"),
        ("1/6", "0.166667"),
        ("-1/6", "-0.166667"),
        ("12345.68", "12345.7"),
        ("1/7", "0.142857"),
        ("2/3", "0.666666"),
    ):
        assert numeric(task(one), trace(other)).value == numeric(task(other), trace(one)).value == 1, (one, other)
    for one, other in (
        ("1/6", "0.16667"), ("1/6", "0.166666"), ("1/6", "0.166668"), ("1/6", "-0.166667"), ("100000.4", "100000"),
        ("123456.4", "123456"), ("0.123456", "0.123457"), ("2/3", "0.66667"),
    ):  # fmt: skip
        assert numeric(task(one), trace(other)).value == numeric(task(other), trace(one)).value == 0, (one, other)
    assert not same_number("1/6", "0.166667", Fraction(1, 10**9)), "a tolerance of one's own is kept"


def test_words_are_compared_without_case_articles_and_punctuation():
    assert normalised(task("Eiffel Tower"), trace("the eiffel  tower.")).value == 1
    assert normalised(task("Eiffel Tower"), trace("Eiffel")).value == 0
    assert exact(task("Paris"), trace(" Paris\n")).value == 1
    assert exact(task("Paris"), trace("paris")).value == 0


def test_flexible_takes_the_last_number_and_strict_the_stated_form():
    assert flexible(task("18"), trace("16 - 3 is 13, no: $18.")).value == 1
    assert flexible(task("18"), trace("18, not 19")).value == 0
    assert strict(task("1018"), trace("1018", said=["so\n#### 1,018"])).value == 1
    assert strict(task("18"), trace("18", said=["The answer is 18."])).value == 0
    assert strict(task("18"), trace("18", said=["#### 17", "#### 18"])).value == 1


def likelihoods(*pairs):
    return [{"text": text, "logprob": logprob} for text, logprob in pairs]


def test_acc_takes_the_sum_and_acc_norm_the_mean_per_character_without_the_space():
    # sums: A -3.0 > B -4.0; per character without the space: A -3/2 = -1.5 < B -4/4 = -1.0
    this = task("B", [" ab", " abcd"], 1)
    scored = trace("A", likelihoods=likelihoods((" ab", -3.0), (" abcd", -4.0)))
    assert (acc(this, scored).value, acc_norm(this, scored).value) == (0, 1)
    # With the space counted (3 and 5 characters) -2.3/3 > -4/5 would turn this around: -2.3/2 < -4/4.
    scored = trace("A", likelihoods=likelihoods((" ab", -2.3), (" abcd", -4.0)))
    assert acc_norm(this, scored).value == 1


def test_a_written_answer_counts_by_its_letter_or_its_text():
    this = task("B", [" gray", " soft"], 1)
    for answer, right in [("B", 1), ("(b)", 1), ("soft", 1), ("A", 0), ("neither", 0), (None, 0)]:
        assert acc(this, trace(answer)).value == acc_norm(this, trace(answer)).value == right


def test_scores_of_other_texts_are_not_taken_for_the_choices():
    this = task("B", [" gray", " soft"], 1)
    assert acc(this, trace("B", likelihoods=likelihoods((" yes", -1.0), (" no", -2.0)))).value == 1
    assert acc(this, trace("B", likelihoods=likelihoods((" gray", float("nan")), (" soft", -2.0)))).value == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [None, "", "9" * 6_000_000, "1e999999", "NaN", "inf", "-", "1/" * 100_000, "(" * 1_000_000, "####" * 300_000,
     "\\frac{" * 200_000,
     "1," * 1_000_000, "\ud800", "A " * 1_000_000, "1e-99999", "$" * 1_000_000, "1 " * 1_000_000, "\x00", " " * 3_000_000],
)  # fmt: skip
def test_hostile_answers_get_a_score_quickly(answer):
    for scorer in SCORERS:
        with at_most_cpu_s(3):
            score = scorer(task("7", [" x", " y"], 0), trace(answer, said=[answer or ""]))
        assert score.value == 0


@pytest.mark.slow
@given(st.text(max_size=200), st.text(max_size=40).filter(str.strip))
def test_any_answer_gets_a_score(answer, reference):
    for scorer in SCORERS:
        try:
            score = scorer(task(reference, [" x", " y"], 0), trace(answer, said=[answer]))
        except DataError as error:  # of scorers of numbers alone, and whatever the answer is
            assert "is no number that" in str(error)
        else:
            assert score.value in (0.0, 1.0)
