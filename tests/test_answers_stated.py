"""Stated answers: ordinary ones are read, and none is read from one that denies, hedges or goes on."""

import pytest

from firsthand.patterns.parts.answers import extract_answer, parse_number
from firsthand.patterns.parts.value_words import goes_on
from firsthand.scorers.match import same_number, same_words
from opened_context import asks

PETS = asks(choices=("a cat", "a dog", "an axolotl", "a fish"))
COUNTS = asks(choices=("4", "14", "4.5", "red", "a hundred"))
NUMBER = asks(hint="a number")

HONEST_LETTERS = (
    "The answer is B", "The answer is B.", "The answer is (B)", "The answer is (B).", "The answer is **B**.", "Answer: B",
    "**Answer:** B", "**Answer: B**", "Answer: b", "Answer: (b)", "Answer: b)", "Answer: B) a dog", "Answer: B. a dog",
    "Answer: B: a dog", "Answer: B - a dog", "Answer: **(B)** a dog", "The answer is [B]", "The answer is Option B",
    "The answer is option (B).", "The answer is the letter B", "Answer: choice B", "The answer is B because dogs bark",
    "The answer is B, since A is a cat and C is a newt.", "The answer is B, not A", "The answer is B and not A.",
    "The answer is a dog.", "#### B", "#### a dog", "\\boxed{B}", "\\boxed{\\text{B}}",
    "\\boxed{a dog}", "The answer is A DOG",
    "The answer is not A, it is B",
    "The answer is not A.\nSo I choose B.", "Answer: B (A is wrong)",
    "Answer: Option B rather than A", "The answer is\nB", "A or C? A cat meows.\n\nB", "Between A and B, B is better.",
    "Answer: B\n\nWhy not A: because cats meow.", "Options: A, B, C. I pick B", "B",
    "b is it.\nAnswer: 'B'", "Answer: `B`",
    "A is wrong. C is not it. (B)", "The final answer is: B.", "The answer is B!", "It is a dog", "Answer: $B$",
    "B. I hope that this answer is helpful",
)  # fmt: skip
HONEST_FIRST = (
    "A", "A.", "The answer is A", "The answer is A.", "The answer is (A).", "Answer: a",
    "Answer: a)", "Answer: (a) a cat",
    "Answer: A because cats meow", "The answer is A, a cat.", "**A**", "Answer: A - a cat",
    "The answer is A as cats meow",
    "Answer: A is correct", "A cat", "Answer: A cat", "Answer: **A**", "\\boxed{A}", "Answer: A) a cat", "(A)",
)  # fmt: skip
NO_CHOICE = (
    "Answer: a bit unclear", "Answer: A bit unclear", "The answer is a combination of B and C.", "The answer is A or B",
    "The answer is A and B.", "Answer: A, B", "Answer: A/B", "Answer: (A) or (B)", "Answer: A or maybe B", "b or c",
    "The answer is not A", "The answer isn't A.", "Answer: not (A)", "Answer: A is wrong", "Answer: A isn't right",
    "Answer: neither A nor B", "The answer is not a dog", "Answer: a dog is wrong", "Answer: none", "C or A.",
    "Answer: anything other than option A", "It cannot be B.", "Answer: **A** or **B**",
    "\\boxed{A or B}", "#### A, C and D",
    "The answer is C.\nNo: the answer is A or B", "Answer: maybe B but C fits too",
)  # fmt: skip
HONEST_FIVES = (
    "The answer is 5", "The answer is 5.", "The answer is **5**.", "**Answer:** 5",
    "Answer: 5 apples", "Answer: 5 dollars",
    "Answer: $5", "Answer: $5.00", "Answer: 5 hours", "Answer: 5 (five)", "Answer: 5.0",
    "Answer: (5)", "#### 5", "#### $5",
    "\\boxed{5}", "\\boxed{5 \\text{ cm}^2}", "\\boxed{5\\%}", "Answer: 5 cm^2", "Answer: 5 m/s^2",
    "Answer: 5 cm²", "Answer: x = 5",
    "The answer is 5 apples, as 3+2=5.", "The answer is 5 because 10 - 5 = 5", "The answer is 5. This is 3 plus 2.",
    "Answer: 5, since 8 - 3 = 5", "Answer: 5 (3 + 2)", "Answer: 5 boxes of 12", "Answer: 5 of the 12 apples",
    "Answer: 5 apples in 3 boxes", "The answer is 5 students out of 20", "Answer: **5** apples!", "The answer is **5**!",
    "Answer: 5 more apples", "Answer: 5 times", "Answer: 5, not 6", "Answer: 5 - because 3 and 2",
    "The answer is 5: 3 and 2.",
    "Answer: 5 per hour", "Answer: 5 km/h", "Answer: 5 ten-cent stamps", "Answer: 5%",
    "Answer: 3 + 2 = 5", "The answer is 3+2 = 5.",
    "The answer is `5`", "Answer: \"5\"", "Answer: 5 on day 3", "so he has 5", "3 + 2 = 5 apples",
    "Answer: 5 CO2 molecules",
    "Answer: 5 [1]", "Answer: about 5", "The answer is 5 when x is 3", "The answer is 5. Or not",
    "Answer: 5 apples; thanks",
    "Answer: 5 apples. 12 were left.", "Answer: 5 °C", "Answer: 5 is correct", "The answer is $5$.", "Answer: 5, no more",
)  # fmt: skip
NO_FIVE = (
    "5 1/2", "5:30", "5 : 30", "5!/2", "5 - 2", "5 – 2", "5-6", "5 to 6", "5 times 3",
    "5 times three", "5 x 3", "5 feet 6 inches",
    "5'6\"", "5 hours and 30 minutes", "5, no wait, 6", "5. No wait, it is 6", "5 (sorry, 6)",
    "5, I mean 6", "two thousand 5",
    "five hundred and 5", "half of 5", "a quarter of 5", "twice 5", "20% of 5", "5% of 200",
    "5 percent of 200", "5 grand",
    "5 mln", "5 tsd", "5, 6", "5; 6", "5, six", "5,6", "5 divided by 2", "5 out of 6", "5 (or -5)", "(5)(3)", "10 - 5",
    "5 less than 10", "5 more than 10", "5 is wrong", "5 isn't right", "5½", "5 per 2", "-+5", "!=5", "5 below zero",
    "5 plus 3", "5 and 6", "5 feet, 6 inches", "5 point 6",
)  # fmt: skip


