"""Lists and letters in an order that the question asks for are compared in it, and in any order where it does not."""

from __future__ import annotations

import time

import pytest

from cpu_time import at_most_cpu_s
from firsthand.scorers.mathematics.asked_order import MAX_CHARS, asks_for_order
from firsthand.scorers.symbolic import comparison

BOX = "\nPlease reason step by step, and put your final answer within \\boxed{}."
ASKED = (
    "Arrange the numbers in increasing order.",
    "Sort these: 3, 1, 2.",
    "Read the rows, then order them by length.",
    "Rank the cars from fastest to slowest.",
    "Rank the cars from fastest\nto slowest.",
    "In which order do they finish?",
    "Say in which order: give the three letters in order.",
    "Give the next three terms of the sequence.",
    "What are the first four terms of the sequence, in order?",
    "What are the next three numbers in the sequence 1, 2, 4?",
    "Write the functions in order from fastest-growing to slowest-growing (by number, separated by commas).",
    "List the countries from the most expensive to the least expensive.",
    "If $x^2=4$, find all possible values of $x$ and list them from least to greatest.",
    "What are the four integers in increasing order? (place a comma and then a space between each integer)",
    "Express them in decreasing order, separated by commas.",
    "Find the roots in strictly ascending order.",
    "Give the digits from left to right.",
    "Solve it. Your answers should be in numerical order.",
    "Solve it. The roots must be listed in alphabetical order.",
    "Name the winners in the same order.",
    "Give the order in which they arrive.",
    "From smallest to largest, what are the roots?",
    "In increasing order, list the primes below 8.",
    "List the roots (largest root to smallest root).",
    "List the roots in the order (smallest first).",
    "Find what is given. List the roots in order.",
    "Find the roots. (List them in increasing order.)",
    "(Read it.) List them in order.",
    "Give the letters in\n  increasing   order.",
    "Write the numbers which divide 6, and list them in increasing order.",
    "Solve for x and list the roots in order.",
)
NOT_ASKED = (
    "Find all solutions of x^2 = 4.",
    "List the roots in order, or in any order.",
    "Find the two primes whose digits stand in increasing order.",
    "List all numbers that stand in order.",
    "Give all numbers for Ann to draw in order that she wins.",
    "Name two groups. Order 2 is excluded.",
    "Find all points. Write them as ordered pairs in the order (x, y).",
    "Find all points. Write them in the order $(x, y)$.",
    "Find all points. Write them in the order \\(x, y\\).",
    "Find all points. Write them as pairs in order x, y.",
    "List the roots in order. The order of the answers is not important.",
    "List the roots in order. Their order isn't important.",
    "List the roots in order. The order doesn’t matter.",
    "List the roots in order. The order makes no difference.",
    "Find all x so the roots are from least to greatest.",
    "List x if the sum is in order.",
    "List the roots in order, but the order of equal ones does not matter.",
    "List the factors in order or regardless of order.",
    "Give your answer as a list in order, in either order.",
    "If a, b and c are in increasing order, find all possible values of a.",
    "If the numbers are listed in increasing order, what are the possible values of x?",
    "The numbers 1, x, y are given in increasing order. Find all possible values of x.",
    "A list of five integers in increasing order has median 4. Find all possible values of x.",
    "Runners are ranked from fastest to slowest: A, B, C. Which two run?",
    "Find all x such that the first three terms of the sequence are integers.",
    "Give all numbers Ann must draw in order to win.",
    "List all three-digit numbers with digits in increasing order.",
    "Find all triples of primes in increasing order with sum 20.",
    "Find the two primes whose digits are in increasing order.",
    "Find all n for which the least to greatest ratio is 2.",
    "Find all ordered pairs.",
    "Find all elements of order 2.",
    "Name the triangle.",
    "In how many ways can she order 7 hats?",
    "",
)


