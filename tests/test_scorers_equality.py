"""When two answers are one: trees of numbers, units, collections, equations, inequalities and words, and how it was told."""

from __future__ import annotations

from typing import Any

from firsthand.scorers.mathematics.answer_text import plain
from firsthand.scorers.mathematics.equality import same_trees
from firsthand.scorers.mathematics.latex import parse
from firsthand.scorers.symbolic import comparison, same_answer


def num(value: Any) -> list[Any]:
    return ["num", str(value)]


X, Y = ["var", "x"], ["var", "y"]


def equals(left: Any, right: Any) -> list[Any]:
    return ["relation", ["="], left, right]


def test_values_are_the_same_exactly_or_at_points() -> None:
    for left, right, same, by in (
        (num("1/2"), num("0.5"), True, "numbers"),
        (num("1/3"), num("0.333"), False, "numbers"),
        (num(2), num(2), True, "tree"),
        (["+", X, num(1)], ["+", num(1), X], True, "points"),
        (["+", X, num(1)], ["+", num(2), X], False, "points"),
        (["^", num(2), num("1/2")], ["root", num(2), num(2)], True, "points"),
    ):
        assert same_trees(left, right) == (same, by), (left, right)
        assert same_trees(right, left) == (same, by)


def quantity(value: Any, unit: str) -> list[Any]:
    return ["quantity", num(value), unit]


def test_a_unit_may_be_missing_and_two_are_converted() -> None:
    for left, right, same in (
        (quantity(100, "cm"), quantity(1, "m"), True),
        (quantity(100, "cm"), quantity(100, "m"), False),
        (quantity(1, "cm"), quantity(1, "s"), False),
        (quantity(1, "cm"), quantity(1, "cm^2"), False),
        (quantity(5, "cm"), num(5), True),
        (quantity(5, "cm"), num(6), False),
        (quantity(5, "units"), quantity(5, "cm"), True),
        (quantity(5, "cm"), ["tuple", num(5), num(5)], False),
        (quantity(50, "cm"), ["percent", num(50)], False),
        (["percent", num(50)], num(50), True),
        (["percent", num(50)], num("0.5"), True),
        (["percent", num("0.5")], num("0.5"), False),
        (["percent", num(1)], num(1), True),
        (["percent", num(0)], num(0), True),
        (["percent", num(-5)], num(-5), True),
        (["percent", num(50)], ["percent", num("100/2")], True),
        (["percent", num(50)], ["percent", num(5)], False),
        (["deg", num(90)], num(90), True),
        (["deg", num(90)], num(91), False),
        (["deg", num(90)], ["percent", num(90)], False),
    ):
        assert same_trees(left, right)[0] is same is same_trees(right, left)[0], (left, right)


def test_collections_have_an_order_a_count_or_neither() -> None:
    one, two, three = num(1), num(2), num(3)
    row = ["row", one, two]
    for left, right, same in (
        (["tuple", one, two], ["tuple", num("1.0"), two], True),
        (["tuple", one, two], ["tuple", two, one], False),
        (["tuple", one, two], ["tuple", one, two, three], False),
        (["list", one, two], ["list", two, one], True),
        (["list", one, one, two], ["list", one, two, two], False),
        (["list", one, two], ["list", one, two, three], False),
        (["set", one, one, two], ["set", two, one], True),
        (["set", one, two], ["set", one, three], False),
        (["set", one, two], ["list", two, one], True),
        (["set", one, one, two], ["list", two, one], False),
        (["or", one, two], ["list", one, two], True),
        (["ratio", two, num(4)], ["ratio", one, two], True),
        (["ratio", one, two], ["ratio", two, one], False),
        (["ratio", one, two, three], ["ratio", two, num(4), num(6)], True),
        (["ratio", one, two, three], ["ratio", two, num(4), num(5)], False),
        (["matrix", row, row], ["matrix", ["row", num("1.0"), two], row], True),
        (["matrix", row, row], ["matrix", row, ["row", two, one]], False),
        (["matrix", row], ["matrix", ["row", one]], False),
        (["matrix", row], ["det", row], False),
        (["interval", "[)", one, two], ["interval", "[)", num("1.0"), two], True),
        (["interval", "[)", one, two], ["interval", "()", one, two], False),
        (["tuple", one, two], one, False),
    ):
        assert same_trees(left, right)[0] is same is same_trees(right, left)[0], (left, right)