@pytest.mark.parametrize("text", HONEST_LETTERS)
def test_an_ordinary_answer_by_letter_or_by_text_is_read(text):
    assert extract_answer(text, PETS) == "B"


@pytest.mark.parametrize("text", HONEST_FIRST)
def test_the_letter_a_is_told_from_the_article(text):
    assert extract_answer(text, PETS) == "A"


@pytest.mark.parametrize("text", NO_CHOICE)
def test_an_answer_that_denies_hedges_or_names_no_choice_is_none(text):
    assert extract_answer(text, PETS) is None


def test_a_choice_is_quoted_in_whole_words_and_numbers():
    for text, letter in (
        ("Answer: 14", "B"), ("Answer: 4", "A"), ("Answer: 4.5", "C"), ("Answer: 4.", "A"),
        ("Answer: -4", None), ("it is 24", None),
        ("Answer: a  Hundred", "E"), ("Answer: 1.4", None), ("Answer: reds", "D"), ("Answer: B (not 4)", "B"),
    ):  # fmt: skip
        assert (text, extract_answer(text, COUNTS)) == (text, letter)
    assert extract_answer("答案是狗。", asks(choices=("猫", "狗"))) == "B"


@pytest.mark.parametrize("text", HONEST_FIVES)
def test_an_ordinary_number_is_read(text):
    found = extract_answer(text, NUMBER)
    assert found is not None and parse_number(found) == 5


@pytest.mark.parametrize("text", NO_FIVE)
def test_a_stated_number_that_goes_on_is_not_cut_off(text):
    for form in ("The answer is {}", "Answer: {} ", "#### {}", "\\boxed{{{}}}"):
        assert not same_number(extract_answer(form.format(text), NUMBER) or "", "5"), form


def test_mixed_numbers_are_read_whole():
    for text, value in (
        ("Answer: 5 1/2", "5.5"),
        ("Answer: 1½ cups", "1.5"),
        ("so it is 2 3/4", "2.75"),
        ("Answer: -1 1/2.", "-1.5"),
    ):
        assert same_number(extract_answer(text, NUMBER) or "", value), text
    assert extract_answer("Answer: 1 1/2 million", NUMBER) == "1 1/2 million", "no number to a scorer"


def test_signs_that_make_another_value_are_kept_by_words():
    for text in ("-(5)", "-+5", "!=5"):
        assert not same_words(text, "5") and same_words(text, text), text
    assert same_words("Paris!", "paris") and same_words("(5)", "5")


def test_a_statement_that_is_taken_back_or_met_with_a_but_further_down_is_none():
    assert extract_answer("Answer: 5\nWait, 6\n#### 7\nNo, that is wrong.", NUMBER) is None
    assert extract_answer("Answer: 5\nWait, 6\n#### 7\nNo, it is 8.", NUMBER) == "8"
    assert extract_answer("The answer would be Ann.\nShe was there.", asks()) == "Ann"
    assert extract_answer("The answer would be Ann.\nBut she was away.", asks()) is None


def test_an_answer_goes_on_within_its_clause():
    assert goes_on(" feet 6") and not goes_on(" feet. 6") and not goes_on(" feet\n6") and not goes_on("")
    assert not goes_on(" a" * 200_000 + " 6")
