"""An equation states its right side where its left side is one name, or what the question asks for; units as asked for."""

import pytest

from firsthand.patterns.parts.equations import MAX_LEFT_CHARS, asks_for_left_side, right_side
from firsthand.scorers.mathematics.quantities import may_be_added
from firsthand.scorers.symbolic import boxed, comparison
from firsthand.task import Task
from firsthand.trace import Trace

LEFT_OPEN = (
    "2x=5", "x-3=5", "x+1=5", "3x+1=5", "x^2=5", r"\frac{x}{2}=5", "-x=5", r"\frac1x=5", r"\sin x=5", r"\sqrt{x}=5",
    "x/2=5", "xy=5", "2ab=5", "x+y=5", "n!=5", "|x|=5", "2A=5", "AB^2=5", r"\log x=5", "(2x,y)=5", "5=2x", "2x=10=5",
)  # fmt: skip
NAMED = (
    "x=5", "5=x", "AB=5", "f(3)=5", "f(x)=5", "P(A)=5", "x_1=5", "a_{10}=5", r"\angle A=5", r"m\angle ABC=5", "|AB|=5",
    r"\overline{AB}=5", "[ABC]=5", r"\text{Area}=5", r"\text{Area of }ABC=5", r"\theta=5", "S_n=5", "f^{-1}(x)=5",
    r"\frac{dy}{dx}=5", r"T_{\max}=5", "E=5", "3+2=5", r"\log_2 32=5", "x=3+2=5", "g(f(2))=5",
)  # fmt: skip


@pytest.mark.parametrize("answer", LEFT_OPEN)
def test_an_equation_of_an_expression_does_not_state_its_right_side(answer):
    assert not comparison(answer, "5", "Find the value.")[0]


@pytest.mark.parametrize("answer", NAMED)
def test_an_equation_of_a_name_states_its_right_side(answer):
    assert comparison(answer, "5", "Find the value.")[0]


def test_an_equation_of_what_is_asked_for_states_it():
    for answer, question in (
        ("a+b=5", "Let a and b be integers. What is $a + b$?"),
        ("a + b = 5", "Find a+b."),
        (r"\frac{a}{b}=5", r"Compute $\dfrac{a}{b}$."),
        (r"\sin A=5", r"what is $\sin A$ in simplest form?"),
        ("x^2+y^2=5", "Evaluate $x^2 + y^2$"),
        ("2x=5", "x - 1 = 3/2; find $2x$"),
        (r"\left(x+y\right)=5", "find (x+y)"),
        ("n!=5", "What is n! here"),
    ):
        assert comparison(answer, "5", question)[0], (answer, question)
    for answer, question in (
        ("2x=5", "Solve $2x = 10$."), ("x-3=5", "If $x-3=2$, what is x?"), ("a+b=5", "Find $a+b+c$."),
        ("a+b=5", "Find $3a+b$."), ("x=5", ""), ("2x=5", "What is 12x?"),
    ):  # fmt: skip
        assert not asks_for_left_side(answer, question), (answer, question)
    assert not asks_for_left_side("a+b=5", None)
    assert asks_for_left_side("x" * 199 + "y=5", "find " + "x" * 199 + "y")
    assert not asks_for_left_side("x" * MAX_LEFT_CHARS + "y=5", "find " + "x" * MAX_LEFT_CHARS + "y")


def test_a_task_says_what_is_asked_for():
    def right(answer: str, prompt: str) -> bool:
        trace = Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=(), answer=rf"\boxed{{{answer}}}")
        return boxed(Task("1", prompt, secret={"answer": "9"}), trace).value == 1.0

    assert right("a + b = 9", "What is $a+b$?") and not right("2x = 9", "Solve $2x=9$.")


def test_a_rate_an_area_or_a_volume_is_added_only_where_it_is_asked_for():
    for unit, question, added in (
        ("per hour", "How far?", False), ("per hour", "How many does he read per hour?", True),
        ("per item", "How much in total?", False), ("dollars per item", "What is the price of an item?", True),
        ("in each", "How many in total?", False), ("in each box", "How many are in each box?", True),
        ("pairs", "How many socks?", False), ("pairs", "How many pairs of socks?", True),
        ("square feet", "How many feet is the perimeter?", False), ("square feet", "What is the area?", True),
        ("ft^2", "What is the perimeter in feet?", False), ("cubic m", "How long?", False),
        ("cubic m", "What is the volume?", True), ("square units", "?", True), ("miles per hour", "How fast?", True),
        ("m/s", "He runs 10 m in 2 s. What is v?", True), ("digits", "What is n?", False), ("ways", "?", True),
    ):  # fmt: skip
        assert may_be_added(unit, question) is added, (unit, question)


def test_a_greek_name_and_the_value_of_a_name_state_their_right_side():
    assert right_side(r"\theta = 5") == " 5" and right_side("the value of n = 5") == " 5"
    assert right_side(r"\sin\theta = 5") is None and right_side("the value of 2n = 5") is None


def test_without_a_question_a_sum_of_names_may_be_asked_for_and_nothing_else():
    assert comparison("x+y=5", "5")[0] and comparison("x+y=5", "5", "Solve.") == (False, "tree")
    for answer in (r"\sqrt{x}=5", r"\sin x=5", "2x+y=5", "x+y+1=5"):
        assert not comparison(answer, "5")[0], answer


def test_the_first_of_several_left_sides_and_all_its_letters_are_looked_at():
    assert right_side("x = 2y = 4") == " 4" and right_side("2x = x = 5") is None
    assert right_side("5 m + 3 m = 8 m") == " 8 m" and right_side("5 m + x = 8 m") is None
    assert right_side("twice the sum = 8", "What is twice the sum?") == " 8" and right_side("twice the sum = 8") is None
