"""The calculator at its limits: exactly as long, as deep and as big as is allowed, and one beyond; and its sentences."""

from __future__ import annotations

import asyncio
import math
import re
from fractions import Fraction

import pytest

from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.tools.calculator import MAX_BITS, calculator, evaluate, show

EXAMPLE = "write numbers with + - * / ** and parentheses, such as (12 + 3) * 4"
BIG = "the numbers are too big: results may have at most 200 digits"


def test_expressions_give_the_value_that_is_shown() -> None:
    shown = {
        "1" + " " * 499: "1",
        "(" * 39 + "7" + ")" * 39: "7",
        "**".join(["1"] * 40): "1",
        "+".join(["(1)"] * 60): "60",
        "*".join(["2**1"] * 60): str(2**60),
        # numbers
        "0" * 199 + "1": "1",
        "0e200": "0",
        "0e-0200": "0",
        "1e-200": "1e-200",
        "1E2 + .5e1": "105",
        "5.": "5",
        "1,234,567.5": "1234567.5",
        "max((1,234), 5)": "1234",
        "max(1,2) + 1,234": "1236",
        "max(1,2,(3))": "3",
        "max((1),2,345)": "345",
        "$1,000 + 12,345": "13345",
        # spellings
        "SQRT(4) X 3": "6",
        "50% OF 8": "4",
        "[1+2]·3 – 4": "5",
        "12 +\n3 = ?": "15",
        " \n 2 + 2 =": "4",
        "2 + 2 ? = ": "4",
        "(1,234 + 1) * 2": "2470",
        "((1,234)) + max(1,(2,345))": "3579",
        "1" * 199 + "+" + "0" * 199 + "+" + "0" * 100: "1" * 199,
        # signs of percent
        "5%%": "0.0005",
        "10%(4)": "2",
        "10% sqrt(9)": "1",
        "10% -3": "-2.9",
        "10 % - 3": "-2.9",
        "10%-3": "-2.9",
        "10 %-3": "-2.9",
        "8 % -3": "-1",
        "-8 %  +3": "1",
        "8 % -sqrt(9)": "-1",
        "8 % -(3)": "-1",
        "8 % -.3": "-0.1",
        "2 * 8 % -3 * 2": "-4",
        "50 % * 4": "2",
        "+-+-3": "3",
        "--2 ** 2": "4",
        # exact and inexact
        "sqrt(2) - 1": "0.414213562373",
        "1 - sqrt(2)": "-0.414213562373",
        "7 // sqrt(4.5)": "3",
        "7 % sqrt(9.61)": "0.8",
        "3 of sqrt(2)": "4.24264068712",
        "2 / sqrt(2)": "1.41421356237",
        "sqrt(2/9)": "0.471404520791",
        "sqrt(1/4)": "0.5",
        "sqrt(0)": "0",
        "log(8, 2)": "3",
        "log(2, 8)": "0.333333333333",
        "log(e ** 2)": "2",
        "exp(1) - e": "0",
        "4 ** 0.5": "2",
        "2 ** 0.5": "1.41421356237",
        "(1/3) ** -2": "9",
        "(-1) ** 3": "-1",
        "(-1) ** -3": "-1",
        "(-1) ** (10 ** 30)": "1",
        "(-2) ** 3": "-8",
        "0 ** 5": "0",
        "0 ** 0": "1",
        "2 ** 664": str(2**664),
        "2 ** -1330": "0",
        "2 ** 664 / 3 * 7": f"{float(2**664) / 3 * 7:.12g}",
        # how numbers are written
        "10 ** 14 * exp(0)": "1" + "0" * 14,
        "10 ** 15 * exp(0)": "1e+15",
        "-10 ** 14 * exp(0)": "-1" + "0" * 14,
        "-10 ** 15 * exp(0)": "-1e+15",
        "-exp(50)": "-5.18470552859e+21",
        "-exp(0) / 8": "-0.125",
        "10 ** 15 - 0.5": "999999999999999.5",
        "10 ** 15 + 0.5": "1000000000000000.5",
        "1234567890123456.5": "1234567890123456.5",
        "12345678901234567.89 + 0.01": "12345678901234567.9",
        "10 ** 180 - 10 ** -12": "9" * 180 + "." + "9" * 12,
        "-10 ** 15 + 0.5": "-999999999999999.5",
        "-10 ** 15 - 0.5": "-1000000000000000.5",
        "-10 ** 15": "-1" + "0" * 15,
        "-1 / 10 ** 12": "-0.000000000001",
        "-1 / 3": "-0.333333333333",
        "1 / 10 ** 12": "0.000000000001",
        "1 / 10 ** 13": "1e-13",
        "-12.050": "-12.05",
        "1 / 8": "0.125",
        "2 / 3": "0.666666666667",
        # functions
        "round(5, -100)": "0",
        "round(5, 100)": "5",
        "round(15, -1)": "20",
        "round(2.345, 2)": "2.34",
        "round(-0.5)": "0",
        f"min({','.join(map(str, range(3, 103)))})": "3",
        f"max({','.join(map(str, range(3, 103)))})": "102",
        "abs(-7/2)": "3.5",
        "floor(2.5) + ceil(2.5)": "5",
        "floor(sqrt(8)) + ceil(sqrt(8))": "5",
        # a comma groups thousands, but parts what a function is given
        "round((1,000 + 2) / 3, 1)": "334",
        "max((1,000), 2)": "1000",
        "max(1, 200, 1, 500)": "500",
        "max(1,200,1,500)": "500",
        "max(100,200)": "200",
        "max(1,200) + 1,000": "1200",
        "max(1,(2,000),3)": "2000",
        "(min(3,(1,000)) + 1,000)": "1003",
        "max(2,3) + 1,000": "1003",
        "2 x (1,000)": "2000",
        "(2,000) - (1,000)": "1000",
        # powers at their limit
        "(1/4) ** 300 * 4 ** 300": "1",
        "(3/7) ** 2 * (7/3) ** 2": "1",
        "(1/4) ** 665": "0",
        "(-1/4) ** 665": "0",
    }
    assert {text: show(evaluate(text)) for text in shown} == shown


