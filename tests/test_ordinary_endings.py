"""Ordinary ways in which a model ends its answer, with what a person reads; and neighbours that mean something else."""

import pytest

from firsthand import Task
from firsthand.patterns.parts.answers import extract_answer
from firsthand.scorers.match import numeric, same_number, same_words
from firsthand.scorers.text import f1
from firsthand.trace import Trace
from opened_context import asks

NUMBER = asks(hint="a number")
ENDINGS = (
    # The verb between `answer` and its number.
    ("The answer would be 42, assuming he works 5 days.", "42"), ("The answer should be 42 if he works 5 days.", "42"),
    ("The answer will be 42 after 5 days.", "42"), ("The answer must be 42, as 5 is taken.", "42"),
    ("The answer comes to 42, given 5 days.", "42"), ("The answer, then, is 42 (after 5 days).", "42"),
    ("The answer equals 42 for 5 days.", "42"), ("The answer's 42, for 5 days.", "42"),
    ("The answer’s 42, for 5 days.", "42"), ("The answer turns out to be 42 in 5 days.", "42"),
    ("The answer here is 42 for 5 days.", "42"), ("The answer to your question would be 42, given 5 days.", "42"),
    ("The answer to the question is 42, given 5 days.", "42"),
    # One number is denied.
    ("The answer is **not** 5, it is 6.", "6"), ("The answer is not 5; it is 6.", "6"), ("The answer is not 5 but 6.", "6"),
    ("The answer isn’t 5, it’s 6.", "6"), ("The answer is not 5. It is 6.", "6"), ("The answer is *not* 5 — it is 6.", "6"),
    ("The answer is 42 (not 5).", "42"), ("The final answer is 42, not 5.", "42"),
    # Exclamation marks and pictures.
    ("The answer is 7!", "7"), ("The answer is 7!!!", "7"), ("The answer is **7**!", "7"), ("The answer is 7! 🎉", "7"),
    ("The answer is 7 🎉", "7"), ("So he earns $7!", "7"), ("**7!**", "7"), ("The answer is 7 dollars!", "7"),
    ("The answer is 7! Let me know if you need more.", "7"), ("The answer is $\\boxed{7}$!", "7"),
    # Numbers as words.
    ("3 and 4 are odd. The answer is seven.", "7"), ("Answer: twenty-four", "24"), ("Answer: **Twelve** eggs", "12"),
    ("The answer is five hundred.", "500"), ("Answer: one", "1"), ("The answer is a hundred.", "100"),
    # Labels, headings and lists.
    ("### Answer\n\n42", "42"), ("### Final Answer\n**42**", "42"), ("- **Answer:** 42", "42"), ("> Answer: 42", "42"),
    ("✅ Answer: 42", "42"), ("Answer → 42", "42"), ("Answer - 42", "42"), ("Answer – 42", "42"), ("Answer — 42", "42"),
    ("1. First: 20\n2. Then: 40\n3. So: 42", "42"), ("- Monday: 20\n- **Total: 42**", "42"),
    # Quotes, blanks, currencies, units, fractions, signs.
    ("The answer is “42”.", "42"), ("The answer is «42».", "42"), ("The answer is\u00a042\u00a0kg.", "42"),
    ("The answer is 1\u202f234.", "1234"), ("The answer is **$1,234.50**.", "1234.5"), ("The answer is 45 €.", "45"),
    ("The answer is approximately 3.14.", "3.14"), ("He earns a total of 42 dollars.", "42"),
    ("The answer is 25 per cent.", "25"), ("The answer is ¾ of a cup.", "3/4"), ("The answer is 1 1/2 cups.", "3/2"),
    ("The answer is –5.", "-5"), ("The answer is -5°C.", "-5"), ("The answer is $42\\text{ dollars}$.", "42"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "value"), ENDINGS)
