"""A number is read from an answer if its statement stands, and with the whole expression that it is a part of."""

import pytest

from firsthand.patterns.parts.answers import answer_or_text, last_number, parse_number
from firsthand.scorers.symbolic import boxed
from firsthand.scorers.whole_words import has_words
from firsthand.trace import Trace
from opened_context import asks

NUMBER = asks("How many are there?", hint="a number")
PARTS_OF_EXPRESSIONS = (
    r"Answer: \frac{x}{5}", r"\boxed{\frac{\pi}{5}}", r"\boxed{\frac{\text{total}}{5}}", r"\boxed{\binom{n}{5}}", "so x_5",
    "10**5", r"\log_2 5", r"\log_{2} 5", r"\binom{8}{5}", r"\boxed{5_{16}}", "f(5)", "0x5", "(8, 5)",
    "C(8,5)", "8 choose 5",
    "It is 2:5.", "2,5 euros", "0.(5)", "2 to the power of 5", "3 * 5", "|-3|+5", "Answer: 5.e1", r"5 \bmod 7",
)  # fmt: skip
OTHER_VALUES = (
    "5 bil", "5 mill", "5 thou", "5 giga", "5 kilo", "5 Billionen", "5ᵗʰ power of 2", "5 pairs plus one",
    "5 (wrong)", "5 ❌",
    "5, rounded up to six", "5 with 2 left over", "5, remainder 2", "5 (mod 7)", "5 hex", "ten less 5", "ten divided by 5",
)  # fmt: skip
TAKEN_BACK = (
    "Answer: 5\n\nWait, I made a mistake: 3 + 3 = 6, so it is 6.", "#### 5\nCorrection: 6",
    "The answer is 5.\n\nHmm, let me recheck: 2*3 = 6. So there are 6 apples.", "#### 6\nnot #### 5",
    "The answer is 6\n\nNote that a common wrong answer is 5", "The answer is 6. A common mistake: answer = 5",
    "I am sure the answer is 6.\n(Your answer: 5)", '{"answer": 6, "confidence": 5}', "<answer>6</answer> (5)",
    "If there were no tax, the answer is 5. With tax there are 6.", r"\boxed{5} is what a beginner would say, but it is 6.",
)  # fmt: skip
NONE = (
    "Is the answer 5? No.", "I doubt the answer is 5", "The wrong answer is 5", r"\boxed{6} or, rounded, \boxed{5}",
    "Answer: 5. Wait, no.",
)  # fmt: skip
FIVE = (
    "The answer is 5.\n\nCheck: 6 - 1 = 5 ✓", "I made a mistake at first. The answer is 5.",
    "Answer: five (5)", "it is **5**",
    "The answer is not 6 but 5.",
    "If there were 12 apples and 7 were eaten, the answer is 5.", r"so $\frac{10}{2}$ of them",
    "Answer: 6\nWait, that is wrong.\nAnswer: 5", "Answer: 5 milliliters", "Answer: 5 mills", "Answer: 5 (five)", "5 m^2",
    "Answer: 5, rounded to 2 decimal places", '{"answer": "5", "n": 2}',
    "So the answer is {5}.", r"\therefore 5", "Total: $5",
    "The answer is 5 apples. No apples are left.", "(5)", "Ann's answer is 6. The answer is 5.", r"\boxed{\mathbf{5}}",
)  # fmt: skip


def read(text):
    number = parse_number(answer_or_text(text, NUMBER))
    return None if number is None else str(number)


@pytest.mark.parametrize("text", PARTS_OF_EXPRESSIONS)
def test_a_part_of_an_expression_is_no_number(text):
    assert read(text) != "5"


@pytest.mark.parametrize("text", OTHER_VALUES)
def test_words_and_signs_that_make_another_value_are_seen(text):
    assert read(f"Answer: {text}") != "5" and parse_number(text) != 5


@pytest.mark.parametrize("text", TAKEN_BACK)
def test_a_statement_that_is_taken_back_or_not_asserted_does_not_count(text):
    assert read(text) == "6"


@pytest.mark.parametrize("text", NONE)
def test_what_is_only_denied_or_offered_is_no_number(text):
    assert read(text) is None


@pytest.mark.parametrize("text", FIVE)
def test_ordinary_ways_to_state_a_number_are_read(text):
    assert read(text) == "5"


def test_fractions_and_grouped_digits_are_read_whole_where_nothing_is_stated():
    for text, number in (
        (r"The probability is $\frac{3}{4}$.", "3/4"), (r"$$P = \frac{3}{4}$$", "3/4"), (r"\dfrac{1}{2} of it", "1/2"),
        (r"2\frac{1}{3}", "7/3"), ("½ cup", "1/2"), ("It is 12 345 people.", "12345"), ("1'234'567", "1234567"),
        ("in 2020 300 people", "300"), ("1 234.50", "2469/2"), ("3 200-gram bags and 2", "2"),
    ):  # fmt: skip
        assert read(text) == number, text
    assert last_number(r"so \frac{3}{4}") == "3/4"


def test_numbers_in_a_text_are_found_with_their_whole_expression():
    for text in (
        "24 000", "24'000", "24×10^3", "24 x 10^3", "24·10³", "24 1/2", "24 and a half",
        "√24", r"\sqrt{24}", "− 24", "24!/2",
        "24 squared", "twice 24", "half of 24", "24 halves", "24 times 2", "24 + 1", "1 / 24",
        "24 divided by two", "x_{24}",
    ):  # fmt: skip
        assert not has_words(text, "24"), text
    for text in (
        "24!",
        "- 24",
        "20 + 4 = 24",
        "24 half-hour talks",
        "24 and 25",
        "24 times",
        "_24_",
        "**24**",
        "24 over",
        "[24]",
    ):
        assert has_words(text, "24"), text
    assert has_words("24 000", "24,000") and has_words("24×10^3", "24") is False
    for text, wanted in (
        ("Zu\u0308rich", "Zürich"),
        ("Zürich", "Zu\u0308rich"),
        ("_Paris_", "Paris"),
        ("__Paris__", "Paris"),
    ):
        assert has_words(text, wanted), text
    assert has_words("a_b", "a_b") and not has_words("x_1", "x")


def test_a_boxed_ratio_a_capital_and_a_sign_are_not_dropped():
    def right(answer: str, reference: str, question: str = "Find the value.") -> bool:
        task = asks(question, secret={"answer": reference}, verbatim=True)
        return (
            boxed(task, Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, answer=f"\\boxed{{{answer}}}")).value == 1.0
        )

    assert not right(r"5\text{M}", "5") and not right(r"5\text{M}", r"5\text{m}") and right(r"5\text{ m}", "5")
    assert not right("1:2", r"\frac12") and right("1:2", r"\frac12", "What is the ratio?") and right("0.5", "1:2")
    assert right("2:4", "1:2") and not right("0:0", "1:2") and not right("0:0:0", "1:2:3") and right("0:2", "0:2")
    assert not right("-Tuesday", r"\text{Tuesday}") and right(r"\text{non-zero}", r"\text{non-zero}")