def test_what_has_no_value_is_told_in_a_sentence() -> None:
    deep = "the expression is nested more than 40 deep: give it one step at a time"
    names = "sqrt, abs, round, min, max, floor, ceil, log, exp, pi, e"

    def either(number: str, name: str) -> str:
        return (
            f"{number} in {name}(...) may be one number or several: write one without commas, and several with a blank "
            "after each comma"
        )

    said = {
        "1" + " " * 500: "the expression has 501 characters: give at most 500, one step at a time",
        "(" * 40 + "7" + ")" * 40: deep,
        "**".join(["1"] * 41): deep,
        "0" * 200 + "1": BIG,
        "0e201": BIG,
        "0e-201": BIG,
        "0e000000": BIG,
        "2 ** 665": BIG,
        "2 ** -1331": BIG,
        "(1/4) ** 666": BIG,
        "(-1/4) ** 666": BIG,
        "(1/4) ** -666": BIG,
        "(3/4) ** 666": BIG,
        "(1/1000003)^100": BIG,
        "(1/1000003)^100000": BIG,
        "2 ** 664 / 3 * 16": BIG,
        "exp(710)": BIG,
        "exp(700) * exp(700)": BIG,
        "1 / 0": "this divides by zero: check the expression",
        "0 ** -1": "this divides by zero: check the expression",
        "5 % 0": "this divides by zero: check the expression",
        "sqrt(-1)": "this has no real value (the square root of a negative number): check the expression",
        "(-8) ** 0.5": "this has no real value (a root of a negative number): check the expression",
        "round(5, 101)": "round was asked for 101 digits: give a whole number from -100 to 100",
        "round(5, -101)": "round was asked for -101 digits: give a whole number from -100 to 100",
        "round(5, 0.5)": "round was asked for 0.5 digits: give a whole number from -100 to 100",
        "sqrt(1, 2)": "sqrt was given 2 numbers: it takes 1",
        "round(1, 2, 3)": "round was given 3 numbers: it takes 1 or more",
        f"min({','.join(['1'] * 101)})": "min was given 101 numbers: it takes 1 or more",
        "2 +": f"a number was expected, but the end came: {EXAMPLE}",
        "* 2": f"a number was expected, but '*' came: {EXAMPLE}",
        "1 2": f"an operator was expected, but '2' came: {EXAMPLE}",
        "1,2345": f"an operator was expected, but ',' came: {EXAMPLE}",
        "sqrt 4": f"( after sqrt was expected, but '4' came: {EXAMPLE}",
        "(1": f") was expected, but the end came: {EXAMPLE}",
        "max(1 2)": f") was expected, but '2' came: {EXAMPLE}",
        "2 & 3": f"'&' means nothing here: {EXAMPLE}",
        f"{'Ab' * 20}c(1)": f"'{'ab' * 20}' is unknown here: {EXAMPLE}; or use {names}",
        "Foo(1)": f"'foo' is unknown here: {EXAMPLE}; or use {names}",
        "max(1,200, 1,500)": either("1,200", "max"),
        "max(7, 1,500)": either("1,500", "max"),
        "max(1,500 ,7)": either("1,500", "max"),
        "min(2,000, 3)": either("2,000", "min"),
        "max(1,000,000)": either("1,000,000", "max"),
        "ROUND(1,050)": either("1,050", "round"),
        "log(1,024)": either("1,024", "log"),
        "sqrt((1) + 12,000.5)": either("12,000.5", "sqrt"),
        " = ?": f"the expression is empty: {EXAMPLE}",
    }
    for text, sentence in said.items():
        with pytest.raises(ToolError, match=f"^{re.escape(sentence)}$"):
            show(evaluate(text))
    with pytest.raises(ToolError, match=BIG):
        show(float("inf"))