def test_an_ordinary_ending_is_read_as_a_person_reads_it(text, value):
    assert same_number(extract_answer(text, NUMBER) or "", value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 42. If he worked 6 days, the answer would be 5.", "42"),
        ("The answer is 42. With 6 days the answer would be 5.", "42"),
        ("The answer would be 5 if he had 3, but he has 4, so 6.", "6"),
        ("The answer would be 5. However, he lost one, so 4 are left.", "4"),
        ("If he had worked, the answer would be 5. He did it for 4.", "4"),
        ("Nobody thinks that the answer should be 5. He did 4.", "4"),
        ("If he works 6 days, the answer would be 5. He earns 42.", "42"),
        ("Answer: 42\nIn 5 days the answer must be 5.", "42"),
        ("The answer's 5 digits add up to 20", "20"),
    ],
)
def test_an_answer_under_a_condition_is_not_stated(text, value):
    assert same_number(extract_answer(text, NUMBER) or "", value)


@pytest.mark.parametrize(
    "text",
    [
        "The answer is not 5.", "The answer is **not** 5.", "The answer is not 6, it is 5 less.", "Answer: five or six",
        "The answer is not 6, it is 5 or 7.", "Answer: five hundred and six", "The answer is one of the boys.",
        "Answer: minus five", "The answer is five-sixths", "Answer: five point six", "The answer is twenty-five",
    ],
)  # fmt: skip
def test_a_denied_hedged_or_larger_number_is_not_read(text):
    found = extract_answer(text, NUMBER) or ""
    assert not same_number(found, "5") and not same_number(found, "1") and not same_number(found, "500")


@pytest.mark.parametrize("question", ["In how many ways?", "Arrange them.", "What is 5!?", "Write 120 as a factorial."])
def test_an_exclamation_mark_is_a_factorial_where_the_question_speaks_of_one(question):
    for text in ("The answer is 5!", "#### 5!", "Answer: **5!**", "5!"):
        assert not same_number(extract_answer(text, Task("1", question, hint="a number")) or "", "5")


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 5!/2", "The answer is 5! ways", "The answer is \\boxed{5!}", "n! gives 5!", "5 factorial: 5!",
        "The answer is 3! + 5!", "Answer: 5! * 2", "\\boxed{5!\n}",
    ],
)  # fmt: skip
def test_a_factorial_is_not_read_as_its_number(text):
    assert not same_number(extract_answer(text, NUMBER) or "", "5")


def test_a_cheerful_picture_beside_a_choice_leaves_the_choice():
    task = asks(choices=("Frog", "Whale"))
    for text in (
        "✅ B",
        "👉 **B**",
        "B ✅",
        "(B) Whale 🎉",
        "The correct answer is **B) Whale** 🎉",
        "The answer is B! 😊",
    ):
        assert extract_answer(text, task) == "B", text
    for text in ("❌ B", "B ❌", "The answer is B 👎"):
        assert extract_answer(text, task) is None, text
    assert extract_answer("The answer is 👍.", asks(choices=("👎", "👍"))) == "B"


def test_the_numeric_scorer_reads_a_cheerful_answer_as_the_patterns_do():
    for question, value in (("How much?", 1.0), ("In how many ways?", 0.0)):
        task = Task("1", question, secret={"answer": "7"})
        assert (
            numeric(
                task, Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=(), answer="It is 7!")
            ).value
            == value
        )


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Côte d’Ivoire", "Côte d'Ivoire"), ("O‘Brien", "O'Brien"), ("“Emma”", "Emma"), ("«Emma»", '"Emma"'),
        ("New-York", "New York"), ("New–York", "New York"), ("well-known", "well known"), ("well‑known", "well-known"),
        ("wellknown", "well-known"), ("rock ’n’ roll", "rock 'n' roll"),
    ],
)  # fmt: skip
def test_typographic_marks_and_hyphens_leave_the_words(answer, reference):
    assert same_words(answer, reference) and same_words(reference, answer)


def test_typographic_marks_do_not_make_other_values_equal():
    for answer, other in (
        ("5’6”", "56"),
        ("a–b", "a b"),
        ("5–6", "56"),
        ("–5", "5"),
        ("x-y", "x y"),
        ("A–", "A"),
        ("The", "A"),
    ):
        assert not same_words(answer, other), (answer, other)
    assert f1("d’Ivoire", "d'Ivoire") == 0, "SQuAD's F1 is as published"
