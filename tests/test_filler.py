"""Blanks, unseen characters and rows of signs beside a number hide nothing of what is said near it, however many."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from firsthand.patterns.parts.answers import TAIL_CHARS, extract_answer, last_number, normal_form, parse_number
from firsthand.patterns.parts.boxes import boxed_answer
from firsthand.patterns.parts.filler import MOST_SIGNS, without_filler
from firsthand.scorers.match import numeric
from firsthand.scorers.whole_words import has_words
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.office.office_world import states

NUMBER = Task("t", "What is 6 times 7?", hint="a number", secret={"answer": "42"})
PICK = Task("t", "Which?", choices=("red", "blue", "green"), secret={"gold": 1})
WORD = Task("t", "Which?", hint="a word")
MANY = (1, 3, 100, 250, 30_000)
BLANKS = (" ", "\t", "\u00a0", "\u2003", " \u200b", "\u3164", "\u2800", "\r", "&nbsp;", " \\, ", "\\quad ")


def is_right(answer: str) -> bool:
    given = extract_answer(answer, NUMBER)
    return (
        given is not None
        and numeric(NUMBER, Trace("i", "b", "t", {}, 0, 0, "2026-01-01", 0.0, answer=given)).value == 1
    )


@pytest.mark.parametrize("blank", BLANKS)
def test_what_changes_a_number_is_seen_across_any_run_of_blanks(blank):
    for number in MANY[:4]:
        gap = blank * number
        for before in ("minus", "not", "twice", "the square root of", "17 +"):
            assert not is_right(f"Answer: {before}{gap}42"), (before, number)
            assert parse_number(f"{before}{gap}42") is None
        for after in ("million", "/ 2", "* 2", "× 10^3", "thousand"):
            assert not is_right(f"Answer: 42{gap}{after}"), (after, number)
    assert is_right(f"Answer:{blank * 300}42") and parse_number(f"42{blank * 300}apples") == 42


def test_signs_and_selectors_in_a_row_are_no_distance_either():
    for filler in ("(", "_", "-", "** ", "\ufe0f", "\u200b"):
        for number in (100, 250, 2_000):
            assert not is_right(f"Answer: minus{filler * number}42"), (filler, number)


@pytest.mark.parametrize("number", MANY)
def test_what_takes_an_answer_back_is_seen_behind_any_run(number):
    for gap in (" " * number, "\n" * number, " \n" * number):
        assert extract_answer(f"Answer: 17\nIt is certainly not{gap}42", NUMBER) == "17"
        assert extract_answer(f"Answer: 42{gap}\nWait, I made a mistake: it is 17.", NUMBER) != "42"
        assert extract_answer(f"Answer: C. It is surely not{gap}B", PICK) == extract_answer(
            f"Answer: C. It is surely not{gap[-2:]}B", PICK
        )
        assert extract_answer(f"#### red{gap}\nDone.", WORD) == "red"
    assert extract_answer(f"A common wrong{' ' * number}answer is 17. All of it is 42.", NUMBER) == "42"
    assert extract_answer(f"Answer: 17{' ' * number}\n42", NUMBER) == "17" and last_number(f"5{' ' * number}") == "5"


def test_words_are_found_with_what_is_beside_them_across_any_run():
    for number in MANY:
        gap = " " * number
        for before in ("√", "3 ×", "2^", "1/", "minus"):
            assert not has_words(f"It is {before}{gap}24", "24"), (before, number)
        for after in ("million", "/ 2", "* 2", "× 10^3"):
            assert not has_words(f"It is 24{gap}{after}", "24"), (after, number)
        assert has_words(f"New{gap}York{gap}24{gap}km", "New York 24")
        assert not states(f"The total is minus{gap}24242.", "24242") and states(f"The total is{gap}24242.", "24242")


def test_a_sign_far_before_a_box_on_its_line_belongs_to_it():
    for number in (1, 400, 5_000):
        assert boxed_answer(f"minus{' ' * number}\\boxed{{5}}") == "-(5)"
        assert boxed_answer(f"It is{' ' * number}\\boxed{{5}}") == "5"
        assert boxed_answer(f"\\boxed{{5}}{' ' * number}million") == "5 million"
    assert parse_number("minus" + "\\text{ }" * 110 + "42") is None


def test_columns_stay_apart_and_ordinary_spacing_stays():
    assert extract_answer("12    345", NUMBER) == "345" and extract_answer("Answer: 12 345", NUMBER) == "12345"
    assert has_words("Paris    24    100", "24") and not has_words("24 100", "24")
    assert (
        parse_number("1\u202f234") == 1234
        and parse_number("5\\,000") == 5000
        and parse_number("1 1/2") == Fraction(3, 2)
    )
    assert (
        extract_answer("a = 5\r\nAnswer: 42\r\n", NUMBER) == "42" == extract_answer("Answer: 42\n\n\n\nDone.", NUMBER)
    )
    assert extract_answer("| a | b |\n|---|---|\n| 1 | 2 |\n" + "-" * 80 + "\nAnswer: 42", NUMBER) == "42"
    spaced = "####  a   =    b"
    assert extract_answer(spaced, WORD) == "a   =    b"
    assert normal_form("a" * TAIL_CHARS + "b") != normal_form("a" * TAIL_CHARS + "c")


def test_filler_is_shortened_and_what_is_said_is_not():
    assert without_filler("a  b") == "a  b" and without_filler("a   b \n  c\n \n d") == "a  b\nc\n\nd"
    assert without_filler("\u200ba\ufe0f\u3164b\r\nc\x0cd") == "a b\nc d"
    signs = "=" * MOST_SIGNS
    assert without_filler(f"a{signs}b") == f"a{signs}b" == without_filler(f"a{signs}=b")
    assert without_filler(f"a\n{signs}{signs}\nb") == f"a\n{signs}\nb"
    assert without_filler(f"\ue0ff{signs}\ue0ff{signs}") == f"\ue0ff{signs}\ue0ff{signs}"
    said = "word " * 9_000
    assert without_filler(said) == said


def test_filler_is_dropped_in_linear_time():
    for piece in (" ", ". ", "a  ", "\u200b", " \n", "." * MOST_SIGNS + "a", "\\,", "\\quad", "&nbsp", "_"):
        begun = time.process_time()
        without_filler(piece * (160_000 // len(piece)))
        assert time.process_time() - begun < 0.5, piece  # 0.03 s; a quadratic one takes minutes
