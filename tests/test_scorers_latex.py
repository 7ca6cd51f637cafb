"""LaTeX and plain answers as trees, piece by piece: numbers, products, functions, brackets, relations, units and words."""

from __future__ import annotations

from typing import Any

from firsthand.scorers.mathematics.latex import parse, times


def n(value: Any) -> list[Any]:
    return ["num", str(value)]


X, Y, A, B = (["var", name] for name in "xyab")
MINUS = n(-1)
TREES: tuple[tuple[str, Any], ...] = (
    ("1,234", n(1234)),
    ("1, 234", ["list", n(1), n(234)]),
    ("(1,234)", ["tuple", n(1), n(234)]),
    ("12 345", n(12345)),
    ("1,23", ["list", n(1), n(23)]),
    ("1,234.5", n("1234.5")),
    (r"1\frac{2}{3}", n("5/3")),
    ("1 2/3", n("5/3")),
    ("1 3/2", None),
    (r"2\frac{3}{2}", ["*", n(2), ["/", n(3), n(2)]]),
    (r"\frac12", ["/", n(1), n(2)]),
    (r"\frac{a}{b}", ["/", A, B]),
    ("{a \\over b}", ["/", A, B]),
    ("5 7", None),
    ("2x", ["*", n(2), X]),
    ("xy", ["*", X, Y]),
    ("x-y-2", ["-", ["-", X, Y], n(2)]),
    ("x/y*2", ["*", ["/", X, Y], n(2)]),
    ("-x^2", ["*", MINUS, ["^", X, n(2)]]),
    ("+x", X),
    ("x^{-1}", ["^", X, ["*", MINUS, n(1)]]),
    ("x^-1", ["^", X, ["*", MINUS, n(1)]]),
    ("x**2", ["^", X, n(2)]),
    ("2^3^2", ["^", n(2), ["^", n(3), n(2)]]),
    ("x_1+x_{12}", ["+", ["var", "x_1"], ["var", "x_12"]]),
    ("5!", ["factorial", n(5)]),
    ("50%", ["percent", n(50)]),
    (r"90^\circ", ["deg", n(90)]),
    ("|x|", ["abs", X]),
    ("2|x|", ["*", n(2), ["abs", X]]),
    (r"\sqrt{x}", ["sqrt", X]),
    (r"\sqrt[3]{x}", ["root", X, n(3)]),
    (r"\binom{5}{2}", ["binom", n(5), n(2)]),
    (r"\lfloor x \rfloor", ["floor", X]),
    (r"\lceil x \rceil", ["ceil", X]),
    (r"\sin^2 x", ["^", ["sin", X], n(2)]),
    (r"\sin^{-1} x", ["arcsin", X]),
    (r"\sin 2x \cos y", ["*", ["sin", ["*", n(2), X]], ["cos", Y]]),
    (r"\sin(x)y", ["*", ["sin", X], Y]),
    (r"\log_2 8", ["/", ["ln", n(8)], ["ln", n(2)]]),
    (r"\log x", ["log", X]),
    (r"2\pi", ["*", n(2), ["const", "pi"]]),
    ("e^i", ["^", ["const", "e"], ["const", "i"]]),
    (r"\theta_1", ["var", "\\theta_1"]),
    (r"\vec{v}", ["var", "\\vec v"]),
    (r"\emptyset", ["set"]),
    (r"\mathbb{R}", ["reals"]),
    ("(x,y)", ["tuple", X, Y]),
    ("(x)", X),
    ("[x,y]", ["interval", "[]", X, Y]),
    ("(x,y]", ["interval", "(]", X, Y]),
    ("[x,y)", ["interval", "[)", X, Y]),
    (r"\langle x,y\rangle", ["tuple", X, Y]),
    (r"\{x,y\}", ["set", X, Y]),
    (r"\{x\}", ["set", X]),
    (r"\{x : x > 2\}", ["relation", [">"], X, n(2)]),
    ("(x", None),
    ("x)", None),
    ("x=y=2", ["relation", ["=", "="], X, Y, n(2)]),
    (r"1 \le x < 2", ["relation", ["<=", "<"], n(1), X, n(2)]),
    (r"x \ne 2", ["relation", ["!="], X, n(2)]),
    (r"x \in [1,2]", ["relation", ["in"], X, ["interval", "[]", n(1), n(2)]]),
    (r"\approx 2", n(2)),
    ("x or y", ["or", X, Y]),
    ("1, 2, and 3", ["list", n(1), n(2), n(3)]),
    ("1; 2", ["list", n(1), n(2)]),
    ("x:y", ["ratio", X, Y]),
    ("x:y:2", ["ratio", X, Y, n(2)]),
    (
        r"[1,2] \cup [3,4] \cup \{5\}",
        ["union", ["interval", "[]", n(1), n(2)], ["interval", "[]", n(3), n(4)], ["set", n(5)]],
    ),
    (r"\mathbb{R} \setminus \{0\}", ["without", ["reals"], ["set", n(0)]]),
    (r"x \pm 2", ["pm", X, n(2)]),
    (r"\pm 2", ["pm", n(0), n(2)]),
    ("5 cm", ["quantity", n(5), "cm"]),
    (r"5 \text{ cm}^2", ["quantity", n(5), "cm^2"]),
    ("60 miles/hour", ["quantity", n(60), "miles / hour"]),
    (r"5\text{ percent}", ["percent", n(5)]),
    ("5 degrees", ["deg", n(5)]),
    (r"\$5", ["quantity", n(5), "dollar"]),
    ("101_2", ["based", "101", "2"]),
    ("102_2", None),
    (r"\text{Yes}", ["word", "yes"]),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & x \end{pmatrix}", ["matrix", ["row", n(1), n(2)], ["row", n(3), X]]),
    (r"2\begin{pmatrix} 1 \\ x \end{pmatrix}", ["matrix", ["row", ["*", n(2), n(1)]], ["row", ["*", n(2), X]]]),
    (r"\begin{cases} 1 \end{cases}", None),
    ("x +", None),
    ("", None),
    ("(" * 41 + "x" + ")" * 41, None),
    ("x" * 501, None),
)