def test_the_tool_shows_what_a_model_can_read_and_tells_it_what_is_wrong() -> None:
    assert (calculator.name, calculator.effect, calculator.timeout_s) == ("calculator", "read", 5.0)
    assert calculator.declares == Declaration(clean=True)
    assert calculator.spec.description == "The value of an arithmetic expression."
    assert list(calculator.spec.parameters["properties"]) == calculator.spec.parameters["required"] == ["expression"]
    shown = {
        "1/3": "0.333333333333", "-7/2": "-3.5", "6/3": "2", "1e3": "1000", "pi": "3.14159265359", "exp(0)": "1",
        "1/(3*10**20)": "3.33333333333e-21", "0 * -1": "0", "-0": "0",
    }  # fmt: skip
    assert {text: asyncio.run(calculator({"expression": text})) for text in shown} == shown
    for text, said in (("1/0", "this divides by zero: check the expression"), ("exp(800)", BIG)):
        with pytest.raises(ToolError) as told:
            asyncio.run(calculator({"expression": text}))
        assert str(told.value) == said


def test_values_are_exact_fractions_up_to_their_bits_and_floats_beyond() -> None:
    exact = {
        "3 ** -419": Fraction(1, 3**419),  # the denominator has 665 bits, and 666 with one more factor
        "(1/3) * (1/3) ** 418": Fraction(1, 3**419),
        "-3 ** -419": Fraction(-1, 3**419),
        "2 ** -664": Fraction(1, 2**664),
        "0.1 ** 200": Fraction(1, 10**200),
        "(2 ** 664 + 1) / 3": Fraction(2**664 + 1, 3),
        "2 ** 664 + (2 ** 664 - 1)": Fraction(2**665 - 1),
        "-2 ** 664 - (2 ** 664 - 1)": Fraction(1 - 2**665),
        "0.1 + 0.2": Fraction(3, 10),
        "10 // 3": Fraction(3),
        "7 of 3": Fraction(21),
        "7 // sqrt(2)": Fraction(4),
        "-7 // sqrt(2)": Fraction(-5),
        "round(pi, 2)": Fraction(157, 50),
        "round(-pi)": Fraction(-3),
        "round(5, exp(0))": Fraction(5),
        "floor(-pi)": Fraction(-4),
        "ceil(-pi)": Fraction(-3),
        "min(pi, 3)": Fraction(3),
        "(-1) ** (-1 - 10 ** 30)": Fraction(-1),
        "0 ** (10 ** 30)": Fraction(0),
    }
    assert 3**419 < 2**MAX_BITS < 3**420
    floats = {
        "3 ** -420": 3.0**-420, "(1/3) * (1/3) ** 419": 3.0**-420, "-3 ** -420": -(3.0**-420), "2 ** -665": 2.0**-665,
        "4 ** -665": 0.0, "0.1 ** 201": 1e-201, "1e-200 * 1e-200": 0.0, "1e-200 / 1e200": 0.0,
        "2 ** 664 / 3 * 4": float(Fraction(2**666, 3)), "-2 ** 664 / 3 * 4": -float(Fraction(2**666, 3)),
        "PI": math.pi, "E": math.e, "abs(-pi)": math.pi, "max(pi, 3)": math.pi, "sqrt(pi)": math.sqrt(math.pi),
        "sqrt(4 * exp(0))": 2.0, "8 ** (1/3)": 2.0, "2 ** (-1/2)": 2**-0.5, "sqrt(2) ** 2000": math.sqrt(2) ** 2000,
        "exp(709)": math.exp(709), "-exp(709)": -math.exp(709), "exp(-800)": 0.0, "10 % pi": 10 % math.pi, "0 * pi": 0.0,
    }  # fmt: skip
    for expected in (exact, floats):
        found = {text: evaluate(text) for text in expected}
        assert found == expected
    assert {type(evaluate(text)) for text in exact} == {Fraction} and {type(evaluate(text)) for text in floats} == {
        float
    }