def test_equations_are_the_same_as_their_value_or_a_multiple() -> None:
    for left, right, same in (
        (equals(X, num(5)), num(5), True),
        (equals(X, num(5)), num(6), False),
        (equals(X, num(5)), equals(X, num("5.0")), True),
        (equals(X, num(5)), equals(Y, num(5)), False),
        (equals(["*", num(2), X], num(4)), equals(X, num(2)), True),
        (equals(["*", num(2), X], num(5)), equals(X, num(2)), False),
        (equals(["+", X, Y], num(1)), equals(Y, ["-", num(1), X]), True),
        (equals(num(5), X), num(5), True),
        (equals(["+", num(2), num(3)], num(5)), num(5), True),
        (equals(["+", num(2), num(2)], num(5)), num(5), False),
        (equals(["word", "area"], num(5)), num(5), True),
        (["relation", ["<"], X, num(2)], ["relation", [">"], num(2), X], True),
        (["relation", ["<"], X, num(2)], ["relation", ["<="], X, num(2)], False),
        (["relation", [">"], ["+", X, Y], num(0)], ["relation", ["<"], num(0), ["*", num(2), ["+", X, Y]]], True),
        (["relation", [">"], ["+", X, Y], num(0)], ["relation", [">"], num(0), ["+", X, Y]], False),
        (["relation", ["!="], ["+", X, Y], num(0)], ["relation", ["!="], num(0), ["+", X, Y]], True),
        (["relation", [">"], ["+", X, Y], num(0)], ["relation", [">="], ["+", X, Y], num(0)], False),
    ):
        assert same_trees(left, right)[0] is same is same_trees(right, left)[0], (left, right)


def test_both_signs_are_two_values_and_letters_spell_a_word() -> None:
    both = ["pm", num(1), num(2)]
    assert same_trees(both, ["list", num(-1), num(3)])[0] and not same_trees(both, num(3))[0]
    assert same_trees(equals(X, both), ["list", equals(X, num(3)), equals(X, num(-1))])[0]
    two = ["+", ["pm", num(0), num(1)], ["pm", num(0), num(10)]]
    assert same_trees(two, ["list", num(11), num(9), num(-9), num(-11)])[0]
    together = ["+", ["pm", num(0), num(1)], ["mp", num(0), num(10)]]
    assert same_trees(together, ["list", num(-9), num(9)])[0]
    many = num(0)
    for _ in range(5):
        many = ["pm", many, num(1)]
    assert same_trees(many, num(0)) == (False, "unread")
    letters = ["*", ["*", ["var", "A"], ["var", "C"]], ["var", "F"]]
    assert same_trees(["word", "acf"], letters)[0] and not same_trees(["word", "acg"], letters)[0]
    assert not same_trees(["word", "a"], num(1))[0] and same_trees(["word", "yes"], ["word", "yes"]) == (True, "tree")


def test_answers_in_latex_are_compared_with_their_method() -> None:
    for answer, reference, expected in (
        (r"\frac{1}{2}", "0.5", (True, "numbers")),
        ("(1, 2)", "(1,2)", (True, "text")),
        (r"\left(1,2\right)", "(1, 2.0)", (True, "numbers")),
        ("x+1", "1+x", (True, "points")),
        ("x + 1", "x+1", (True, "text")),
        (r"\text{Yes}", "yes", (True, "tree")),
        ("5", "", (False, "unread")),
        (r"\begin{", "5", (False, "unread")),
    ):
        assert comparison(answer, reference) == expected, (answer, reference)
    equal = (
        (r"3\sqrt{2}", r"\sqrt{18}"), ("10^3", "1000"), ("x=2, 3", r"\{2,3\}"), (r"2\pi", r"\pi \cdot 2"), ("50\\%", "0.5"),
        (r"\sin^2 x + \cos^2 x", "1"), ("5!", "120"), (r"\binom{4}{2}", "6"), ("1{,}000", "1000"), (r"-\frac12", "-0.5"),
        ("2^{-1}", "1/2"), (r"\log_2 8", "3"), ("|{-3}|", "3"), (r"\sqrt[3]{27}", "3"),
        (r"\{x=1\}", "1"), (r"\{x=1, x=2\}", r"\{x=2, x=1\}"),
        (r"(xy)^{-1/2}", r"x^{-1/2}y^{-1/2}"), (r"\sqrt{xy}", r"\sqrt{x}\sqrt{y}"),
        (r"\lceil\sqrt{4}\rceil", "2"), (r"\lfloor\sqrt{4}\rfloor", "2"),
    )  # fmt: skip
    for answer, reference in equal:
        assert same_answer(answer, reference) and same_answer(reference, answer), (answer, reference)
    other = (
        ("1/3", "0.33"),
        ("x", "y"),
        ("(1,2)", "(2,1)"),
        (r"\sqrt{2}", "1.414"),
        ("2x", "x^2"),
        ("-1", "1"),
        ("12", "1 2"),
        (r"\{x=1, x=2\}", "1"),
        (r"\{x=1, x=2\}", "2"),
        (r"\{x=1, x=2\}", r"\{x=1\}"),
        (r"\sqrt{x^2}", "x"),
    )
    for answer, reference in other:
        assert not same_answer(answer, reference), (answer, reference)


