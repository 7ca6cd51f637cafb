"""Choices that are taken back, conditional or not asserted are none, and explanations behind a choice leave it."""

import pytest

from firsthand.patterns.parts.answers import extract_answer
from firsthand.patterns.parts.later_choice import replaced
from firsthand.task import Task

COLOURS = Task("1", "Which colour?", choices=("red", "green", "blue", "yellow"), secret={"gold": 1})
APPLES = Task("1", "How many apples?", choices=("1", "2", "3", "4"), secret={"gold": 1})


@pytest.mark.parametrize("said", [
    "Answer: B\nHmm, actually C is right.", "Answer: B\nSo C.", "Answer: B\n\nOn balance, though, C.", "Answer: B\nEdit: C",
    "Answer: B\nI take that back: C", "Answer: B\nRevised: C", "Answer: B\nOh no, C!", "Answer: B. Rejected.",
    "Answer: B\nHowever, C is correct.", "Answer: B\nThen again, C", "Answer: B\nSo C.\nYes, C.", "Answer: B\nWait, no.",
    "Answer: B\nSorry, that is wrong.", "Answer: B\nOops.",
    "Answer: B\nBut (C) blue.", "Answer: B\n\nWait, let me think again.",
    "Answer: B given that it is green, otherwise C", "Answer: B as a first guess; C as the final",
    "Answer: B as my first guess",
    "Answer: B, because it is green; C if it is not.", "Answer: C\nB", "Answer: B (first)\nC (final)",
    "Answer: B, maybe not",
    "Answer: C\nYour answer: B", "The answer is C.\nIf the sky were green, the answer would be B.", "!B",
    "Answer: C\nRunner-up answer: B", "Answer: C (my first answer was B)", "The answer is C, while a hasty answer is B",
])  # fmt: skip
def test_a_choice_that_is_taken_back_conditional_or_not_asserted_is_none(said: str) -> None:
    assert extract_answer(said, COLOURS) != "B"


@pytest.mark.parametrize(
    "said", ["2\nWait, 3", "Answer: 2\nHmm, so it is 3", "Answer: 2\nBut in fact 3", "Answer: 2.0\nNo, 3"]
)
def test_a_choice_that_is_a_number_is_taken_back_too(said: str) -> None:
    assert extract_answer(said, APPLES) != "B"


@pytest.mark.parametrize("said", [
    "Answer: B\n\nExplanation: A is true of metals, but not asked. C is a common choice.",
    "Answer: B\n\nNo other option fits.",
    "Answer: B\n\nA) red: too warm\nC) blue: not seen", "Answer: B\n\nThe other options are A, C and D.", "B\nB",
    "Answer: B, because A, C, and D are wrong.", "Answer: B\n\nWait, let me check. Yes, B is right.",
    "Answer: B\n\nSo C?\nNo, B.",
    "Answer: B\n\nGreen is the colour of grass. So B.", "Here is your answer: B", "So your answer is B.",
    "Answer: B\n\nBut if it were night, C would be right.", "I think the answer is A? No, wait. The answer is B.",
    "Answer: B\n\nActually, this is the well-known colour of grass.", "Answer: B\n\nWait times do not matter.",
    "The common answer is A but the right answer is B.", "Looking at each option, it seems that the answer is B.",
    "It was not red. The answer is B.", "Answer: B as grass is green", "Answer: B, as the grass is green",
    "Answer: B\n\nSorry for the long text.", "Answer: B\n\nSo A and C are out.", "Answer: A\nWait, that is wrong.\n\nB",
])  # fmt: skip
def test_an_explanation_a_check_and_a_correction_leave_the_choice(said: str) -> None:
    assert extract_answer(said, COLOURS) == "B"


@pytest.mark.parametrize("said", [
    "Answer: 2\n\nJohn has 1. Mary has 1. So 1 + 1 = 2.", "2\n\nExplanation: Mary has 3 and eats 1. So she has 2.",
    "Answer: 2 apples.\nShe had 3, but 1 was eaten.", "Answer: B) 2\n\nStep 1: 3\nStep 2: 2",
])  # fmt: skip
def test_numbers_of_an_explanation_replace_no_choice(said: str) -> None:
    assert extract_answer(said, APPLES) == "B"


def test_the_last_offer_behind_a_statement_counts() -> None:
    mine, other = "\ue001", "\ue002"
    assert replaced(f"\nSo {other}.\nNo, {mine}.", 1) is False and replaced(f"\nSo {mine}.\nNo, {other}.", 1) is True
    assert replaced(f"\nBut {other} is right.", 1) is True and replaced(f"\nSo {other}?", 1) is False
    assert replaced("", 1) is False and replaced("\nWait, no.", 1) is True
    for choice in ("\ue000", other):
        assert replaced(f"\nSo {choice}.", 1) is True
    assert (
        replaced(f"\nBut {mine} and {other} are right.", 1) is True and replaced(f"\nBut {mine} is right.", 1) is False
    )