@pytest.mark.parametrize("question", ASKED)
def test_a_question_that_asks_for_an_order(question: str) -> None:
    assert asks_for_order(question) and asks_for_order(f"Here are 3.5 and 2. {question}{BOX}")


@pytest.mark.parametrize("question", NOT_ASKED)
def test_an_order_of_what_is_given_or_none_is_not_asked_for(question: str) -> None:
    assert not asks_for_order(question) and not asks_for_order(question + BOX)
    assert not asks_for_order(None)


def test_the_end_of_a_long_question_is_looked_at_in_little_time() -> None:
    order = "List them in increasing order."
    assert asks_for_order("x. " * MAX_CHARS + order) and not asks_for_order(order + " x" * MAX_CHARS)
    for text in ("list " + "in order " * 900, "list, " * 600 + "in order " * 400, "in order so " * 700):
        with at_most_cpu_s(0.2):
            asks_for_order(text)
    start = time.perf_counter()
    for text in ("list in order that ", "find least ", "\n ", "in order", ", list", "least to "):
        asks_for_order(text * MAX_CHARS)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("answer", "reference", "in_order"),
    [
        ("3, 2, 1", "1, 2, 3", False),
        ("1, 2, 3", "1,2,3", True),
        ("1, 1, 2", "1, 2, 1", False),
        ("1, 2", "1, 2, 3", False),
        ("1, 2, 3, 4", "1, 2, 3", False),
        ("\\{3, 2, 1\\}", "1, 2, 3", False),
        ("\\{\\frac12, 2\\}", "0.5, 2", True),
        ("2 \\text{ or } 1", "1, 2", False),
        ("C, B, A", "A, B, C", False),
        ("(1, 2)", "1, 2", False),
        ("x = 2, x = 1", "x = 1, x = 2", False),
        ("\\text{E, C}", "\\text{C,E}", False),
        ("CBA", "BAC", False),
        ("BAC", "B A C", True),
        ("\\text{bac}", "BAC", True),
    ],
)
def test_lists_and_letters_are_compared_in_the_order_that_is_asked_for(
    answer: str, reference: str, in_order: bool
) -> None:
    assert comparison(answer, reference, "Write them in order from fastest to slowest.")[0] is in_order


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("3, 2, 1", "1, 2, 3"),
        ("\\{2, 1\\}", "1, 2"),
        ("x = 2, x = 1", "1, 2"),
        ("CBA", "BAC"),
        ("2 \\text{ or } 1", "1, 2"),
    ],
)
def test_without_an_order_in_the_question_there_is_none(answer: str, reference: str) -> None:
    for question in (None, "Find all of them.", "Give them in any order."):
        assert comparison(answer, reference, question)[0]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("\\pm 4", "-4, 4"),
        ("-4, 4", "\\pm 4"),
        ("\\{2, 1\\}", "\\{1, 2\\}"),
        ("1 \\text{ or } 2", "2 \\text{ or } 1"),
        ("yx", "xy"),
        ("b + a", "a + b"),
        ("2AB", "2BA"),
        ("x = AB", "BA"),
        ("-4, 0, 4", "0, \\pm 4"),
        ("\\{2, 1\\}, \\{3\\}", "\\{1, 2\\}, \\{3\\}"),
    ],
)
def test_what_has_no_order_keeps_none_where_one_is_asked_for(answer: str, reference: str) -> None:
    assert comparison(answer, reference, "List them from least to greatest.")[0]


def test_one_capital_is_no_word() -> None:
    assert not comparison("a", "A", "Give the letters in order.")[0]


def test_an_order_of_coordinates_is_none_of_the_points() -> None:
    for order in ("(x, y)", "$(x,y)$", "x, y"):
        question = f"Find all intersections. Write your answers as ordered pairs in the order {order}."
        assert comparison("(1,2), (-1,3)", "(-1,3), (1,2)", question)[0]
        assert not comparison("(2,1), (-1,3)", "(-1,3), (1,2)", question)[0]
