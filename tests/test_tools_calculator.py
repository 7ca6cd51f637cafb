"""The calculator at its limits: exactly as long, as deep and as big as is allowed, and one beyond; and its sentences."""

from __future__ import annotations

import re

import pytest

from firsthand.errors import ToolError
from firsthand.tools.calculator import evaluate, show

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
        "10 % -3": "-2.9",
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
        "10 ** 15 + 0.5": "1e+15",
        "-10 ** 15 + 0.5": "-999999999999999.5",
        "-10 ** 15 - 0.5": "-1e+15",
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
        "max(1,000, 2)": "2",
        "max(1,(2,000),3)": "2000",
        "(max(1,000) + 1,000)": "1001",
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
        " = ?": f"the expression is empty: {EXAMPLE}",
    }
    for text, sentence in said.items():
        with pytest.raises(ToolError, match=f"^{re.escape(sentence)}$"):
            show(evaluate(text))
    with pytest.raises(ToolError, match=BIG):
        show(float("inf"))
