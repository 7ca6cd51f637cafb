"""Answers in LaTeX as trees, each written short, and pairs of answers that are or are not the same, in both orders."""

from __future__ import annotations

from typing import Any

from firsthand.scorers.mathematics.equality import same_trees
from firsthand.scorers.mathematics.latex import parse

TREES: tuple[tuple[str, str | None], ...] = (
    (r"(x \mid x<3)", None), (r"(\frac{1,234}{5}, 2)", r"(tuple (/ 1234 5) 2)"), (r"\{x \mid x<3\}",
        "(relation < x 3)"),
    (r"\sqrt[3]{x}2", "(* (root x 3) 2)"), (r"\log_2 8", "(/ (ln 8) (ln 2))"),
    (r"\log_{10}^2 x", "(^ (/ (ln x) (ln 10)) 2)"), (r"\sin^{-1} x", "(arcsin x)"),
    (r"\ln^{-1} x", "(^ (ln x) (* -1 1))"), (r"\sin 2x\cos y", "(* (sin (* 2 x)) (cos y))"),
    (r"\sin 2(x)", "(* (sin 2) x)"), (r"\sqrt x y", "(* (sqrt x) y)"),
    (r"\lfloor x+1\rfloor 3", "(* (floor (+ x 1)) 3)"), (r"\lceil 2.5 \rceil", "(ceil 2.5)"),
    (r"\mathbb{R}", "(reals)"), (r"\mathbb{Z}", None), (r"\vec{ab} 2", r"(* \vec ab 2)"),
    (r"\angle ABC", r"\angle ABC"), (r"\alpha_{12}x", r"(* \alpha_12 x)"), (r"\$ 5.50", "(quantity 5.50 dollar)"),
    (r"\$-5", "(quantity (* -1 5) dollar)"), ("€ 3", "(quantity 3 euro)"), (r"\langle 1, 2\rangle", "(tuple 1 2)"),
    (r"[1,2\rangle", None), ("(1,2]", "(interval (] 1 2)"), ("[1,2]", "(interval [] 1 2)"), ("(1,2)", "(tuple 1 2)"),
    ("[1,2,3]", "(tuple 1 2 3)"), (r"\{x: x<3\}", "(relation < x 3)"), (r"\{x | 1<x\}", "(relation < 1 x)"),
    (r"\{5\}", "(set 5)"),
    (r"\{1,2\}", "(set 1 2)"), (r"{3 \over 4}", "(/ 3 4)"), (r"{3 \choose 4}", "(binom 3 4)"),
    ("{2, 3}", "(set 2 3)"), ("|x|+|y|", "(+ (abs x) (abs y))"), ("2|x|", "(* 2 (abs x))"), (r"\frac12", "(/ 1 2)"),
    (r"\frac123", "(* (/ 1 2) 3)"), (r"\frac{1}{2}x", "(* (/ 1 2) x)"), (r"1\frac{2}{3}", "5/3"),
    (r"1\frac{3}{2}", "(* 1 (/ 3 2))"), ("1 2/3", "5/3"), ("3 4/3", None), ("1,234,567", "1234567"),
    ("12 345", "12345"), ("(1,234)", "(tuple 1 234)"), ("1,234.5", "1234.5"), ("1,23", "(list 1 23)"),
    ("0,123", "(list 0 123)"), ("1 234/567", "89/63"), ("5 7", None), ("1, 2, and 3", "(list 1 2 3)"),
    ("1, 2 or 3", "(or 1 2 3)"), (r"x=1 \text{ or } x=2", "(or (relation = x 1) (relation = x 2))"),
    ("1;2", "(list 1 2)"), (r"x \approx 3.33", "(relation ~ x 3.33)"), (r"\approx 3", "3"),
    (r"1<x\le 2", "(relation <,<= 1 x 2)"), (r"A\cup B\cup C", "(union A B C)"),
    (r"\mathbb{R}\setminus\{0\}", "(without (reals) (set 0))"), (r"A\cap B", "(both A B)"), ("1:2", "(ratio 1 2)"),
    ("1:2:3", "(ratio 1 2 3)"), ("1-2-3", "(- (- 1 2) 3)"), (r"5\pm 2", "(pm 5 2)"), (r"\mp x", "(mp 0 x)"),
    ("2*3/4", "(/ (* 2 3) 4)"), ("6/2x", "(* (/ 6 2) x)"), (r"5\text{ cm}^2", "(quantity 5 cm^2)"),
    ("5 cm", "(quantity 5 cm)"), (r"5\text{ m}/\text{s}", "(quantity 5 m / s)"), (r"30^\circ", "(deg 30)"),
    ("30 degrees", "(deg 30)"), (r"50\%", "(percent 50)"), ("5!", "(factorial 5)"), ("x^{-2}", "(^ x (* -1 2))"),
    ("-x^2", "(* -1 (^ x 2))"), ("2^-x", "(^ 2 (* -1 x))"), ("x^2^3", "(^ x (^ 2 3))"), ("x**2", "(^ x 2)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "(matrix (row 1 2) (row 3 4))"),
    (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "(det (row 1 2) (row 3 4))"),
    (r"\begin{array}{cc}1&2\\3&4\\\end{array}", "(matrix (row 1 2) (row 3 4))"),
    (r"2\begin{pmatrix}1\\x\end{pmatrix}", "(matrix (row (* 2 1)) (row (* 2 x)))"),
    (r"\begin{cases}1\end{cases}", None), ("1010_2", "(based 1010 2)"), ("12_{2}", None), ("FF_{16}", "(* F F_16)"),
    ("xyz", "(* (* x y) z)"), ("xy_1", "(* x y_1)"), ("pi", "@pi"), ("e^i", "(^ @e @i)"), ("word", "(word word)"),
    (r"x \ne 3", "(relation != x 3)"), (r"\emptyset", "(set)"), ("--x", "(* -1 (* -1 x))"), ("+5", "5"),
    ("2.5.", "2.5"), (r"\binom52", "(binom 5 2)"), (r"\tan^2 x", "(^ (tan x) 2)"), ("((x))", "x"), ("[x]", "x"),
    (r"\{x: 1<x\}", "(relation < 1 x)"), ("0", "0"), (r"7\text{ apples}/\text{day}", "(quantity 7 apples / day)"),
    ("1,234,56", "(list 1234 56)"), (r"12\,345", "12345"), ("(1 234)", "1234"), (r"\sqrt2x", "(* (sqrt 2) x)"),
    (r"\sqrt{2}x", "(* (sqrt 2) x)"), ("2^{10}3", "(* (^ 2 10) 3)"), ("x!^2", "(^ (factorial x) 2)"),
    (r"\frac{-1}{2}", "(/ (* -1 1) 2)"), (r"\log x", "(log x)"), ("1, and 2", "(list 1 2)"),
    ("a or b or c", "(or a b c)"), (r"\pm 1, 2", "(list (pm 0 1) 2)"), ("36_7", "(based 36 7)"), ("8_7", None),
    (r"[1,2]\cup(3,4)\setminus\{3.5\}", "(without (union (interval [] 1 2) (tuple 3 4)) (set 3.5))"),
    (r"2\pi r", "(* (* 2 @pi) r)"), (r"\sin{x}y", "(* (sin x) y)"), (r"\sin(x)y", "(* (sin x) y)"),
    ("x_1y", "(* x_1 y)"), ("i", "@i"), ("2i", "(* 2 @i)"), ("ei", "(* @e @i)"), (r"\exp x", "(exp x)"),
    ("Paris", "(word paris)"), ("(x+1)(x-1)", "(* (+ x 1) (- x 1))"), ("2(3)", "(* 2 3)"),
)  # fmt: skip
EQUAL = (
    (r"5\text{ m}/\text{s}", r"18\text{ km}/\text{h}", "numbers"), ("3 feet", "36 inches", "numbers"),
    (r"5\text{ m}^2", r"50000\text{ cm}^2", "numbers"), (r"\$5", "5 dollars", "tree"), ("5 apples", "5", "tree"),
    ("24 hours", "1 day", "numbers"), (r"1,000\text{ m}", "1 km", "numbers"), (r"100\%", "1", "numbers"),
    (r"100\%", "100", "tree"), (r"0\%", "0", "tree"), (r"x\in [1,2]", "[1,2]", "tree"),
    (r"x=1\text{ or }x=2", "1,2", "tree"), ("no solution", r"\emptyset", "tree"),
    ("all real numbers", r"(-\infty,\infty)", "tree"), (r"\frac12<x", "x>0.5", "tree"),
    ("x>1, y>2", "y>2, x>1", "points"), (r"\sin^2 x", r"1-\cos^2 x", "points"),
    (r"\tan x", r"\frac{\sin x}{\cos x}", "points"), (r"\ln 8", r"3\ln 2", "points"), (r"\log_2 8", "3", "points"),
    ("x^2-1", "(x-1)(x+1)", "points"), (r"\sqrt[3]{-8}", "-2", "points"), ("i^2", "-1", "points"),
    (r"e^{i\pi}", "-1", "points"), (r"\frac{x^2}{x}", "x", "points"), (r"\binom{5}{2}", "10", "numbers"),
    ("5!", "120", "numbers"), (r"\lfloor 2.7\rfloor", "2", "numbers"), (r"\lceil -2.7\rceil", "-2", "numbers"),
    ("2^{10}", "1024", "numbers"), (r"0.1\overline{6}", "1/6", "numbers"), (r"90^\circ", r"\frac{\pi}{2}", "points"),
    ("1010_2", "1010_2", "tree"), (r"\text{Yes}", "yes", "tree"), ("(A)", "A", "tree"),
    (r"\text{A, B}", "B, A", "points"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", "tree"),
    (r"2\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\4\end{pmatrix}", "numbers"),
    (r"\langle 1,2\rangle", "(1,2)", "tree"), ("x=1,2", "x=2,1", "numbers"), ("f(x)=x^2", "y=x^2", "tree"),
    ("y=x^2", "x^2", "tree"), ("x^2+y^2=1", "y^2+x^2-1=0", "points"), ("x^2+y^2=1", "2x^2+2y^2=2", "points"),
    ("-x=-2", "x=2", "points"), ("x>y", "2x>2y", "points"), (r"x\ne y", r"y\ne x", "points"),
    (r"|x|\le 2", r"-2\le x\le 2", "tree"), ("|x-1|>2", r"x<-1\text{ or }x>3", "tree"),
    (r"\{-1,2\}", r"\{2,-1\}", "numbers"),
    (r"\mathbb{R}\setminus\{1,2\}", r"(-\infty,1)\cup(1,2)\cup(2,\infty)", "tree"),
    (r"(0,1)\cup\{1\}", "(0,1]", "tree"), (r"[0,1]\setminus\{0,1\}", "(0,1)", "tree"), ("1:2", "0.5", "numbers"),
    (r"\pm 3", "3,-3", "numbers"), (r"2\pm\sqrt3", r"2+\sqrt3,2-\sqrt3", "tree"), (r"5\cdot 3", "15", "numbers"),
    ("1.50", "1.5", "numbers"), ("1e3", "1000", "numbers"),
    ("x=5", "5", "tree"), ("5", "x=5", "tree"), ("f(x)=5", "y=5", "tree"), ("2x+2y=4", "x+y=2", "points"),
    ("x<3", "3>x", "tree"), ("x<3", r"(-\infty,3)", "tree"), ("|x|<3", "(-3,3)", "tree"),
    (r"|x|\ge 3", r"(-\infty,-3]\cup[3,\infty)", "tree"), (r"1\le 2x+1<5", "[0,2)", "tree"),
    (r"x\ne 3", r"(-\infty,3)\cup(3,\infty)", "tree"), ("x<y", "y>x", "points"), ("2x<2y", "x<y", "points"),
    ("5 cm", "50 mm", "numbers"), ("5 cm", "5", "tree"), (r"50\%", "0.5", "numbers"), (r"50\%", "50", "tree"),
    (r"1\%", "1", "tree"), (r"0.5\%", "0.005", "numbers"), (r"30^\circ", "30", "tree"),
    (r"30^\circ", r"\pi/6", "points"), ("1,2", "2,1", "numbers"), (r"\{1,2,2\}", r"\{1,2\}", "numbers"),
    ("1,2", "1 or 2", "tree"), (r"\{1,2\}", "1,2", "tree"), (r"5\pm 2", "3,7", "numbers"),
    (r"5\pm 2", "7,3", "numbers"), (r"x=5\pm 2", "x=3,x=7", "numbers"), ("x=1,y=2", "y=2,x=1", "tree"),
    ("x=1,y=2", "(1,2)", "tree"), ("(x,y)=(1,2)", "x=1,y=2", "tree"), ("(x,y)=(1,2)", "(1,2)", "tree"),
    ("1:2", "2:4", "numbers"), ("1:2:3", "2:4:6", "numbers"), (r"\sqrt{8}", r"2\sqrt2", "points"),
    (r"\log 100", "2", "points"), (r"\log e", "1", "points"), ("0.333...", "1/3", "numbers"),
    (r"\frac{10}{3}\approx 3.33", "10/3", "tree"), (r"x\approx 3.33", "3.33", "tree"), (r"\text{ACF}", "ACF", "tree"),
    (r"\text{ACF}", "acf", "tree"), ("[1,2]", r"\{x:1\le x\le 2\}", "tree"),
    (r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R}\setminus\{0\}", "tree"), (r"[1,2]\cup[2,3)", "[1,3)", "tree"),
    ("x=y", "y=x", "points"), ("y=2x", "x=y/2", "points"), ("2>x>1", "(1,2)", "tree"), ("[2,2]", r"\{2\}", "tree"),
    (r"\pm x \mp y", "x-y,-x+y", "points"), (r"1+2\pm 1, 9", "2,4,9", "numbers"), ("3x=6", "x=2", "points"),
    ("x=2", "3x=6", "points"), ("x=3, 4", "3,4", "tree"),
)  # fmt: skip
OTHER = (
    ("5 apples", "5 oranges", "tree"), ("12 hours", "1 day", "numbers"), (r"2\text{ m}", "2 kg", "tree"),
    (r"\frac12<x", r"x\ge 0.5", "tree"), ("10^{400}", "10^{400}+1", "numbers"), ("x", "y", "points"),
    (r"\pi", "3.14159", "points"), ("1010_2", "10", "tree"), ("A", "a", "points"), ("[1,2]", "(1,2)", "tree"),
    (r"\{1\}", "1", "tree"), (r"\{1,2\}", r"\{1,2,3\}", "numbers"), ("x=1,y=2", "x=2,y=1", "numbers"),
    ("3x+2", "6x+4", "points"), ("x>y", "y>x", "points"), ("2:1", "1:2", "numbers"), (r"\pm 3", "-3", "tree"),
    ("[1,5)", r"[1,\infty)", "points"), (r"(-\infty,5]", "[1,5]", "tree"),
    ("x=5", "y=5", "points"), ("2x+2y=4", "x+y=3", "points"), (r"x\le 3", r"(-\infty,3)", "tree"),
    ("-x<-y", "x<y", "points"), (r"5\text{ cm}", r"5\text{ kg}", "tree"), (r"0.5\%", "0.5", "tree"),
    (r"30^\circ", r"30\text{ cm}", "tree"), ("(1,2)", "(2,1)", "numbers"), ("1,2,2", "1,2", "tree"),
    (r"5\pm 2", "7", "tree"), ("1:2:3", "2:4:5", "numbers"), ("0.333", "1/3", "numbers"), ("[1,2)", "[1,2]", "tree"),
    ("(1,2]", "[1,2)", "tree"), (r"(1,2)\cup(2,3)", "(1,3)", "tree"), ("1=2=2", "2", "tree"),
    ("x+1=x+1", "5", "tree"), ("|x|", "x", "points"), (r"\sqrt{x^2}", "x", "points"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", "tree"),
)  # fmt: skip


def short(tree: Any) -> str:
    """A tree as `(sign part part)`, numbers and names bare, constants after @."""
    if isinstance(tree, str):
        return tree
    if tree[0] in ("num", "var"):
        return str(tree[1])
    if tree[0] == "const":
        return f"@{tree[1]}"
    if tree[0] == "relation":
        return f"(relation {','.join(tree[1])} {' '.join(map(short, tree[2:]))})"
    return f"({' '.join(map(short, tree))})"


def test_each_way_to_write_an_answer_has_its_own_tree() -> None:
    for text, expected in TREES:
        tree = parse(text)
        assert (None if tree is None else short(tree)) == expected, text


def test_answers_are_the_same_in_both_orders_or_in_neither() -> None:
    for is_same, pairs in ((True, EQUAL), (False, OTHER)):
        for one, other, by in pairs:
            trees = parse(one), parse(other)
            assert trees[0] is not None and trees[1] is not None
            assert same_trees(trees[0], trees[1]) == (is_same, by), (one, other)
            assert same_trees(trees[1], trees[0])[0] is is_same, (other, one)
