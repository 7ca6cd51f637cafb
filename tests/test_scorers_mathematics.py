"""Mathematics by hand: exact values, sets of real numbers, texts made plain, tokens and numbers; and EvalPlus's rules."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

from firsthand.scorers.mathematics.answer_text import plain, spaceless, text_key
from firsthand.scorers.mathematics.high_precision import agree, constant_ratio, exact, has, variables
from firsthand.scorers.mathematics.latex_tokens import NotUnderstoodError, number, tokens, words_alone
from firsthand.scorers.mathematics.real_sets import same_real_set
from firsthand.scorers.programs import oracle


def num(value: Any) -> list[Any]:
    return ["num", str(value)]


X, OO = ["var", "x"], ["const", "oo"]
MINUS_OO = ["*", num(-1), OO]


def test_exact_values_are_fractions_within_their_bounds() -> None:
    for tree, value in (
        (num("0.5"), Fraction(1, 2)),
        (["+", num(1), num("1/3")], Fraction(4, 3)),
        (["-", num(1), num(3)], -2),
        (["*", num(2), num("1/3")], Fraction(2, 3)),
        (["/", num(1), num(3)], Fraction(1, 3)),
        (["/", num(1), num(0)], None),
        (["^", num(2), num(-2)], Fraction(1, 4)),
        (["^", num(0), num(-1)], None),
        (["^", num(0), num(0)], 1),
        (["^", num(4), num("1/2")], None),
        (["^", num(1), num(20_000)], 1),
        (["^", num(1), num(20_001)], None),
        (["^", num(2), num(10_001)], None),
        (["factorial", num(5)], 120),
        (["factorial", num(-1)], None),
        (["factorial", num("1/2")], None),
        (["factorial", num(1001)], None),
        (["binom", num(5), num(2)], 10),
        (["binom", num(5), num(-1)], None),
        (["percent", num(5)], Fraction(1, 20)),
        (["percent", num(0)], 0),
        (["abs", num(-3)], 3),
        (["floor", num("-1/2")], -1),
        (["ceil", num("1/2")], 1),
        (["ceil", num("-1/2")], 0),
        (["sin", num(0)], None),
        (["+", num(1), X], None),
    ):
        assert exact(tree) == value, tree
    assert exact(["factorial", num(1000)]) == math.factorial(1000)
    assert variables(["+", X, ["*", ["var", "y"], num(2)]]) == {"x", "y"} and variables(num(1)) == set()
    assert has(["+", X, OO], "oo") and has(["sin", X], "sin") and not has(["sin", X], "cos", "var2")


def test_expressions_agree_by_value_and_ratios_are_constant() -> None:
    square = ["^", ["+", X, num(1)], num(2)]
    expanded = ["+", ["+", ["^", X, num(2)], ["*", num(2), X]], num(1)]
    assert agree(square, expanded) and not agree(square, ["^", X, num(2)]) and not agree(OO, OO)
    assert not agree(["abs", X], X) and agree(["abs", ["^", X, num(2)]], ["^", X, num(2)])
    assert agree(["root", num(-8), num(3)], num(-2)) and agree(["/", num(1), num(3)], num("1/3"))
    assert not agree(num("0.3333333333"), num("1/3")) and not agree(["/", num(1), num(0)], ["/", num(1), num(0)])
    assert (
        agree(["log", num(100)], num(2))
        and agree(["log", ["const", "e"]], num(1))
        and not agree(["ln", num(100)], num(2))
    )
    twice = ["*", num(-2), square]
    assert constant_ratio(twice, square) and not constant_ratio(twice, square, positive=True)
    assert constant_ratio(["*", num(2), square], square, positive=True) and not constant_ratio(X, square)
    assert not constant_ratio(num(0), X)


def interval(ends: str, low: Any, high: Any) -> list[Any]:
    return ["interval", ends, low, high]


def test_sets_of_real_numbers_are_the_same_by_their_spans_and_ends() -> None:
    one_five = interval("[)", num(1), num(5))
    chain = ["relation", ["<=", "<"], num(1), X, num(5)]
    for left, right, same in (
        (one_five, chain, True),
        (interval("()", num(1), num(5)), chain, False),
        (interval("[]", num(1), num(5)), chain, False),
        (interval("[)", num(1), num(6)), chain, False),
        (["tuple", num(1), num(5)], interval("()", num(1), num(5)), True),
        (["relation", [">"], ["*", num(-2), X], num(6)], interval("()", MINUS_OO, num(-3)), True),
        (["relation", ["<="], ["abs", X], num(3)], interval("[]", num(-3), num(3)), True),
        (["relation", ["<"], ["abs", X], num(3)], interval("()", num(-3), num(3)), True),
        (
            ["relation", ["!="], X, num(2)],
            ["union", interval("()", MINUS_OO, num(2)), interval("()", num(2), OO)],
            True,
        ),
        (["relation", ["<"], X, num(2)], ["relation", ["<"], ["var", "y"], num(2)], False),
        (["relation", ["<"], ["^", X, num(2)], num(4)], interval("()", num(-2), num(2)), False),
        (["reals"], interval("()", MINUS_OO, OO), True),
        (["reals"], ["without", ["reals"], ["set", num(0)]], False),
        (
            ["without", ["reals"], ["set", num(0)]],
            ["union", interval("()", num(0), OO), interval("()", MINUS_OO, num(0))],
            True,
        ),
        (["set", num(2), num(1), num(1)], ["set", num(1), num(2)], True),
        (["set", num(1)], interval("[]", num(1), num(1)), True),
        (["set", num(1)], ["set", num(2)], False),
        (
            ["union", interval("[)", num(0), num(1)), interval("[]", num(1), num(2))],
            interval("[]", num(0), num(2)),
            True,
        ),
        (
            ["union", interval("[)", num(0), num(1)), interval("(]", num(1), num(2))],
            interval("[]", num(0), num(2)),
            False,
        ),
        (
            ["union", interval("[]", num(0), num(5)), interval("()", num(1), num(2))],
            interval("[]", num(0), num(5)),
            True,
        ),
        (["union", ["set", num(5)], interval("()", num(1), num(5))], interval("(]", num(1), num(5)), True),
        (["or", ["relation", ["<"], X, num(1)], ["relation", [">="], X, num(1)]], ["reals"], True),
        (["or", ["relation", ["<"], X, num(1)], ["relation", [">"], ["var", "y"], num(1)]], ["reals"], False),
        (interval("()", num(5), num(1)), interval("()", num(5), num(1)), False),
        (num(1), num(1), False),
        (["without", interval("[]", num(0), num(2)), ["set", num(0), num(2)]], interval("()", num(0), num(2)), True),
        (["relation", ["<", "<"], num(5), X, num(1)], ["set"], False),
    ):
        assert same_real_set(left, right) is same is same_real_set(right, left), (left, right)


def test_answers_are_made_plain_without_what_changes_nothing() -> None:
    for text, found in (
        (r"$\left( \dfrac{1}{2} \right)$", r"( \frac{1}{2} )"),
        (r"\boxed{5}.", "5"),
        ("1,\\!000", "1000"),
        (r"10\,000", "10000"),
        (r"5\%", "5%"),
        (r"\$5", r"\dollar 5"),
        ("√2 × π", r"\sqrt{2} * \pi"),
        ("x² ≤ 3", r"x^{2} \le 3"),
        ("90°", r"90\degree"),
        (r"90^{\circ}", r"90\degree"),
        (r"\mathrm{x}+\text{ cm }", r"x +\text{cm}"),
        (r"\text{5 cm}", "5 cm"),
        ("The final answer is: 7", "7"),
        ("0.333...", "0.333..."),
        (r"\mathbf{v}", "v"),
        (r"a \geqslant b \neq c", r"a \ge b \ne c"),
        (r"\Bigl( 1 \Bigr)", "( 1 )"),
    ):
        assert " ".join(plain(text).split()) == found, text
    assert spaceless("a b + 1 2 ( x )") == "a b+1 2(x)" and text_key(r" \text{The Cat}. ") == "the cat"


def test_words_tokens_and_numbers_are_read_as_they_are_meant() -> None:
    for text, tree in (
        (r"\text{Evelyn}", ["word", "evelyn"]),
        ("no solution", ["set"]),
        ("All real numbers", ["reals"]),
        ("twelve", num(12)),
        ("(C)", ["var", "C"]),
        ("A, B", ["list", ["var", "A"], ["var", "B"]]),
        (r"\text{B}", ["word", "B"]),
        ("infinity", None),
        (r"\text{infinity}", ["const", "oo"]),
        ("xy", None),
        ("yes", ["word", "yes"]),
        ("Tuesday morning", ["word", "tuesday morning"]),
        ("sin cosine", None),
        ("x = 1", None),
        ("", None),
    ):
        assert words_alone(text) == tree, text
    assert [tuple(each) for each in tokens(r"2x +\frac 1.5e3 or \text{cm}")] == [
        ("num", "2", False), ("word", "x", False), ("sym", "+", True), ("cmd", "frac", False), ("num", "1.5e3", True),
        ("sym", "|or|", True), ("text", "cm", True),
    ]  # fmt: skip
    assert [tuple(each) for each in tokens(r"1A_{16} and 101_\text{two}")] == [
        ("based", "1A_16", False), ("sym", "|and|", True), ("based", "101_2", True),
    ]  # fmt: skip
    for text, value in (
        ("5", "5"), ("5.", "5"), (".5", "0.5"), ("1.5e3", "1.5e3"), (r"0.1\overline{6}", "1/6"),
        (r"0.\overline{3}", "1/3"), ("0.333...", "1/3"),
        (r"0.1666\ldots", "1/6"), (r"2.\bar{12}", "70/33"),
    ):  # fmt: skip
        assert number(text) == value and Fraction(number(text)) is not None, text
    for text in ("0.33...", "0.123...", "1e401", r"5\overline{3}"):
        with pytest.raises(NotUnderstoodError):
            number(text)
    assert number("1e400") == "1e400"


def test_outputs_are_right_by_the_rule_of_their_problem() -> None:
    def right(output: Any, expected: Any, rule: str = "equal", atol: float = 0.0, case: Any = ()) -> bool:
        return oracle.right(output, expected, list(case), atol, rule)

    assert right(1, 1) and not right(1, 2) and right([1, 2], [1, 2]) and not right("1", 1)
    assert right(1.0, 1.05, atol=0.1) and not right(1.0, 1.2, atol=0.1) and not right(1, 1.05, atol=0.1)
    assert right([1.0, 2.0], [1.05, 2.0], atol=0.1) and not right([1.0], [1.0, 2.0], atol=0.1)
    assert right([2, 1, 1], [1, 2], "set") and not right([1], [1, 2], "set") and not right(5, [1], "set")
    for output, expected, same in (
        (None, None, 1),
        ("m", "n", 1),
        (None, "n", 0),
        (True, "n", 1),
        (False, None, 1),
        (True, None, 0),
    ):
        assert right(output, expected, "not_none") is bool(same)
    assert (
        right(9, 1, "any")
        and right(0, 7, "zero_or_equal")
        and right(7, 7, "zero_or_equal")
        and not right(1, 7, "zero_or_equal")
    )
    assert right(2.0, 0, "root", 1e-6, [[-4, 0, 1]]) and not right(2.1, 0, "root", 1e-6, [[-4, 0, 1]])
    assert (
        oracle._digits(5, 123) == 1 + 2 + 2
        and right(5, 0, "digits", 0.0, [5, 123])
        and not right(6, 0, "digits", 0.0, [5, 123])
    )
    assert oracle._pyramid(3, 4) == round(9 + 6 * math.sqrt(2.25 + 16)) and right(35, 0, "pyramid", 0.0, [3, 4])
    assert (
        oracle.close(100.0, 100.00001, 0.0)
        and not oracle.close(100.0, 100.0001, 0.0)
        and oracle.close((1.0,), [1.0], 0)
    )
    assert [oracle.floats(each) for each in (1.0, 1, [1.0, 2.0], [1.0, 2], [], ())] == [
        True,
        False,
        True,
        False,
        False,
        False,
    ]
    assert oracle._short("x" * 118) == repr("x" * 118) and oracle._short("x" * 119) == f"'{'x' * 116}..."
    assert oracle._short(10**100) == "a number of more than 100 digits" and oracle._short(10**100 - 1) == "9" * 100
