"""Choices whose texts differ by capitals or typography, are letters, or end in a full stop."""

import pytest

from firsthand.patterns.parts.answers import extract_answer
from firsthand.scorers.choice import chosen_letter
from firsthand.task import Task

BOTH = (
    "The answer is (L) T.",
    "(L) T",
    "Answer: L. T",
    "Answer: L (T)",
    "The answer is **(L) T**.",
    "L: T",
    "**L) T**",
)
ALONE = ("The answer is T", "The answer is T.", "T", "**T**", "\\boxed{T}", "`T`", '{"answer": "T"}')
STATED = (
    "Answer: L",
    "**L**",
    "*L*",
    "**The answer is L**",
    "\\boxed{L}",
    "(L)",
    "$L$",
    "'L'",
    "__L__",
    "Answer: **L**.",
)
SIMILAR = (
    ("AaBb", "AABB", "aabb", "Aabb"), ("Tt", "TT", "tt", "T"), ("5 Mb", "5 MB", "5 Gb", "5 kb"), ("mM", "MM", "nM", "uM"),
    ("x^2", "X^2", "x", "y"), ("f'(x)", "f(x)", "f''(x)", "F(x)"), ("__init__", "init", "_init_", "init()"),
    ("$5", "5", "€5", "£5"), ("*", "**", "/", "//"),
)  # fmt: skip
SIGNED = (
    ("Dijkstra", "BFS", "A*", "DFS"),
    ("D*", "A*", "BFS", "B*"),
    ("b*", "a*", "c*", "d*"),
    ("C'", "B'", "A'", "D'"),
)


def read(text: str, choices: tuple[str, ...]) -> str | None:
    return extract_answer(text, Task("t", "Which?", choices=choices))


def filled(form: str, letter: str, text: str) -> str:
    return form.replace("T", "\0").replace("L", letter).replace("\0he", "The").replace("\0", text)


@pytest.mark.parametrize("choices", (*SIMILAR, *SIGNED), ids=str)
def test_a_choice_as_written_is_that_choice_with_its_letter_or_alone(choices: tuple[str, ...]) -> None:
    for letter, text in zip("ABCD", choices, strict=True):
        for form in (*BOTH, *STATED):
            if not ("**" in choices and "**" in form):  # where ** is an answer, bold cannot be told from it
                assert read(filled(form, letter, text), choices) == letter, (form, text)
        for form in ALONE:
            if text not in ("T", "*", "**"):
                assert read(filled(form, letter, text), choices) in (letter, None), (form, text)
                if "/" not in text:
                    assert read(filled(form, letter, text), choices) == letter, (form, text)


@pytest.mark.parametrize("text", ["AABb", "aaBB", "aABB"])
def test_another_spelling_is_of_the_choice_whose_letter_stands_before_it(text: str) -> None:
    choices = ("AaBb", "AABB", "other", "another")
    assert [read(f"The answer is ({letter}) {text}.", choices) for letter in "ABCD"] == ["A", "B", None, None]
    assert read(f"The answer is {text}.", choices) is None
    assert read("The answer is (A) AABB.", choices) is None


def test_choices_of_one_text_are_told_by_their_letter() -> None:
    choices = (" 687", " 687", "1", "2")
    assert [read(f"The answer is ({letter}) 687.", choices) for letter in "ABC"] == ["A", "B", None]
    assert read("The answer is 687.", choices) is None


def test_a_text_that_is_a_letter_does_not_take_its_own_letter_away() -> None:
    boron, other = (" As", " P", " Sb", " B"), ("B", "A", "D", "C")
    for form in ("The answer is (D) B.", "(D) B", "D. B", "Answer: D (B)", "D: B\n\nBoron is the one."):
        assert read(form, boron) == "D", form
    assert read("The answer is (A) A", ("A", "B", "C", "D")) == "A"
    for form in ("The answer is (B) D.", "(D) B or C", "Answer: D, B"):
        assert read(form, boron) is None, form
    assert read("The answer is A. B is wrong.", other) == "A" and read("Answer: A, B", other) is None
    assert read("(A) A", other) is None and read("B", boron) == "B"


