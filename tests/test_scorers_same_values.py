"""Comparison of answers rule by rule: units, collections and relations."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.scorers.mathematics.equality import (
    MAX_COMPARISONS,
    TooManyComparisonsError,
    _above_zero,
    _assignments,
    _Comparer,
    _difference,
    _equation,
    _expanded,
    _is_name,
    _same_name,
    _settled,
    _signed,
    _signs,
    _spelled,
    same_trees,
)

Tree = list[Any]


def n(value: Any) -> Tree:
    return ["num", str(value)]


X, Y, A, B = (["var", name] for name in "xyab")
MINUS = n(-1)


def equal(left: Tree, right: Tree) -> tuple[bool, str]:
    comparer = _Comparer()
    return comparer.same(left, right), comparer.by


def test_units_percentages_and_degrees_compare_by_what_they_measure() -> None:
    def q(value: Any, unit: str) -> Tree:
        return ["quantity", n(value), unit]

    for left, right, same in (
        (q(100, "cm"), q(1, "m"), True),
        (q(1, "cm"), q(100, "m"), False),
        (q(12, "cm"), q(12, "cm^2"), False),
        (q(12, "unit"), q(12, "kg"), True),
        (q(12, "kg"), q(13, "unit"), False),
        (q(5, "m"), n(5), True),
        (n(6), q(5, "m"), False),
        (["percent", n(50)], ["percent", n(50)], True),
        (["percent", n(50)], ["percent", n(5)], False),
        (["percent", n(50)], n(50), True),
        (["percent", n(50)], n("1/2"), True),
        (["percent", n("1/2")], n("1/2"), False),
        (["percent", n(1)], n(1), True),
        (["percent", n("99/100")], n("99/100"), False),
        (["percent", n(0)], n(0), True),
        (["percent", n(-2)], n(-2), True),
        (["percent", X], X, True),
        (["deg", n(90)], n(90), True),
        (["deg", n(90)], ["/", ["const", "pi"], n(2)], True),
        (["deg", n(90)], n(91), False),
        (["deg", n(90)], ["percent", n(90)], False),
        (["percent", n(50)], q(50, "m"), False),
        (q(50, "m"), ["tuple", n(50), n(1)], False),
    ):
        assert equal(left, right)[0] is same, (left, right)
        assert equal(right, left)[0] is same, (right, left)


def test_collections_compare_in_order_or_as_sets_by_their_kind() -> None:
    def rows(kind: str, *rows: Any) -> Tree:
        return [kind, *(["row", *map(n, row)] for row in rows)]

    one, two, half = n(1), n(2), n("1/2")
    for left, right, same in (
        (["tuple", one, two], ["tuple", one, ["/", n(4), two]], True),
        (["tuple", one, two], ["tuple", two, one], False),
        (["list", one, two], ["list", two, one], True),
        (["list", one, one, two], ["list", one, two, two], False),
        (["list", one, one], ["list", one], False),
        (["set", one, one], ["set", one], True),
        (["set", one, one, two], ["set", one, two, two], True),
        (["set", one, two], ["set", one, n(3)], False),
        (["set", one], ["set", one, two], False),
        (["set", one, two], ["set", one], False),
        (["or", one, two], ["set", two, one], True),
        (["or", one, one], ["set", one], False),
        (["tuple", one, two], ["list", one, two], False),
        (["ratio", one, two, n(3)], ["ratio", two, n(4), n(6)], True),
        (["ratio", one, two, n(3)], ["ratio", two, n(4), n(5)], False),
        (rows("matrix", (1, 2), (3, 4)), rows("matrix", ("2/2", 2), (3, 4)), True),
        (rows("matrix", (1, 2), (3, 4)), rows("matrix", (1, 2), (3, 5)), False),
        (rows("matrix", (1, 2)), rows("matrix", (1, 2, 3)), False),
        (rows("matrix", (1,), (2,)), rows("matrix", (1,)), False),
        (rows("det", (1,), (2,)), rows("matrix", (1,), (2,)), False),
        (["both", X, ["+", X, X]], ["both", X, ["*", two, X]], True),
        (["interval", "[]", one, X], ["interval", "[]", ["/", two, two], X], True),
        (["interval", "[]", one, X], ["interval", "[)", one, X], False),
        (["tuple", one, two], ["interval", "()", one, two], True),
        (["set", half], ["interval", "[]", half, half], True),
        (["list", one], one, False),
        (["union", X, X, Y], ["union", X, Y, Y], True),
    ):
        assert equal(left, right)[0] is same, (left, right)


def test_values_say_how_they_were_compared_and_end_at_the_limit_of_work() -> None:
    assert same_trees(X, ["var", "x"]) == (True, "tree")
    assert same_trees(n("1/2"), n("0.5")) == (True, "numbers") and same_trees(n("1/3"), n("0.333")) == (
        False,
        "numbers",
    )
    assert same_trees(["+", X, X], ["*", n(2), X]) == (True, "points") and same_trees(X, n(1)) == (False, "points")
    comparer = _Comparer()
    comparer.left = 1
    assert comparer.same(X, Y) is False and comparer.left == 0 and MAX_COMPARISONS == _Comparer().left == 400
    with pytest.raises(TooManyComparisonsError):
        comparer.same(X, Y)
    many = ["set", *[["var", f"x_{at}"] for at in range(21)]], ["set", *[["var", f"y_{at}"] for at in range(21)]]
    assert same_trees(["list", *many[0][1:]], ["list", *reversed(many[1][1:])])[0] is False
    signs: Tree = X
    for _ in range(5):
        signs = ["pm", signs, n(1)]
    assert same_trees(signs, n(1)) == (False, "unread") and len(_expanded(signs[1])) == 1 + 2**4
    comparer.left = 3
    assert comparer.same(["equation", X, n(3)], ["equation", X, n(4)]) is False and comparer.left == 2
    for left, right, same in (
        (["word", "acf"], ["*", ["*", ["var", "A"], ["var", "C"]], ["var", "F"]], True),
        (["word", "x"], n(2), False),
        (n(2), ["word", "x"], False),
        (["based", "11", "2"], ["based", "11", "3"], False),
        (["+", ["word", "a"], n(1)], ["+", ["word", "a"], n(2)], False),
    ):
        assert equal(left, right) == (same, "tree"), (left, right)
    assert [_spelled(each) for each in (["word", "Yes"], X, ["*", ["const", "e"], ["var", "B"]], n(2), ["*", X, n(2)])] == [
        "Yes", "x", "eb", None, None,
    ]  # fmt: skip


def test_a_named_value_equals_its_value_and_an_equation_its_multiples() -> None:
    def named(name: Tree, value: Tree) -> Tree:
        return ["named", name, value]

    f_of_x = ["*", ["var", "f"], X]
    twice, line = ["*", n(2), X], ["equation", ["+", X, Y], n(3)]
    for left, right, same in (
        (named(X, n(5)), n(5), True),
        (n(5), named(X, n(5)), True),
        (n(5), named(X, n(6)), False),
        (named(X, n(5)), named(X, n("10/2")), True),
        (named(X, n(5)), named(Y, n(5)), False),
        (named(f_of_x, n(5)), named(Y, n(5)), True),
        (named(Y, twice), named(Y, twice), True),
        (named(Y, twice), ["equation", ["-", Y, twice], n(0)], True),
        (line, ["equation", ["+", ["*", n(2), X], ["*", n(2), Y]], n(6)], True),
        (line, ["equation", ["+", X, Y], n(4)], False),
        (["equation", twice, n(6)], n(6), False),
        (line, n(3), True),
        (["equation", twice, Y], Y, False),
        (["equation", n(3), n(6)], n(6), False),
        (n(6), ["equation", twice, n(6)], False),
        (["+", X, n(1)], named(X, ["+", n(1), X]), False),
        (["+", X, n(1)], named(Y, ["+", n(1), X]), True),
        (named(X, ["list", n(1), n(2)]), named(Y, ["list", n(1), n(2)]), False),
        (named(["word", "area"], n(2)), named(["word", "size"], n(2)), True),
    ):
        assert equal(left, right)[0] is same, (left, right)
    assert equal(line, ["equation", ["-", n(0), X], ["-", Y, n(3)]]) == (True, "points")
    assert _same_name(X, X) and not _same_name(X, Y) and _same_name(f_of_x, Y) and _same_name(Y, f_of_x)
    assert _difference(named(X, Y)) == ["-", X, Y] and _difference(["equation", X, ["set", Y]]) == ["-", X, ["set", Y]]
    assert _difference(named(X, ["set", Y])) is None and _difference(named(["word", "a"], Y)) is None


def test_inequalities_compare_as_sets_or_as_positive_multiples() -> None:
    def relation(sign: str, left: Tree, right: Tree) -> Tree:
        return ["relation", [sign], left, right]

    for left, right, same in (
        (relation("<", X, n(3)), relation(">", n(6), ["*", n(2), X]), True),
        (relation("<", X, Y), relation(">", ["*", n(2), Y], ["*", n(2), X]), True),
        (relation("<", X, Y), relation("<", Y, X), False),
        (relation("<", X, Y), relation("<=", X, Y), False),
        (relation("!=", X, Y), relation("!=", Y, X), True),
        (relation(">=", X, Y), relation("<=", Y, X), True),
        (relation("<", X, n(3)), n(3), False),
        (relation(">", ["abs", X], n(3)), relation(">", X, n(3)), False),
        (relation("<", n(3), ["abs", X]), relation(">", X, n(3)), False),
        (relation("<", n(3), ["abs", X]), relation(">", ["abs", X], n(3)), True),
        (["or", relation("<", X, n(-3)), relation(">", X, n(3))], relation(">", ["abs", X], n(3)), True),
    ):
        assert equal(left, right)[0] is same, (left, right)
    assert _above_zero(relation("<", X, Y)) == (">", ["-", Y, X])
    assert _above_zero(relation("<=", X, Y)) == (">=", ["-", Y, X])
    assert [_above_zero(relation(sign, X, Y)) for sign in (">", ">=", "!=")] == [
        (sign, ["-", X, Y]) for sign in (">", ">=", "!=")
    ]
    assert _above_zero(relation("in", X, Y)) is None and _above_zero(["relation", ["<", "<"], X, Y, A]) is None


def test_plus_minus_is_written_out_in_both_signs() -> None:
    both = ["pm", X, n(2)]
    plus, minus = ["+", X, n(2)], ["-", X, n(2)]
    assert _expanded(both) == ["list", plus, minus] and _expanded(X) is X
    assert _expanded(["mp", X, n(2)]) == ["list", minus, plus]
    assert _expanded(["relation", ["="], Y, both]) == ["relation", ["="], Y, ["list", plus, minus]]
    assert _expanded(["relation", ["="], both, Y]) == [
        "list", ["relation", ["="], plus, Y], ["relation", ["="], minus, Y],
    ]  # fmt: skip
    assert _expanded(["relation", ["<"], Y, both])[0] == "list"
    assert _expanded(["or", n(1), both, ["list", A, B]]) == ["list", n(1), plus, minus, ["list", A, B]]
    assert _expanded(["tuple", both, ["mp", Y, n(3)]]) == [
        "list", ["tuple", plus, ["-", Y, n(3)]], ["tuple", minus, ["+", Y, n(3)]],
    ]  # fmt: skip
    assert (
        len(_expanded(["tuple", both, both])) == 5
        and _signs(["tuple", both, ["pm", both, X]]) == 3
        and _signs("pm") == 0
    )
    assert _signed(["tuple", both, ["pm", Y, A]], [1, -1]) == ["tuple", minus, ["+", Y, A]]


def test_relations_settle_as_a_name_with_its_value_or_an_equation() -> None:
    def relation(*parts: Tree, signs: list[str] | None = None) -> Tree:
        return ["relation", signs or ["="] * (len(parts) - 1), *parts]

    twice = ["*", n(2), X]
    for tree, settled in (
        (relation(X, n(5)), ["named", X, n(5)]),
        (relation(n(5), X), ["named", X, n(5)]),
        (relation(X, Y), ["named", X, Y]),
        (relation(X, ["+", n(2), n(3)], n(5)), ["named", X, n(5)]),
        (relation(X, n(4), n(5)), ["word", "untrue"]),
        (relation(n(4), n(5)), ["word", "untrue"]),
        (relation(["+", n(2), n(3)], n(5)), n(5)),
        (relation(twice, n(6)), ["equation", twice, n(6)]),
        (relation(n(6), twice), ["word", "untrue"]),
        (relation(n("10/3"), n("3.33"), signs=["~"]), n("10/3")),
        (relation(X, n("3.33"), signs=["~"]), ["named", X, n("3.33")]),
        (relation(X, n("10/3"), n("3.33"), signs=["=", "~"]), ["named", X, n("10/3")]),
        (relation(X, n(5), signs=["<"]), relation(X, n(5), signs=["<"])),
        (["list", relation(X, n(1)), relation(X, n(2))], ["named", X, ["list", n(1), n(2)]]),
        (["or", relation(X, n(1)), n(2)], ["named", X, ["or", n(1), n(2)]]),
        (["list", relation(Y, n(1)), relation(X, n(2))], ["named", ["tuple", Y, X], ["tuple", n(1), n(2)]]),
        (["list", n(1), relation(X, n(2))], ["list", n(1), ["named", X, n(2)]]),
        (["set", relation(X, n(2))], ["named", X, n(2)]),
        (["set", n(2)], ["set", n(2)]),
        (["set", relation(X, n(1)), relation(X, n(2))], ["set", relation(X, n(1)), relation(X, n(2))]),
        (["set"], ["set"]),
        (relation(["tuple", Y, X], ["tuple", n(1), n(2)]), ["named", ["tuple", Y, X], ["tuple", n(1), n(2)]]),
        (relation(["tuple", Y, X], ["tuple", X, Y, A]), ["named", ["tuple", Y, X], ["tuple", X, Y, A]]),
        (relation(["tuple", Y, X], n(2)), ["named", ["tuple", Y, X], n(2)]),
    ):
        assert _settled(tree) == settled, tree
    assert _equation(["="], [n(6), twice]) == _settled(relation(n(6), twice))
    assert [
        _is_name(each)
        for each in (
            X,
            ["word", "area"],
            ["*", A, B],
            ["*", ["var", "f"], ["tuple", X, Y]],
            ["tuple", X, n(1)],
            twice,
            n(1),
        )
    ] == [True, True, True, True, False, False, False]
    inverse = ["*", MINUS, n(1)]
    assert (
        _is_name(["^", ["var", "g"], inverse])
        and not _is_name(["^", X, inverse])
        and not _is_name(["^", ["var", "g"], n(2)])
    )
    mixed = [["named", X, n(1)], ["named", Y, n(2)], n(3)]
    assert _assignments("or", mixed) == ["or", *mixed]
    assert _assignments("list", [["named", X, ["or", n(1), n(2)]], n(3)]) == ["named", X, ["list", n(1), n(2), n(3)]]
    assert _assignments("list", [["named", X, n(1)]]) == ["named", X, n(1)]
    again = [["named", X, n(1)], ["named", Y, n(2)], ["named", X, n(3)]]
    assert _assignments("list", again) == ["list", *again]


def test_an_answer_that_is_nested_too_deeply_is_unread() -> None:
    for wrap in (lambda tree: ["factorial", tree], lambda tree: ["+", X, tree], lambda tree: ["list", tree, X]):
        deep: Tree = n(1)
        for _ in range(5_000):
            deep = wrap(deep)
        for answer, reference in ((deep, n(2)), (n(2), deep), (deep, ["list", X, Y])):
            assert same_trees(answer, reference) == (False, "unread")
    assert same_trees(["factorial", n(3)], n(6))[0] is True
