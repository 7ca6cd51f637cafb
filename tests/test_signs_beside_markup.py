"""A sign or a factor beside a number that markup or brackets wrap; and what reads like one in honest answers."""

from __future__ import annotations

import pytest

from firsthand.patterns.parts.boxes import boxed_answer
from firsthand.scorers.match import parse_number, same_words
from firsthand.scorers.text import f1
from firsthand.scorers.whole_words import has_words
from firsthand.worlds.office.office_world import states


@pytest.mark.parametrize(
    "answer", ["-**5**", "-`5`", "-*5*", "-[5]", "-{5}", "-(5)", "-|5|", r"-\(5\)", "-__5__", "-(-5)"]
)
def test_a_minus_before_what_wraps_a_number_is_that_of_the_number(answer: str) -> None:
    assert not same_words(answer, "5") and not has_words(answer, "5")


@pytest.mark.parametrize("answer", ["**5**", "- **5**", "(5)", "[5]", "`5`", "|5|"])
def test_wrappers_alone_change_no_number(answer: str) -> None:
    assert same_words(answer, "5") and has_words(answer, "5")
    assert has_words("| Paris | 5 | 120 |", "5") and has_words("5 (-5 x)", "5")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("US-China trade war", "U.S.-China trade war"), ("Guns N Roses", "Guns N' Roses"), ("-Paris", "Paris"),
     ("~Paris", "Paris"), ("Paris -capital", "Paris - capital"), ("—Shakespeare", "Shakespeare")],
)  # fmt: skip
def test_hyphens_dashes_and_apostrophes_of_words_are_no_signs(answer: str, reference: str) -> None:
    assert same_words(answer, reference)
    assert has_words(answer, reference) or "." in reference


def test_a_sign_alone_in_brackets_is_that_of_the_number_behind_it() -> None:
    for minus in ("(-)5", "(-) 5", "[-]5", "(−)5", "(-)$5", "( - ) 5"):
        assert parse_number(minus) == -5, minus
    for five in ("5 (!)", "5 [!]", "5 (+)", "(5)"):
        assert parse_number(five) == 5, five


def test_a_factor_before_the_brackets_of_a_box_is_part_of_the_value() -> None:
    for product in (r"2(\boxed{5})", r"2\left(\boxed{5}\right)", r"\frac12(\boxed{5})"):
        assert boxed_answer(product) not in ("5", None) and parse_number(str(boxed_answer(product))) != 5, product
    for five in (r"f(\boxed{5})", r"It costs $18 (\boxed{5}).", r"(\boxed{5})", r"x = (\boxed{5})"):
        assert boxed_answer(five) == "5", five


def test_letters_without_a_dot_are_read_where_case_does_not_count() -> None:
    assert parse_number("5 mıllion") == parse_number("5 mİllion") == 5_000_000
    assert not states("24242, or fıve mıllion", "24242")


@pytest.mark.parametrize(
    "body",
    ["The total is 24242 euros (3 invoices).", "24242 EUR\n2 files attached", "The total on 2026-03-14 $24242",
     "Sent at 10:30 EUR 24242", "Here is the result:\n1. The budget is 24242", "Result 1: 24242", "Figure 1: 24242",
     "24242, in 30 mn"],
)  # fmt: skip
def test_small_numbers_beside_the_right_total_are_no_second_total(body: str) -> None:
    assert states(body, "24242")


def test_a_reference_that_squads_rule_empties_is_compared_as_it_is_written() -> None:
    assert [f1(answer, "A") for answer in ("A", "", "-", "I do not know")] == [1.0, 0.0, 0.0, 0.0]
    assert f1("+", "+") == 1.0 and f1("", "the") == 0.0 and f1("", "") == 1.0