def test_very_deep_answers_are_not_compared() -> None:
    factorials = parse("x" + "!" * 499)
    added: list[Any] = X
    for _ in range(3_000):
        added = ["+", added, num(1)]
    for deep in (factorials, added):
        assert deep is not None
        for other in (num(5), ["var", "y"], ["list", num(1), num(2)], equals(Y, num(1))):
            assert same_trees(deep, other) == (False, "unread") == same_trees(other, deep)
    assert comparison("x" + "!" * 499, "5") == (False, "unread") == comparison("5", "x" + "!" * 499)
    assert comparison("3" + "!" * 3, "((3!)!)!")[0] is True


def test_inverse_functions_and_names_of_points_have_values() -> None:
    for name in ("f", "g", "h"):
        inverse = rf"{name}^{{-1}}(x) = \frac{{x-1}}{{2}}"
        assert comparison(inverse, r"\frac{x-1}{2}") == (True, "tree")
        assert comparison(inverse, r"y = \frac{x-1}{2}")[0] and comparison(rf"{name}^{{-1}}(3) = 7", "7")[0]
        assert comparison(rf"{name}^{{-1}}(x) = 3", "3") == (True, "tree")
        assert not comparison(rf"{name}^{{-2}}(x) = \frac{{x-1}}{{2}}", r"\frac{x-1}{2}")[0]
    for name in ("k", "F", "x", "i"):
        assert not comparison(rf"{name}^{{-1}}(x) = \frac{{x-1}}{{2}}", r"\frac{x-1}{2}")[0], name


def test_roots_powers_and_signs_in_unicode_are_read_as_in_latex() -> None:
    for text, found in (
        ("√16", r"\sqrt{16}"),
        ("√2.25x", r"\sqrt{2.25}x"),
        ("√16.", r"\sqrt{16}"),
        ("3√ 9", r"3\sqrt{9}"),
        ("√xy", r"\sqrt{x}y"),
        ("√(2+x)", r"\sqrt (2+x)"),
        ("√√16", r"\sqrt \sqrt{16}"),
        ("√10 + √100", r"\sqrt{10} + \sqrt{100}"),
        ("x⁻¹⁰ + 2ⁿ⁺¹", "x^{-10} + 2^{n+1}"),
        ("2⁰³⁴⁵⁶⁷⁸⁹", "2^{03456789}"),
        ("3½ ¼ 2 ⅔", "3 1/2 1/4 2 2/3"),
        ("0.333…", "0.333..."),
        ("１２", "12"),
        ("µ", r"\mu"),
        ("ℝ∖{0}", r"\mathbb{R}\setminus {0}"),
        ("“5”", "5"),
        ("−1–2—3×4·5⋅6∙7÷8⁄9", "-1-2-3*4*5*6*7/8/9"),
        ("a≤b≥c≠d≈e", r"a\le b\ge c\ne d\approx e"),
        ("A∪B∩C∅5°±1∓2", r"A\cup B\cap C\emptyset 5\degree \pm 1\mp 2"),
        ("x∈∞∠€£", r"x\in \infty \angle \euro \sterling"),
        ("πθαβγλμωφ", r"\pi \theta \alpha \beta \gamma \lambda \mu \omega \phi"),
    ):
        assert plain(text) == found, text
    for answer, reference in (
        ("√16", "4"), ("√2.25", "1.5"), ("2√25", "10"), ("√10", r"\sqrt{10}"), ("x ∈ ℝ", r"(-\infty, \infty)"),
        ("ℝ", "all real numbers"), (r"ℝ∖\{0\}", r"x \ne 0"), ("x²⁺¹", "x^3"), ("0.1666…", "1/6"), ("3½", "3.5"),
    ):  # fmt: skip
        assert same_answer(answer, reference) and same_answer(reference, answer), answer
    assert not same_answer("√16", r"6\sqrt{1}") and not same_answer("√1.6", "4") and not same_answer("ℝ", "R")
