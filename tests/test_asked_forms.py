"""Answers are read in the form that the question asks for: named parts, percentages, bases; and sets by their conditions."""

from __future__ import annotations

import pytest

from firsthand.scorers.symbolic import comparison

POLAR = "Convert the point to polar coordinates. Enter your answer in the form $(r,\\theta)$."


def right(answer: str, reference: str, question: str | None = None) -> bool:
    return comparison(answer, reference, question)[0]


@pytest.mark.parametrize(
    ("question", "names"),
    [
        (POLAR, ("r", "\\theta")),
        ("Enter your answer as \\left( m,b \\right).", ("m", "b")),
        ("Find the ordered pair $(N, A)$.", ("N", "A")),
        ("The point $(a,b)$ moves to $(b,a)$. Find $(b,a)$", ("b", "a")),
        ("The point $(x,y)$ is given. Find $(y,x)$, where x and y are real.", ("y", "x")),
        ("Find p, m, and n.", ("p", "m", "n")),
        ("Find the values of $y$ and $x$.", ("y", "x")),
        ("Find $(x_{10},x_2)$", ("x_{10}", "x_2")),
        ("Give (width, length).", ("\\text{width}", "\\text{length}")),
        ("Solve the system.", ("t", "s")),
    ],
)
def test_named_parts_are_put_in_the_order_of_the_question(question: str, names: tuple[str, ...]) -> None:
    values = [str(each) for each in range(4, 4 + len(names))]
    reference = f"({','.join(values)})"
    written = [f"{name} = {value}" for name, value in zip(names, values, strict=True)]
    swapped = [f"{name} = {value}" for name, value in zip(names, reversed(values), strict=True)]
    assert right(", ".join(written), reference, question)
    assert not right(", ".join(swapped), reference, question)
    assert right(reference, ", ".join(written), question)  # the reference may name its parts too
    assert right(f"({','.join(names)}) = {reference}", reference, question)
    assert not right(f"({','.join(names)}) = ({','.join(reversed(values))})", reference, question)
    if question != "Solve the system.":  # which lists no names: the order is as written
        assert right(", ".join(reversed(written)), reference, question)
        assert not right(f"({','.join(reversed(names))}) = {reference}", reference, question)


def test_two_answers_with_names_are_compared_by_name() -> None:
    for question in (None, "Find $(x,y)$.", "Solve it."):
        assert right("y = 3, x = 1", "x = 1, y = 3", question)
        assert right("(y,x) = (3,1)", "(x,y) = (1,3)", question)
        assert not right("y = 1, x = 3", "x = 1, y = 3", question)
        assert not right("(y,x) = (1,3)", "(x,y) = (1,3)", question)


def test_several_tuples_of_the_same_names_are_all_compared() -> None:
    question = "Find all pairs $(x,y)$."
    assert right("(x,y) = (1,2), (3,4)", "(1,2), (3,4)", question)
    assert right("(y,x) = (2,1), (4,3)", "(1,2), (3,4)", question)
    assert not right("(y,x) = (1,2), (3,4)", "(1,2), (3,4)", question)
    assert not right("(x,y) = (1,2), (3,4)", "(1,2)", question)


@pytest.mark.parametrize(
    "question",
    [
        "What percent of the bolts fail?",
        "By how many percent did it grow?",
        "What is the overall percent increase?",
        "Find the percentage of red ones.",
        "Express your answer as a percent.",
        "Express your answer to the nearest tenth of a percent.",
        "By what $\\%$ did it grow?",
        "Find the percentage to one decimal place.",
    ],
)
def test_where_a_percentage_is_asked_a_bare_number_is_one_of_any_size(question: str) -> None:
    for number in ("0.75", "\\frac12", "2", "200", "1", "-20"):
        assert right(f"{number}\\%", number, question)
        assert right(number, f"{number}\\%", question)
    for answer, reference in (("2", "200\\%"), ("200\\%", "2"), ("0.5", "50\\%"), ("\\frac12", "50\\%")):
        assert not right(answer, reference, question)


def test_where_no_percentage_is_asked_it_is_a_hundredth_too() -> None:
    for question in (
        None,
        "Of 20% of them, what is the probability?",
        "What percentage, as a fraction?",
        "Find the percentage in decimal form.",
    ):
        assert right("50\\%", "\\frac12", question)
        assert right("200\\%", "2", question)
        assert not right("0.75\\%", "0.75", question)
    assert not right("10\\%", "10", "How many apples?")


@pytest.mark.parametrize(
    ("question", "reference", "bare"),
    [
        ("Express your answer in base 6.", "2112_6", "2112"),
        ("Express your answer in base $6$.", "2112_{6}", "2112"),
        ("Compute it. Express it in base 3.", "-221_3", "-221"),
        ("What is the base six equivalent of $999_{10}$?", "4343_6", "4343"),
        ("What is the base-10 integer 340 when expressed in base 7?", "664_7", "664"),
        ("The number in base 10 is 340. Give it in base 7.", "664_7", "664"),
        ("Convert it to base 2. Express it in binary.", "0.0011_{2}", "0.0011"),
        ("Write it in hexadecimal.", "AB_{16}", "ab"),
        ("Give it in base 11.", "152A_{11}", "152A"),
        ("Give it in base 16.", "AB_{16}", "ab_{16}"),
    ],
)
def test_the_base_that_is_asked_may_be_left_out(question: str, reference: str, bare: str) -> None:
    assert right(bare, reference, question)
    assert right(f"x = {bare}", reference, question)
    assert not right(bare + "1", reference, question)
    assert not right(bare, reference, None)
    assert not right(bare, reference, question + " Give it in base 5 too.")