@pytest.mark.parametrize(
    "text",
    [
        "1 / (exp(700) * exp(700))", "min(1, exp(700) * exp(700))", "max(1, -exp(700) * exp(700))", "2 ** 664 + 2 ** 664",
        "1 / (exp(700) / exp(-700))", "1 / (exp(709) * e)", "1 / sqrt(2) ** 3000", "(2 ** 664 + 1) * 2 // 3", "1e200 * 4.7",
        "-1e200 * 4.7", "3 ** 700", "4 ** -666", "10 ** 10 ** 10", "1 / (exp(709.5) + exp(709.5))",
        "1 / (-exp(709.5) - exp(709.5))", "1e000001", "1e-201", "1e99999", "1e100000",
    ],
)  # fmt: skip
def test_a_step_that_is_too_big_is_told_though_the_end_would_be_small(text: str) -> None:
    with pytest.raises(ToolError) as told:
        evaluate(text)
    assert str(told.value) == BIG


def test_signs_of_print_and_words_of_speech_are_read_and_code_is_not() -> None:
    shown = {
        "2 × 3 ÷ 4 − 1": "0.5", "2 – 1 · 2": "0", "[[1]]": "1", "$5\n+\n$6": "11", "\t7\t": "7", "10%×2": "0.2",
        "10% x 3": "0.3", "10%%3": "0.1", "(10%)": "0.1", "10% of 5": "0.5", "max(10%, 5)": "5", "10% ** 2": "0.01",
        "10% - 3": "-2.9", "10% // 3": "0", "1e+5": "100000", "1e00005": "100000", "1.e2": "100", "0.1e-3": "0.0001",
        "٣ + 1": "4", "5,000.25 + 1,000": "6000.25", "log(2, 4) + LOG(1)": "0.5", "1 + 2 =?": "3",
    }  # fmt: skip
    assert {text: show(evaluate(text)) for text in shown} == shown
    names = "sqrt, abs, round, min, max, floor, ceil, log, exp, pi, e"
    operator, number = (f"{wanted} was expected, but " for wanted in ("an operator", "a number"))
    said = {
        "2 pi": f"{operator}'pi' came: {EXAMPLE}", "2(3)": f"{operator}'(' came: {EXAMPLE}",
        "(1)(2)": f"{operator}'(' came: {EXAMPLE}", "1)": f"{operator}')' came: {EXAMPLE}",
        "2ex": f"{operator}'ex' came: {EXAMPLE}", "0x10": f"{operator}'x10' came: {EXAMPLE}",
        "1_000": f"{operator}'_000' came: {EXAMPLE}", "1..2": f"{operator}'.2' came: {EXAMPLE}",
        "1, 2": f"{operator}',' came: {EXAMPLE}", "floor()": f"{number}')' came: {EXAMPLE}",
        "min(1,,2)": f"{number}',' came: {EXAMPLE}", "3 x": f"{number}the end came: {EXAMPLE}",
        "of": f"{number}'of' came: {EXAMPLE}", "-": f"{number}the end came: {EXAMPLE}",
        "10 **": f"{number}the end came: {EXAMPLE}", "pi(2)": f"{operator}'(' came: {EXAMPLE}",
        ".": f"'.' means nothing here: {EXAMPLE}", "½": f"'½' means nothing here: {EXAMPLE}",
        "1;2": f"';' means nothing here: {EXAMPLE}", "": f"the expression is empty: {EXAMPLE}",
        "a_b1(2)": f"'a_b1' is unknown here: {EXAMPLE}; or use {names}",
        "2 * y": f"'y' is unknown here: {EXAMPLE}; or use {names}",
        "log(2,3,4)": "log was given 3 numbers: it takes 1 or more", "abs(1,2)": "abs was given 2 numbers: it takes 1",
        "ceil(1,2)": "ceil was given 2 numbers: it takes 1", "floor(1,2)": "floor was given 2 numbers: it takes 1",
        "exp(1,2)": "exp was given 2 numbers: it takes 1",
        f"max({','.join(['1'] * 101)})": "max was given 101 numbers: it takes 1 or more",
        "log(8, 1)": "this divides by zero: check the expression", "0 ** -pi": "this divides by zero: check the expression",
        "7 // 0": "this divides by zero: check the expression", "pi % 0": "this divides by zero: check the expression",
        "pi / (1 - 1)": "this divides by zero: check the expression",
        "sqrt(-pi)": "this has no real value (the square root of a negative number): check the expression",
        "(-1) ** pi": "this has no real value (a root of a negative number): check the expression",
        "round(5, e)": "round was asked for 2.71828 digits: give a whole number from -100 to 100",
    }  # fmt: skip
    for text, sentence in said.items():
        with pytest.raises(ToolError) as told:
            evaluate(text)
        assert str(told.value) == sentence, text
    for text in ("log(0)", "log(-1)", "log(2, 0)"):
        with pytest.raises(ToolError, match=r"^this has no real value \(.+\): check the expression$"):
            evaluate(text)
    with pytest.raises(ToolError, match=f"^{BIG}$"):
        show(-math.inf)
    with pytest.raises(ToolError, match=f"^{BIG}$"):
        show(math.nan)
