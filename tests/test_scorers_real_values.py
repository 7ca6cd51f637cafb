"""Values of trees: exact fractions, sixty digits at a point, and the sets of reals that intervals and inequalities are."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from firsthand.scorers.mathematics.high_precision import (
    MAX_FACTORIAL,
    MAX_MAGNITUDE,
    MAX_POWER_BITS,
    Numbers,
    agree,
    constant_ratio,
    exact,
    has,
    variables,
)
from firsthand.scorers.mathematics.real_sets import (
    RealSpan,
    _end,
    _merged,
    _read,
    _without,
    same_real_set,
)

Tree = list[Any]


def n(value: Any) -> Tree:
    return ["num", str(value)]


X, Y, A, B = (["var", name] for name in "xyab")
MINUS, OO = n(-1), ["const", "oo"]
LESS = ["*", MINUS, OO]


def test_rational_trees_have_their_exact_value_within_the_limits_of_size() -> None:
    for tree, value in (
        (n("3/4"), Fraction(3, 4)),
        (["+", n(7), n(3)], 10),
        (["-", n(7), n(3)], 4),
        (["*", n(7), n(3)], 21),
        (["/", n(7), n(3)], Fraction(7, 3)),
        (["/", n(7), n(0)], None),
        (["/", n(0), n(7)], 0),
        (["^", n(2), n(5)], 32),
        (["^", n(2), n(-3)], Fraction(1, 8)),
        (["^", n(0), n(-1)], None),
        (["^", n(0), n(0)], 1),
        (["^", n(4), n("1/2")], None),
        (["^", n(1), n(MAX_POWER_BITS)], 1),
        (["^", n(1), n(MAX_POWER_BITS + 1)], None),
        (["^", n(3), n(MAX_POWER_BITS // 2 + 1)], None),
        (["^", n("1/4"), n(MAX_POWER_BITS // 3 + 1)], None),
        (["^", n(3), n(-(MAX_POWER_BITS // 2) - 1)], None),
        (["factorial", n(0)], 1),
        (["factorial", n(5)], 120),
        (["factorial", n(-1)], None),
        (["factorial", n("1/2")], None),
        (["factorial", n(MAX_FACTORIAL + 1)], None),
        (["binom", n(6), n(2)], 15),
        (["binom", n(2), n(6)], 0),
        (["binom", n(6), n("1/2")], None),
        (["binom", n(6), n(-1)], None),
        (["binom", n(6), n(MAX_FACTORIAL + 1)], None),
        (["percent", n(5)], Fraction(1, 20)),
        (["percent", n(0)], 0),
        (["abs", n(-5)], 5),
        (["abs", n(0)], 0),
        (["floor", n("-7/2")], -4),
        (["ceil", n("-7/2")], -3),
        (["floor", n("1/2")], 0),
        (["ceil", n("1/2")], 1),
        (["sqrt", n(4)], None),
        (["+", n(1), ["sqrt", n(4)]], None),
        (X, None),
    ):
        assert exact(tree) == value, tree
    assert exact(["factorial", n(MAX_FACTORIAL)]) is not None and exact(
        ["^", n(2), n(MAX_POWER_BITS // 2)]
    ) == Fraction(2 ** (MAX_POWER_BITS // 2))


def test_the_names_and_kinds_in_a_tree_are_found_at_any_depth() -> None:
    tree = ["union", ["interval", "[]", A, ["sqrt", X]], ["set", ["*", ["const", "pi"], ["var", "x_1"]]]]
    assert variables(tree) == {"a", "x", "x_1"} and variables(n(2)) == set()
    assert has(tree, "sqrt") and has(tree, "pi") and has(tree, "num", "set") and not has(tree, "num", "e", "x")
    assert has(OO, "oo") and has(["det", ["row", OO]], "oo")


def test_values_at_a_point_follow_every_operation() -> None:
    numbers = Numbers()
    mp = numbers.mp
    point = {"x": mp.mpf(3), "y": mp.mpf(-2)}
    for tree, value in (
        (["-", X, Y], 5),
        (["/", X, Y], mp.mpf(-3) / 2),
        (["^", X, Y], mp.mpf(1) / 9),
        (["root", n(-27), X], -3),
        (["root", n(16), n(4)], 2),
        (["root", n(-16), n(2)], 4 * mp.j),
        (["root", n(-8), n(-3)], mp.mpf(-1) / 2),
        (["binom", n(7), X], 35),
        (["factorial", X], 6),
        (["factorial", n("1/2")], mp.sqrt(mp.pi) / 2),
        (["^", n(2), n(21_300)], mp.mpf(2) ** 21_300),
        (["deg", n(90)], mp.pi / 2),
        (["percent", X], mp.mpf(3) / 100),
        (["floor", n("-5/2")], -3),
        (["ceil", n("-5/2")], -2),
        (["ceil", X], 3),
        (["floor", Y], -2),
        (["ceil", ["const", "pi"]], 4),
        (["floor", ["const", "pi"]], 3),
        (["lg", n(100)], 2),
        (["log", n(100)], mp.log(100)),
        (["ln", X], mp.log(3)),
        (["abs", Y], 2),
        (["arctan", X], mp.atan(3)),
        (["arcsin", n("1/2")], mp.pi / 6),
        (["arccos", n("1/2")], mp.pi / 3),
        (["sec", X], 1 / mp.cos(3)),
        (["tanh", X], mp.tanh(3)),
        (["sqrt", Y], mp.sqrt(2) * mp.j),
        (["const", "e"], mp.e()),
        (["^", ["const", "i"], n(2)], -1),
    ):
        assert numbers.equal(numbers.value(tree, point), value), tree
    assert Numbers(10).value(["log", n(1000)], {}) == pytest.approx(3) and numbers.fraction(Fraction(-7, 2)) == mp.mpf(
        "-3.5"
    )
    for tree in (
        ["det", ["row", X]],
        ["factorial", n(MAX_FACTORIAL + 1)],
        ["factorial", n(-MAX_FACTORIAL - 1)],
        ["binom", n(MAX_FACTORIAL + 1), n(2)],
        ["binom", n(2), n(-MAX_FACTORIAL - 1)],
        ["exp", n(MAX_MAGNITUDE + 1)],
        ["sinh", n(-MAX_MAGNITUDE - 1)],
        ["^", n(2), n(21_400)],
        ["floor", ["const", "i"]],
        ["unknown", X],
        ["tuple", X, Y],
        ["/", X, n(0)],
    ):
        with pytest.raises((ValueError, ArithmeticError)):
            numbers.value(tree, point)
    with pytest.raises(KeyError):
        numbers.value(A, point)
    numbers.real_only = True
    assert numbers.value(["^", Y, n(2)], point) == 4
    for root in (["sqrt", Y], ["^", Y, n("-1/2")]):  # above and below the real axis
        with pytest.raises(ValueError, match=r"^outside the real domain$"):
            numbers.value(["*", root, root], point)


def test_two_values_are_equal_to_forty_digits_of_the_larger_one() -> None:
    numbers = Numbers()
    mpf = numbers.mp.mpf
    assert numbers.equal(mpf(100), 100 + mpf(10) ** -38 * mpf("0.9")) and not numbers.equal(
        100, 100 + mpf(10) ** -38 * 2
    )
    assert numbers.equal(0, mpf(10) ** -50) and not numbers.equal(0, mpf(10) ** -49)
    assert not numbers.equal(2, -2) and numbers.finite(mpf(3)) and not numbers.finite(numbers.mp.inf)


def test_expressions_agree_where_their_values_do_and_multiples_have_one_ratio() -> None:
    for left, right, same in (
        (["^", ["+", X, Y], n(2)], ["+", ["+", ["^", X, n(2)], ["*", n(2), ["*", X, Y]]], ["^", Y, n(2)]], True),
        (["abs", X], X, False),
        (["sqrt", ["^", X, n(2)]], ["abs", X], True),
        (["log", n(100)], n(2), True),
        (["log", n(100)], ["ln", n(100)], True),
        (["ln", n(100)], n(2), False),
        (X, Y, False),
        (OO, ["+", OO, n(1)], False),
        (n(5), OO, False),
        (["*", n(0), OO], n(0), False),
        (["log", OO], ["log", OO], False),
        (n(5), OO, False),
        (["*", n(0), OO], n(0), False),
        (["log", OO], ["log", OO], False),
        (n(5), OO, False),
        (["*", n(0), OO], n(0), False),
        (["log", OO], ["log", OO], False),
        (["sqrt", n(8)], ["*", n(2), ["sqrt", n(2)]], True),
        (["/", n(1), n(0)], ["/", n(2), n(0)], False),
        (["/", X, X], n(1), True),
        (["ln", ["^", X, n(2)]], ["*", n(2), ["ln", X]], True),
        (n(5), ["ln", n(0)], False),
        (["ln", n(0)], n(5), False),
    ):
        assert agree(left, right) is same, (left, right)
    double = ["*", n(2), ["-", X, Y]]
    for left, right, positive, same in (
        (double, ["-", X, Y], False, True),
        (double, ["-", X, Y], True, True),
        (double, ["-", Y, X], False, True),
        (double, ["-", Y, X], True, False),
        (double, ["-", X, A], False, False),
        (["*", n(0), X], X, False, False),
        (["*", n(0), X], ["*", n(0), Y], False, False),
        (["*", ["const", "i"], X], X, False, True),
        (["*", ["const", "i"], X], X, True, False),
        (["/", X, n(0)], X, False, False),
        (["*", ["+", n(1), ["const", "i"]], X], X, True, False),
        (["abs", X], X, False, False),
        (["sqrt", X], ["*", n(-3), ["sqrt", X]], False, True),
        (["-", ["abs", X], n(3)], ["-", X, n(3)], True, False),
    ):
        assert constant_ratio(left, right, positive=positive) is same, (left, right, positive)


def read(tree: Tree) -> Any:
    numbers = Numbers()
    found = _read(tree, numbers)
    if found is None:
        return None
    spans = " ".join(f"{'(['[s.low_in]}{float(s.low):g},{float(s.high):g}{')]'[s.high_in]}" for s in found.spans)
    return spans if found.name is None else f"{found.name}: {spans}"


def test_intervals_inequalities_and_finite_sets_are_read_as_spans() -> None:
    def chain(*parts: Any) -> Tree:
        return ["relation", list(parts[1::2]), *parts[::2]]

    one_two, both = ["interval", "[)", n(1), n(2)], ["interval", "[]", n(3), n(3)]
    for tree, spans in (
        (["reals"], "(-inf,inf)"),
        (one_two, "[1,2)"),
        (["tuple", n(1), OO], "(1,inf)"),
        (["interval", "(]", LESS, n(2)], "(-inf,2]"),
        (["tuple", n(1), n(2), n(3)], None),
        (both, "[3,3]"),
        (["interval", "[)", n(3), n(3)], None),
        (["interval", "[]", n(4), n(3)], None),
        (["set", n(5), n(-1), n(5)], "[-1,-1] [5,5]"),
        (["set"], ""),
        (chain(X, "<", n(3)), "x: (-inf,3)"),
        (chain(n(3), "<=", X), "x: [3,inf)"),
        (chain(n(1), "<=", ["+", ["*", n(2), X], n(1)], "<", n(5)), "x: [0,2)"),
        (chain(["*", n(-2), Y], ">=", n(6)), "y: (-inf,-3]"),
        (chain(X, "!=", n(3)), "x: (-inf,3) (3,inf)"),
        (chain(["abs", X], "<", n(3)), "x: (-3,3)"),
        (chain(["abs", ["-", X, n(1)]], "<=", n(3)), "x: [-2,4]"),
        (chain(["abs", X], ">", n(3)), "x: (-inf,-3) (3,inf)"),
        (chain(["abs", ["-", X, n(1)]], ">=", n(0)), "x: (-inf,inf)"),
        (chain(["abs", X], ">", X), None),
        (chain(n(3), "<", ["abs", X]), None),
        (chain(n(3), "<", ["abs", ["-", X, n(100)]]), None),
        (chain(["floor", X], ">", n(3)), None),
        (chain(X, "<", n(3), "<", Y), None),
        (chain(X, "=", n(3)), None),
        (chain(n(1), "!=", X, "<", n(3)), None),
        (chain(n(3), "<", X, "<", n(3)), None),
        (chain(["^", X, n(2)], "<", n(3)), None),
        (chain(n(5), ">", X, ">", X), None),
        (chain(n(4), ">", X, ">=", n(2)), "x: [2,4)"),
        (["union", one_two, ["interval", "[]", n(2), n(4)]], "[1,4]"),
        (["union", one_two, ["interval", "(]", n(2), n(4)]], "[1,2) (2,4]"),
        (["union", both, one_two], "[1,2) [3,3]"),
        (["or", chain(X, ">", n(3)), chain(X, "<", n(1))], "x: (-inf,1) (3,inf)"),
        (["or", chain(X, ">", n(3)), chain(Y, "<", n(1))], None),
        (["or", chain(X, ">", n(3)), X], None),
        (["without", ["reals"], ["set", n(2), n(0)]], "(-inf,0) (0,2) (2,inf)"),
        (["without", one_two, ["set", n(1)]], "(1,2)"),
        (["without", one_two, ["set", n(2)]], "[1,2)"),
        (["without", one_two, one_two], None),
        (["without", ["reals"], ["union", ["set", n(5)], one_two]], None),
        (chain(n(1), "<", X, ">=", n(1)), "x: (1,inf)"),
        (chain(n(1), "<=", X, ">", n(1)), "x: (1,inf)"),
        (chain(n(1), ">", X, "<=", n(1)), "x: (-inf,1)"),
        (chain(n(1), ">=", X, "<", n(1)), "x: (-inf,1)"),
        (chain(n(1), ">", X, "<=", n(0)), "x: (-inf,0]"),
        (["without", X, ["set", n(2)]], None),
        (X, None),
        (["union", *[["set", n(at)] for at in range(39)]], " ".join(f"[{at},{at}]" for at in range(39))),
        (["union", *[["set", n(at)] for at in range(40)]], None),
    ):
        assert read(tree) == spans, tree
    numbers = Numbers()
    assert _end(OO, numbers) == numbers.mp.inf and _end(LESS, numbers) == -numbers.mp.inf
    assert _end(["sqrt", n(9)], numbers) == 3
    for tree in (["+", OO, n(1)], ["const", "i"], ["*", n(-1), ["const", "i"]]):
        with pytest.raises(ValueError, match="not"):
            _end(tree, numbers)


def test_spans_are_joined_where_they_touch_and_split_at_a_point() -> None:
    span = RealSpan
    assert _merged([span(5, True, 6, False), span(1, False, 3, False), span(2, True, 3, True)]) == (
        span(1, False, 3, True),
        span(5, True, 6, False),
    )
    assert _merged([span(1, False, 4, True), span(1, True, 2, True)]) == (span(1, True, 4, True),)
    assert _merged([span(1, True, 2, False), span(2, False, 3, True)]) == (
        span(1, True, 2, False),
        span(2, False, 3, True),
    )
    assert _merged([span(1, True, 2, True), span(2, False, 3, True)]) == (span(1, True, 3, True),)
    assert _without(span(1, True, 4, False), 2) == [span(1, True, 2, False), span(2, False, 4, False)]
    assert _without(span(1, True, 4, True), 1) == [span(1, False, 4, True)]
    assert _without(span(1, True, 4, True), 5) == [span(1, True, 4, True)] and _without(span(1, True, 1, True), 1) == []


def test_inequalities_of_one_variable_have_a_set_in_common_and_of_two_have_none() -> None:
    def both(*parts: tuple[Tree, str, Any]) -> Tree:
        return ["and", *(["relation", [sign], name, n(end)] for name, sign, end in parts)]

    def ends(kinds: str, low: Any, high: Any) -> Tree:
        return ["interval", kinds, n(low), n(high)]

    for tree, other in (
        (both((X, ">", 1), (X, "<", 2)), ends("()", 1, 2)),
        (both((X, "<=", 2), (X, ">=", 1), (X, "<", 5)), ends("[]", 1, 2)),
        (both((X, ">=", 1), (X, ">", 1), (X, "<=", 2), (X, "<", 2)), ends("()", 1, 2)),
        (both((X, ">=", 1), (X, "<=", 1)), ["set", n(1)]),
        (both((X, "!=", 1), (X, ">", 0), (X, "<", 2)), ["union", ends("()", 0, 1), ends("()", 1, 2)]),
    ):
        assert same_real_set(tree, other), tree
    nothing = both((X, ">=", 1), (X, "<", 1))
    assert same_real_set(nothing, both((X, ">", 2), (X, "<", 0))) and not same_real_set(nothing, ["set", n(1)])
    unlike = both((X, ">", 1), (Y, "<", 2))
    for tree in (unlike, both((X, ">", 1), (X, "<", 5), (Y, "<", 2)), ["and", ["relation", [">"], X, n(1)], X]):
        assert not same_real_set(tree, tree) and not same_real_set(["and", *reversed(tree[1:])], ends("()", 1, 2))
    assert not same_real_set(unlike, ends("()", 1, 2)), "it is a part of the plane"


def test_sets_of_reals_are_the_same_if_names_ends_and_their_kinds_are() -> None:
    def below(name: Tree, sign: str, end: Tree) -> Tree:
        return ["relation", [sign], name, end]

    half = ["interval", "(]", LESS, n("1/2")]
    assert same_real_set(below(X, "<=", n("1/2")), half) and same_real_set(half, below(Y, "<=", ["/", n(2), n(4)]))
    assert not same_real_set(below(X, "<", n("1/2")), half)
    assert not same_real_set(below(X, "<=", n(1)), half)
    assert not same_real_set(below(X, "<=", n("1/2")), below(Y, "<=", n("1/2")))
    assert not same_real_set(["reals"], half) and not same_real_set(half, X) and not same_real_set(X, half)
    assert not same_real_set(["interval", "[]", n(1), n(2)], ["interval", "[]", n("1/2"), n(2)])
    assert not same_real_set(["interval", "[]", n(1), X], ["interval", "[]", n(1), n(2)])
    assert not same_real_set(["set", n(1)], ["set", n(1), n(2)])
    assert same_real_set(
        ["interval", "[]", ["sqrt", n(2)], n(2)], ["interval", "[]", ["/", n(2), ["sqrt", n(2)]], n(2)]
    )