def test_a_base_is_not_taken_for_another_nor_left_out_unasked() -> None:
    assert not right("52_9", "52_8", "Give it in base 8.")
    assert not right("42", "52_8", "Give it in base 8.")
    assert not right("52", "52_8", "What is $6_8 \\cdot 7_8$?")
    assert not right("52", "52_8", "Give it in base 9.")
    assert not right("10_6", "10", "What is the product (in base 10) of the digits in base 6?")


def test_a_base_is_read_in_words_and_behind_wrapped_digits() -> None:
    for written in ("\\text{52}_8", "\\text{52 base 8}", "52 (base eight)", "52 \\text{ in base } 8", "(52)_8"):
        assert right(written, "52_8"), written
        assert not right(written, "52_9"), written


@pytest.mark.parametrize(
    ("written", "plain_set"),
    [
        ("x>1 \\text{ and } x<3", "(1,3)"),
        ("1<x \\text{ and } x<3", "1<x<3"),
        ("x>1, and x<3", "(1,3)"),
        ("x\\ge1 \\land x\\le3", "[1,3]"),
        ("x>1 \\text{ and } x \\le 3", "(1,3]"),
        ("x>1 \\text{ and } x\\ge1 \\text{ and } x<3", "(1,3)"),
        ("x\\ge1 \\text{ and } x\\le1", "[1,1]"),
        ("x\\ge0 \\text{ and } x \\ne 1", "[0,1)\\cup(1,\\infty)"),
        ("\\{x|x>2\\}", "(2,\\infty)"),
        ("\\{x|x>1, x<3\\}", "(1,3)"),
        ("\\{x \\in \\mathbb{R} | |x|<3\\}", "(-3,3)"),
        ("\\{x : x\\in\\mathbb{R}, x>2\\}", "(2,\\infty)"),
        ("\\{x \\mid x<1 \\text{ or } x>3\\}", "(-\\infty,1)\\cup(3,\\infty)"),
        ("\\{2|{-3}|, 1\\}", "\\{6, 1\\}"),
    ],
)
def test_conditions_of_one_variable_are_a_set(written: str, plain_set: str) -> None:
    assert right(written, plain_set)
    assert right(plain_set, written)


def test_and_is_an_intersection_and_no_union() -> None:
    assert not right("x<-1 \\text{ and } x>3", "(-\\infty,-1)\\cup(3,\\infty)")
    assert not right("x<3 \\text{ and } x>1", "x<3 \\text{ or } x>1")
    assert not right("x>1 \\text{ and } x\\le1", "[1,1]")
    assert not right("x>1 \\text{ and } x<3", "[1,3)")
    assert not right("x>1 \\text{ and } y<3", "(1,3)")
    assert not right("\\{x|x>1, y<3\\}", "(1,3)")
    assert right("x>1 \\text{ and } y<3", "x>1, y<3")
    assert right("x<3 \\text{ and } x>1", "x>1, x<3")
    assert right("2 \\text{ and } 3", "3, 2")


def test_conditions_of_several_variables_are_compared_each_by_itself() -> None:
    quadrant = "\\{(x,y) : x > 0, y > 0\\}"
    assert right("\\{(x,y) \\mid x>0, y>0\\}", quadrant)
    assert right("\\{(x,y) : y>0, x>0\\}", quadrant)
    for other in ("\\{(x,y) : x>0\\}", "\\{(x,y) : x>0, y<0\\}", "\\{x : x>0, x<1\\}", "(0,\\infty)"):
        assert not right(other, quadrant), other
    assert not right("\\{x : x \\in \\mathbb{R}, x \\in \\mathbb{R}\\}", "(0,\\infty)")
    assert not right("\\{x : x \\in (0,5), x>2\\}", "(2,\\infty)")


def test_and_of_logic_and_of_vectors_is_no_list() -> None:
    assert not right("p \\land q", "p \\lor q")
    assert not right("p \\land q", "p, q")
    assert not right("u \\wedge v", "v \\wedge u")
    assert right("u \\wedge v", "u \\wedge v")


def test_and_behind_a_comma_joins_all_conditions_before_it() -> None:
    assert right("x>0, x<5, and x\\ne 2", "x>0, x<5, x \\ne 2")
    assert right("x>0, x<5, and x\\ne 2", "(0,2)\\cup(2,5)")
    assert right("a>0, b>0, and c>0", "a>0, b>0, c>0")
    assert right("a>0, b>0 \\text{ and } c>0", "a>0, b>0, c>0")
    assert right("x<1 \\text{ or } x>3, and x<5", "x<1 \\text{ or } 3<x<5")
    assert right("x=7, x>0 \\text{ and } x<5", "x=7, 0<x<5")
    assert right("x>0, x<5 \\text{, and } 7", "x>0, x<5, 7")