def test_typography_around_a_choice_is_taken_off_in_pairs() -> None:
    stars, money = SIGNED[0], SIMILAR[7]
    for text in ("**A***", "**The answer is A***", "The answer is A\\*.", "**Answer:** A*", "**C) A***", "***A****"):
        assert read(text, stars) == "C", text
    for text in ("**A**", "***A***", "**The answer is A**", "The answer is *A*.", "Answer: A, not A*"):
        assert read(text, stars) == "A", text
    assert read("Answer: B (A*)", stars) is None
    assert read("**__init__**", SIMILAR[6]) == "A" and read("*init*", SIMILAR[6]) == "B"
    assert read("Answer: $5$", money) == "B" and read("Answer: $\\$5$", money) == "A"
    for text in ("Answer: ¥5", "Answer: $50", "Answer: 50", "Answer: (B) $5"):
        assert read(text, money) is None, text


@pytest.mark.parametrize(
    "form", ["\\text{T}", "\\(T\\)", "`T`", '"T"', "“T”", "$\\text{T}$", "**`T`**", "\\$T\\$", "$T$", "_T_"]
)
def test_a_text_that_is_a_letter_in_typography_is_read_as_the_letter_that_the_question_asks_for(form: str) -> None:
    choices = tuple(form.replace("T", each) for each in "BADC")
    for said in (
        form.replace("T", "A"),
        "\\boxed{\\text{A}}",
        "`A`",
        "\\(A\\)",
        f"Answer: (A) {choices[0]}",
        '{"answer": "A"}',
    ):
        assert read(said, choices) == "A", said


def test_apostrophes_within_words_are_no_pair_of_quotation_marks() -> None:
    assert read("Answer: it isn't B, and it wasn't D", SIGNED[0]) is None
    assert read("The answer isn't B, and the answer wasn't D.", SIGNED[0]) is None


ENDED = (
    ("It rises.", "It falls.", "It stays the same.", "No."), ("U.S.", "U.K.", "E.U.", "U.N."),
    ("10 a.m.", "10 p.m.", "noon.", "5."),
)  # fmt: skip


@pytest.mark.parametrize("choices", ENDED, ids=str)
def test_a_choice_that_ends_in_a_full_stop_may_stand_in_brackets(choices: tuple[str, ...]) -> None:
    for letter, text in zip("ABCD", choices, strict=True):
        for form in ("Answer: L (T)", "**L** (T)", "Answer: L [T]", 'The answer is L ("T").', "The answer is (T)"):
            assert read(filled(form, letter, text), choices) == letter, (form, text)
        other = choices["ABCD".index(letter) - 1]
        assert read(f"Answer: {letter} ({other})", choices) is None


def test_the_full_stop_between_sentences_still_ends_the_statement() -> None:
    assert read("The answer is It falls. It rises was tempting.", ("It rises", "It falls", "x", "y")) == "B"
    assert read("Answer: B (And so on...)", ("No...", "And so on...", "x", "y")) == "B"
    assert read("Answer: B (5.5)", ("4.", "5.", "6.", "7.")) is None


def test_a_written_answer_is_the_choice_of_its_capitals() -> None:
    task = Task("t", "Which?", choices=("AaBb", "AABB", "other", "B12"))
    assert [chosen_letter(each, task) for each in ("AaBb", "AABB", "aabb", "OTHER", "b12")] == [0, 1, None, 2, 3]
    assert chosen_letter("AABB", Task("t", "Which?", choices=(" AaBb", " AABB"))) == 1


def test_characters_of_marks_in_an_answer_are_no_marks() -> None:
    for choices in (SIGNED[0], SIMILAR[0]):
        assert [read(f"Answer: {each}", choices) for each in "\ue000\ue800"] == [None, None]


def test_plurals_and_far_letters() -> None:
    assert read("The answer is cats.", ("cat", "dog", "cow", "hen")) == "A"
    assert read("The answer is (B).  AABb", ("AaBb", "AABB", "x", "y")) != "A"
