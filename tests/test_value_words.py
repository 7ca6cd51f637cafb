"""Numbers beside words and signs that change their value: they are read as such, or are no number."""

import pytest

from firsthand.patterns.parts.answers import extract_answer, last_number, parse_number
from firsthand.patterns.parts.value_words import changes_value, folded, has_words_of_value, multiple
from firsthand.scorers.match import numeric
from firsthand.task import Task
from firsthand.trace import Trace

CHANGED = (
    "minus 5",
    "negative 5",
    "not 5",
    "5²",
    "³5",
    "√5",
    "√ 5",
    "∛5",
    "5k",
    "5K",
    "5M",
    "5 B",
    "5bn",
    "log 5",
    "\\log 5",
    "\\sqrt{5}",
    "\\frac{5}{x}",
    "x<5",
    "<5",
    "≤5",
    "±5",
    "10⁶",
    "2⁵",
    "5x",
    "5 x",
    "x5",
    "-(5)",
    "5 or six",
    "5, or six",
    "5 and a half",
    "5 halves",
    "5 squared",
    "5 pi",
    "5π",
    "5^x",
    "x^5",
    "5_x",
    "x/5",
    "5/x",
    "5+",
    "x+5",
    "5 - x",
    "x - 5",
    "x-5",
    "rate-5",
    "5万",
    "负5",
    "5 hundred six",
    "twenty 5",
    "at least 5",
    "less than 5",
    "5‰",
    "5·x",
    "5×x",
    "5*x",
    "5 * x",
    "x*5",
    "5 millions",
    "5 thousandths",
    "5 factorial",
    "5 over x",
    "⑤5",
    "minus $5",
    "5 millones",
)
KEPT = (
    "5",
    "$5",
    "5%",
    "5 %",
    "**5**",
    "*5* apples",
    "`5`",
    "_5_",
    "5 apples",
    "5 ten-cent stamps",
    "x = 5",
    "The answer is 5.",
    "The answer: **5**",
    "$5 to spend",
    "5 times",
    "5°",
    "5^\\circ",
    "5^{\\circ}",
    "5 cm",
    "5cm",
    "5m",
    "5 m/s",
    "5 cm²",
    "$5/hour",
    "5/day",
    "5个",
    "答案是5",
    "€5",
    "5 €",
    "R$5",
    "\\$5",
    "\\(5\\)",
    "\\boxed{5}",
    "5\\%",
    "+5",
    "≈5",
    "~5",
    "5️⃣",
    "→ 5",
    "5 a day",
    "5-year",
    "5 quarters",
    "5 more apples",
    "(5)",
    "“5”",
    "about 5",
    "5\u00a0kg",
    "5 dollars each",
    "5?",
    "5\\text{ cm}",
    "USD 5",
    "5 (apples)",
    "5 left over",
)


def right(answer: str, reference: str) -> bool:
    trace = Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=(), answer=answer)
    return numeric(Task("1", "?", secret={"answer": reference}), trace).value == 1.0


@pytest.mark.parametrize("text", CHANGED)
def test_a_number_that_a_word_or_sign_changes_is_no_number(text):
    assert parse_number(text) is None
    assert not any(right(text, reference) for reference in ("5", "10", "2"))


def test_every_dash_before_a_number_is_its_sign():
    for dash in "-−‐‑‒–—―﹘﹣－➖":
        for text in (f"{dash}5", f"{dash} 5", f"{dash}€5", f"{dash}\u200b5", f"x = {dash}5", f"the answer: {dash} 5"):
            assert parse_number(text) == -5, text
            assert right(text, "-5") and not right(text, "5"), text
        assert last_number(f"it is {dash}5") == "-5"
    assert last_number("pages 3–5") == "5" and parse_number("3–5") is None and folded("a–5 −5") == "a - 5 -5"


def test_words_of_size_multiply():
    for text, number in (
        ("5 million", 5 * 10**6),
        ("$2.5 million", 2_500_000),
        ("5 hundred", 500),
        ("3-thousand", 3_000),
        ("2 dozen eggs", 24),
        ("5 hundred thousand", 500_000),
        ("-5 billion", -5 * 10**9),
        ("1/2 trillion", 5 * 10**11),
    ):
        assert parse_number(text) == number, text
    assert right("5 million", "5,000,000") and not right("5 million", "5")
    assert multiple(" million a") == (10**6, " a") and multiple(" millionaires") == (1, " millionaires")


@pytest.mark.parametrize("text", KEPT)
def test_ordinary_ways_to_write_a_number_are_read(text):
    assert parse_number(text) == 5 and right(text, "5")


def test_an_extracted_number_keeps_what_changes_it():
    task = Task("1", "?", hint="a number")
    for text, answer in (
        ("The answer is minus 5", "minus 5"),
        ("The answer is 5²", "5²"),
        ("\\boxed{√5}", "√5"),
        ("so it is 5k", "so it is 5k"),
        ("The answer is 5 million", "5000000"),
        ("The answer is ‑5.", "-5"),
        ("it is ‑5", "-5"),
        ("x = 17 + 5", "x = 17 + 5"),
        ("The answer is 5 apples, as 3+2=5.", "5"),
        ("so 3 or 4", "4"),
        ("The answer is Twenty-Four apples.", "24"),
        ("The answer is FORTY.", "40"),
        ("The answer is One.", "1"),
        ("The answer is One of the boys.", None),
        ("first\nx < 5\nend", "x < 5"),
    ):
        assert extract_answer(text, task) == answer, text


def test_words_are_looked_at_beside_the_number_alone():
    assert changes_value("minus ", "5", "") and not changes_value("minus the rest, ", "5", "")
    assert changes_value("", "5", " squared") and not changes_value("", "5", " cm, squared off")
    assert has_words_of_value(["cm", "Minus"]) and not has_words_of_value(["cm", "squared", "teachers"])