def test_an_answer_is_read_as_the_tree_that_it_writes() -> None:
    for text, tree in TREES:
        assert parse(text) == tree, text


def test_a_factor_goes_into_a_matrix_and_into_the_number_of_a_quantity() -> None:
    matrix = ["matrix", ["row", n(1), X]]
    assert times(n(2), matrix) == times(matrix, n(2)) == ["matrix", ["row", ["*", n(2), n(1)], ["*", n(2), X]]]
    assert times(matrix, matrix) == ["*", matrix, matrix]
    assert times(n(2), ["quantity", n(3), "cm"]) == ["quantity", ["*", n(2), n(3)], "cm"]
    assert times(["percent", n(3)], n(2)) == ["percent", ["*", n(2), n(3)]] and times(X, ["percent", n(3)])[0] == "*"


MORE: tuple[tuple[str, Any], ...] = (
    ("1 or 2, 3", ["or", n(1), n(2), n(3)]),
    ("1 or 2; 3", ["or", n(1), n(2), n(3)]),
    ("1, 2 or 3, x", ["or", n(1), n(2), n(3), X]),
    ("1, or 2, 3", ["or", n(1), n(2), n(3)]),
    (r"1 \lor 2, 3", ["or", n(1), n(2), n(3)]),
    (r"1, 2 \vee 3", ["or", n(1), n(2), n(3)]),
    ("1, 2, and 3, 4", ["list", n(1), n(2), n(3), n(4)]),
    ("1 or", None),
    (", 1", None),
    ("1, , , 2", None),
    (r"\approx x = 2", ["relation", ["="], X, n(2)]),
    (r"\approx 2, \approx x", ["list", n(2), X]),
    (r"\approx\approx 2", None),
    (r"2\lceil x\rceil", ["*", n(2), ["ceil", X]]),
    (r"2\lfloor x\rfloor", ["*", n(2), ["floor", X]]),
    (r"2\frac{x}{y}", ["*", n(2), ["/", X, Y]]),
    (r"x\binom{2}{y}", ["*", X, ["binom", n(2), Y]]),
    (r"x\begin{pmatrix} 1 \end{pmatrix}", ["matrix", ["row", ["*", X, n(1)]]]),
    *((rf"2\{name}{{x}}", ["*", n(2), ["var", f"\\{name} x"]]) for name in (
        "angle", "triangle", "vec", "hat", "overrightarrow", "mathcal",
    )),
    (r"x\overline{y}", ["*", X, ["var", r"\overline y"]]),
    (r"2\alpha", ["*", n(2), ["var", r"\alpha"]]),
    (r"2\infty", ["*", n(2), ["const", "oo"]]),
    (r"2\sqrt{x}", ["*", n(2), ["sqrt", X]]),
    ("2{x}", ["*", n(2), X]),
    ("x(y)", ["*", X, Y]),
    ("x[y]", None),
    (r"2\{x\}", None),
    (r"2\emptyset", None),
    ("0,123", ["list", n(0), n(123)]),
    ("0 123", None),
    ("10,123", n(10123)),
    ("123,000", n(123000)),
    ("1,2345", ["list", n(1), n(2345)]),
    ("1,234,567.25", n("1234567.25")),
    ("1.5,234", ["list", n("1.5"), n(234)]),
    ("-1,234", ["*", MINUS, n(1234)]),
    ("1,234,x", ["list", n(1234), X]),
    ("1 234 567", n(1234567)),
    ("1 234,567", n(1234567)),
    ("{1,234}", n(1234)),
    (r"\{1,234\}", ["set", n(1), n(234)]),
)  # fmt: skip


def test_lists_factors_and_groups_of_digits_are_read_in_any_order() -> None:
    for text, tree in MORE:
        assert parse(text) == tree, text
