"""Rules of the grammar of answers, each called by itself: the tree that it reads, and where it stops."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.scorers.mathematics.answer_text import plain, spaceless, text_key
from firsthand.scorers.mathematics.latex import MAX_DEPTH, _LatexParser, parse
from firsthand.scorers.mathematics.latex_tokens import (
    LatexToken,
    NotUnderstoodError,
    number,
    tokens,
    words_alone,
)
from firsthand.scorers.symbolic import boxed, comparison, minerva, same_answer
from firsthand.task import Task
from firsthand.trace import Trace


def written(tree: Any) -> str:
    """A tree in one line: `*(2 x)` is twice x."""
    if not isinstance(tree, list):
        return repr(tree)
    if tree[0] in ("num", "var"):
        return str(tree[1])
    return f"{tree[0]}({' '.join(written(each) for each in tree[1:])})"


RULES = (
    ("atom", "1" + ",234" * 14, "1" + "234" * 13, 27),
    ("atom", r"(\sqrt{2}1,234)", "tuple(*(sqrt(2) 1) 234)", 9),
    ("atom", "0_{1}", "refused", 1),
    ("sum", "3 cubs", "quantity(3 'cubs')", 2),
    ("sum", "(2+3) CUBS", "quantity(+(2 3) 'cubs')", 6),
    ("sum", "(2-3) cubs", "quantity(-(2 3) 'cubs')", 6),
    ("sum", r"5 \text{percents}", "percent(5)", 2),
    ("sum", r"5 \text{degree}", "deg(5)", 2),
    ("listed", "1,2 or 3", "or(1 2 3)", 5),
    ("listed", "1; 2, and 3", "list(1 2 3)", 6),
    ("listed", r"1\text{, and }2", "list(1 2)", 3),
    ("listed", r"1\text{ or, }2", "or(1 2)", 3),
    ("listed", "0,100", "list(0 100)", 3),
    ("listed", "0 100", "refused", 1),
    ("listed", "1, 2, or 3", "or(1 2 3)", 6),
    ("listed", r"1 \lor 2", "or(1 2)", 3),
    ("listed", r"1\vee x 5", "or(1 *(x 5))", 4),
    ("listed", "7", "7", 1),
    ("relation", r"\approx 3 = x < y", "relation(=('<') 3 x y)", 6),
    ("relation", r"a \le b \ge c \ne d", "relation(<=('>=' '!=') a b c d)", 7),
    ("relation", r"x \in y > 2", "relation(in('>') x y 2)", 5),
    ("relation", "3,", "3", 1),
    ("joined", r"a \cup b \cup c", "union(a b c)", 5),
    ("joined", r"a \setminus b", "without(a b)", 3),
    ("joined", r"a \cap b \cup c", "union(both(a b) c)", 5),
    ("joined", r"a \cup b \cap c", "both(union(a b) c)", 5),
    ("ratio", "1:2", "ratio(1 2)", 3),
    ("ratio", "1:2:3", "ratio(1 2 3)", 5),
    ("ratio", "4", "4", 1),
    ("sum", "1+2-3", "-(+(1 2) 3)", 5),
    ("sum", r"a \pm b \mp c", "mp(pm(a b) c)", 5),
    ("sum", "a*b/c d", "*(/(*(a b) c) d)", 6),
    ("sum", "2x y", "*(*(2 x) y)", 3),
    ("sum", "5 7", "refused", 1),
    ("sum", "x 7", "*(x 7)", 2),
    ("sum", r"3 \text{cm}", "quantity(3 'cm')", 2),
    ("sum", "3 KM", "quantity(3 'km')", 2),
    ("sum", "3 km/h", "quantity(3 'km / h')", 4),
    ("sum", "3 m^2", "*(3 ^(m 2))", 4),
    ("sum", "3 cubits", "quantity(3 'cubits')", 2),
    ("sum", "3 sqrt", "refused", 2),
    ("sum", "3 cub", "*(*(*(3 c) u) b)", 4),
    ("sum", r"5 \text{percent}", "percent(5)", 2),
    ("sum", r"90 \text{ degrees}", "deg(90)", 2),
    ("sum", r"90^\circ", "refused", 3),
    ("sum", r"x \text{cm}", "quantity(x 'cm')", 2),
    ("sum", "x cm", "*(*(x c) m)", 3),
    ("sum", "2+3 cm", "+(2 quantity(3 'cm'))", 4),
    ("sum", "9 / hour", "/(9 word('hour'))", 3),
    ("sum", r"9 \text{m}/\text{s}^2 x", "quantity(9 'm / s^2 x')", 7),
    ("signed", "-x", "*(-1 x)", 2),
    ("signed", "+x", "x", 2),
    ("signed", r"\pm 2", "pm(0 2)", 2),
    ("signed", r"\mp 2", "mp(0 2)", 2),
    ("signed", "--3", "*(-1 *(-1 3))", 3),
    ("power", "3!^2", "^(factorial(3) 2)", 4),
    ("power", "5%", "percent(5)", 2),
    ("power", "x**-2", "^(x *(-1 2))", 4),
    ("power", "x^{y+1}", "^(x +(y 1))", 7),
    ("power", "x^2^3", "^(x ^(2 3))", 5),
    ("group", "{a+b}c", "+(a b)", 5),
    ("group", "123", "1", 0),
    ("group", "1", "1", 1),
    ("group", "2.5", "2.5", 1),
    ("group", "xy", "x", 1),
    ("inside", r"a \over b}", "/(a b)", 4),
    ("inside", r"a \choose b+1}", "binom(a +(b 1))", 6),
    ("inside", "a)", "refused", 1),
    ("atom", "1,234,567", "1234567", 5),
    ("atom", "1,234,56", "1234", 3),
    ("atom", "12 345.5", "12345.5", 2),
    ("atom", "0,123", "0", 1),
    ("atom", "12 345/7", "12", 1),
    ("atom", "1, 234", "1", 1),
    ("atom", "123 456 789", "123456789", 3),
    ("atom", "(1,234)", "tuple(1 234)", 5),
    ("atom", r"1\frac{2}{3}", "5/3", 8),
    ("atom", "1 2/3", "5/3", 4),
    ("atom", "1 3/3", "1", 1),
    ("atom", "1 0/3", "1", 1),
    ("atom", "1.5 2/3", "1.5", 1),
    ("atom", r"1\frac{x}{3}", "1", 1),
    ("atom", "2 5/7+1", "19/7", 4),
    ("atom", "1A_{16}", "based('1A' '16')", 1),
    ("atom", "19_8", "refused", 1),
    ("atom", "10_{37}", "refused", 1),
    ("atom", "Z1_36", "Z", 1),
    ("atom", "101_2", "based('101' '2')", 1),
    ("atom", "12.1_3", "based('12.1' '3')", 1),
    ("atom", "1_{1}", "refused", 1),
    ("atom", r"\text{A}", "word('A')", 1),
    ("atom", r"\text{Red Car}", "word('red car')", 1),
    ("atom", "Evelyn", "word('evelyn')", 1),
    ("atom", "xyz", "x", 1),
    ("atom", "x_{12}", "x_12", 5),
    ("atom", "x_ab", "x_ab", 3),
    ("atom", "i", "const('i')", 1),
    ("atom", "e", "const('e')", 1),
    ("atom", "f", "f", 1),
    ("atom", "pi", "const('pi')", 1),
    ("atom", "", "refused", 0),
    ("atom", ")", "refused", 1),
    ("atom", "ie", "const('i')", 1),
    ("atom", r"\frac12", "/(1 2)", 2),
    ("atom", r"\binom{5}{2}", "binom(5 2)", 7),
    ("atom", r"\sqrt[3]{8}", "root(8 3)", 7),
    ("atom", r"\sqrt[3 8", "refused", 3),
    ("atom", r"\sqrt 8", "sqrt(8)", 2),
    ("atom", r"\infty", "const('oo')", 1),
    ("atom", r"\{1,2\}", "set(1 2)", 5),
    ("atom", r"\langle 1,2 \rangle", "tuple(1 2)", 5),
    ("atom", r"\lfloor x+1 \rfloor", "floor(+(x 1))", 5),
    ("atom", r"\lceil x \rfloor", "refused", 2),
    ("atom", r"\alpha_1", r"\alpha_1", 3),
    ("atom", r"\alpha", r"\alpha", 1),
    ("atom", r"\vec{AB}", r"\vec AB", 4),
    ("atom", r"\emptyset", "set()", 1),
    ("atom", r"\mathbb{R}", "reals()", 4),
    ("atom", r"\mathbb{Z}", "refused", 4),
    ("atom", r"\euro 5", "quantity(5 'euro')", 2),
    ("atom", r"\sterling -5 x", "quantity(*(-1 5) 'sterling')", 3),
    ("atom", r"\nothing", "refused", 1),
    ("atom", r"\sin^2 x", "^(sin(x) 2)", 4),
    ("atom", r"\sin^{-1} x", "arcsin(x)", 7),
    ("atom", r"\log_2 8", "/(ln(8) ln(2))", 4),
    ("atom", r"\log_{10}^2 x", "^(/(ln(x) ln(10)) 2)", 8),
    ("atom", r"\ln^{-1} x", "^(ln(x) *(-1 1))", 7),
    ("atom", r"\sin 2x \cos x", "sin(*(2 x))", 3),
    ("atom", r"\sin 2x (3)", "sin(*(2 x))", 3),
    ("atom", r"\sqrt 2 x", "sqrt(2)", 2),
    ("atom", r"\sin(x) y", "sin(x)", 4),
    ("atom", r"\exp{x}y", "exp(x)", 4),
    ("atom", r"\tan x^2", "tan(^(x 2))", 4),
    ("atom", "|x-1|", "abs(-(x 1))", 5),
    ("atom", "|x", "refused", 2),
    ("atom", "(1,2)", "tuple(1 2)", 5),
    ("atom", "[1,2)", "interval('[)' 1 2)", 5),
    ("atom", "(1,2]", "interval('(]' 1 2)", 5),
    ("atom", "[1,2]", "interval('[]' 1 2)", 5),
    ("atom", "[1,2,3]", "tuple(1 2 3)", 7),
    ("atom", "(1)", "1", 3),
    ("atom", r"\{1\}", "set(1)", 3),
    ("atom", r"\{x : x > 2\}", "relation(>() x 2)", 7),
    ("atom", r"\{x \mid 1;2\}", "set(1 2)", 7),
    ("atom", "{1,2}", "set(1 2)", 5),
    ("atom", r"{a \over b}", "/(a b)", 5),
    ("atom", r"{a \choose b}", "binom(a b)", 5),
    ("atom", "{7}", "7", 3),
    ("atom", "(1;2)", "tuple(1 2)", 5),
    ("atom", r"\{1:2\}", "set(2)", 5),
    ("atom", "(1:2)", "ratio(1 2)", 5),
    ("atom", "|(|x|)|", "abs(abs(x))", 7),
    ("atom", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "matrix(row(1 2) row(3 4))", 15),
    ("atom", r"\begin{pmatrix}1\\2\\\end{pmatrix}", "matrix(row(1) row(2))", 12),
    ("atom", r"\begin{vmatrix}1&2\\3&x\end{vmatrix}", "det(row(1 2) row(3 x))", 15),
    ("atom", r"\begin{array}{cc}1&2\end{array}", "matrix(row(1 2))", 14),
    ("atom", r"\begin{cases}1\end{cases}", "refused", 4),
    ("atom", r"\begin{pmatrix}1\end{bmatrix}", "refused", 9),
    ("atom", r"\begin{array}1&2\end{array}", "matrix(row(1 2))", 11),
    ("atom", r"\begin{matrix}1,2\end{matrix}", "refused", 5),
    ("product", r"2\begin{matrix}1&x\end{matrix}", "matrix(row(*(2 1) *(2 x)))", 12),
    ("product", r"3*4 \text{kg}", "quantity(*(3 4) 'kg')", 4),
    ("product", r"\begin{matrix}1\end{matrix}\begin{matrix}2\end{matrix}", "*(matrix(row(1)) matrix(row(2)))", 18),
    ("product", "2*5%", "percent(*(2 5))", 4),
    ("product", "|x||y|", "*(abs(x) abs(y))", 6),
    ("product", "2|x|3", "*(*(2 abs(x)) 3)", 5),
    ("product", r"2\binom{4}{2}", "*(2 binom(4 2))", 8),
    ("product", r"\binom{4}{2}\binom{3}{1}", "*(binom(4 2) binom(3 1))", 14),
    ("product", r"2\frac{x}{3}", "*(2 /(x 3))", 8),
    ("product", r"2\lfloor x\rfloor", "*(2 floor(x))", 4),
    ("product", r"2\lceil x\rceil", "*(2 ceil(x))", 4),
    ("product", r"2\sqrt{3}", "*(2 sqrt(3))", 5),
    ("product", r"2\pi", "*(2 const('pi'))", 2),
    ("product", r"2\infty", "*(2 const('oo'))", 2),
    ("product", r"2\alpha", r"*(2 \alpha)", 2),
    ("product", r"2\angle A", r"*(2 \angle A)", 3),
    ("product", r"2\triangle A", r"*(2 \triangle A)", 3),
    ("product", r"x\vec{A}", r"*(x \vec A)", 5),
    ("product", r"2\hat{x}", r"*(2 \hat x)", 5),
    ("product", r"2\overline{AB}", r"*(2 \overline AB)", 5),
    ("product", r"2\overrightarrow{AB}", r"*(2 \overrightarrow AB)", 5),
    ("product", r"2\mathcal{L}", r"*(2 \mathcal L)", 5),
    ("product", "2{x}", "*(2 x)", 4),
    ("product", "2(x)", "*(2 x)", 4),
    ("product", r"2\emptyset", "2", 1),
    ("product", "2[x]", "2", 1),
)


def test_each_rule_reads_its_own_part_and_stops_after_it() -> None:
    for rule, text, tree, read in RULES:
        parser = _LatexParser(tokens(text))
        try:
            found = written(getattr(parser, rule)(*(("}",) if rule == "inside" else ())))
        except NotUnderstoodError:
            found = "refused"
        assert (found, parser.at) == (tree, read), (rule, text)
        state = (parser.depth, parser.brackets, parser.bars, parser.braces)
        assert found == "refused" or state == (0, 0, 0, 0), (rule, text)


def test_nesting_is_read_to_its_limit_and_refused_beyond_it() -> None:
    for opened, closed, deepest in (("(", ")", MAX_DEPTH - 1), ("{", "}", MAX_DEPTH - 1), ("-", "", MAX_DEPTH - 1)):
        assert parse(opened * deepest + "x" + closed * deepest) is not None, opened
        assert parse(opened * (deepest + 1) + "x" + closed * (deepest + 1)) is None, opened
    assert parse("(" * 20 + "x" + ")" * 20 + "+" + "(" * 20 + "y" + ")" * 20) == ["+", ["var", "x"], ["var", "y"]]
    assert parse("x" * 500) is not None and parse("x" * 501) is None
    spaces = r"\," * 499  # 998 characters that are one blank when it is written plainly
    assert parse(f"5{spaces}7") is None and parse(f"5{spaces}+") is None and parse(f"5{spaces}") == ["num", "5"]
    assert parse(f"5{spaces}!") == ["factorial", ["num", "5"]] and parse(f"5{spaces}!!") is None
    for rest in (")", " ?", " }", r" \nothing", " & 2", " '"):
        assert parse(f"5{rest}") is None, f"5 alone is not all of 5{rest}"


def test_subscripts_and_units_end_where_their_part_does() -> None:
    parser = _LatexParser(tokens("{a{b}c}d"))
    assert (parser.subscript(), parser.at) == ("abc", 7)
    for text in ("", "{a"):
        with pytest.raises(NotUnderstoodError):
            _LatexParser(tokens(text)).subscript()
    parser = _LatexParser(tokens("< 2"))
    assert parser.take(">", "<") == "<" and parser.take("2") is None and parser.peek() == LatexToken("num", "2", True)
    assert parser.peek(1) == LatexToken("end", "", False) and not parser.done()
    with pytest.raises(NotUnderstoodError):
        parser.need("<")
    parser = _LatexParser(tokens(r"m / s^2 * t"))
    assert parser.quantity(["deg", ["num", "3"]]) == ["quantity", ["num", "3"], "m / s^2"]
    assert parser.peek() == LatexToken("sym", "*", True)


def test_pieces_of_the_text_keep_their_kind_and_whether_they_are_spaced() -> None:
    assert tokens(r" 1.5e-3x ** \text{or}, .5 AND \{") == [
        LatexToken("num", "1.5e-3", False),
        LatexToken("word", "x", False),
        LatexToken("sym", "**", True),
        LatexToken("sym", "|or|", True),
        LatexToken("sym", ",", False),
        LatexToken("num", ".5", True),
        LatexToken("sym", "|and|", True),
        LatexToken("cmd", "{", True),
    ]
    assert tokens(r"(1A)_{16} 2b_\text{base twelve}") == [
        LatexToken("based", "1A_16", False),
        LatexToken("based", "2B_12", True),
    ]


def test_numbers_are_exact_also_when_their_digits_repeat() -> None:
    for text, value in (
        (r"0.1\overline{6}", "1/6"),
        (r"2.\overline{45}", "27/11"),
        (r"0.5\dot3", "8/15"),
        ("0.333...", "1/3"),
        (r"1.1666\ldots", "7/6"),
        ("0.121212...", "4/33"),
        (r".25\bar{0}", "1/4"),
        ("0.12345671234567...", "1234567/9999999"),
        ("1.5e3", "1.5e3"),
        ("1e400", "1e400"),
        ("1e-400", "1e-400"),
        ("7.", "7"),
        (".5", "0.5"),
        ("30", "30"),
    ):
        assert number(text) == value, text
    for text in ("1e401", "1e-401", "1e00001", "0.33...", "0.1234...", r"16\overline{6}"):
        with pytest.raises(NotUnderstoodError):
            number(text)


def test_answers_in_words_alone_are_words_choices_or_known_sets() -> None:
    for text, tree in (
        (r"\text{Evelyn}", "word('evelyn')"),
        ("no solutions", "set()"),
        ("All  Real Numbers", "reals()"),
        ("Twelve", "12"),
        ("infinity", None),
        (r"\text{Infinity}", "const('oo')"),
        ("(C)", "C"),
        ("C", None),
        ("B, D, A", "list(B D A)"),
        ("(A,C)", "list(A C)"),
        (r"\text{c}", "word('c')"),
        (r"\text{Q}", "word('Q')"),
        ("it's odd", 'word("it\'s odd")'),
        ("sun", "word('sun')"),
        ("abc", None),
        ("left, right", None),
        ("red and blue", None),
        ("x or infinity", None),
        ("arctan", None),
        (r"\text{red and blue}", None),
        (r"\text{and}", "word('and')"),
        ("yes 1", None),
        ("", None),
        (r"\text{ }", None),
    ):
        found = words_alone(text)
        assert (found if found is None else written(found)) == tree, text


def test_an_answer_is_written_plainly_before_it_is_read() -> None:
    for text, written_plainly in (
        (r" $\boxed{ x \le 2 }.$ ", r"x \le 2"),
        (r"\$5", r"\dollar 5"),
        (r"50\%", "50%"),
        ("√2 · 3²⁰ ≤ 5⁻¹", r"\sqrt{2} * 3^{20} \le 5^{-1}"),
        ("2½", r"2 1/2"),
        (r"1,\!234\,567", "1,\\!234567".replace(",\\!", "")),
        (r"x\,y\;z", "x y z"),
        (r"\dfrac12 \tfrac{3}{4}", r"\frac12 \frac{3}{4}"),
        (r"\left( 1, 2 \right]", "( 1, 2 ]"),
        (r"\bigl( x \Bigr)", "( x )"),
        (r"90^\circ", r"90\degree"),
        (r"90^{ \circ }", r"90\degree"),
        (r"\mathrm{sin} x", "sin x"),
        (r"\textbf{ Blue } ", r"\text{Blue}"),
        (r"\text{x = 3}", "x = 3"),
        (r"\mathbf{v} + \underline{w}", "v + w"),
        ("The final answer is: 7.", "7"),
        ("the answer is 7", "7"),
        ("3...", "3..."),
        (r"a \leq b \geq c \neq d", r"a \le b \ge c \ne d"),
        ("a <= b", r"a \le b"),
        (r"\{\}", r"\emptyset"),
        (r"(1, 2)\\", "(1, 2)"),
        (r"\(x\)", "x"),
        ("A ∪ B ∖ C", r"A \cup B \setminus C"),
    ):
        assert plain(text) == written_plainly, text
    assert spaceless("a b + ( c , 1 2 )") == "a b+(c,1 2)"
    assert text_key(r"\text{Red  Car} . ") == text_key("red car.") == "red car"


def test_answers_are_found_in_a_box_or_after_the_words_and_compared_by_their_method() -> None:
    def score(scorer: Any, answer: str | None, reference: object) -> tuple[float, dict[str, object]]:
        found = scorer(
            Task("t", "?", secret={"answer": reference}), Trace("i", "b", "t", {}, 0, 0, "", 0.0, answer=answer)
        )
        assert found.name == scorer.__name__
        return found.value, dict(found.detail)

    assert score(boxed, r"so \boxed{1} and \boxed{\frac12}", "0.5") == (1.0, {"found": r"\frac12", "by": "numbers"})
    assert score(boxed, "x+1", "1+x") == (1.0, {"found": "x+1", "by": "points"})
    assert score(boxed, "x" * 100, "y")[1]["found"] == "x" * 100 and score(boxed, "x" * 101, "y") == (
        0.0,
        {"found": None},
    )
    assert score(boxed, None, "y") == (0.0, {"found": "", "by": "unread"})
    said = "Final Answer: The final answer is $5$. I hope it is correct.\nmore"
    assert score(minerva, f"7 {said}", 5) == (1.0, {"found": " $5$", "by": "text"})
    assert score(minerva, "Final Answer: The final answer is 6\n5", 5) == (0.0, {"found": " 6", "by": "numbers"})
    assert score(minerva, "The answer is 5", 5) == (0.0, {"found": None})
    for answer, reference, same, by in (
        ("", "", False, "text"), ("(1, 2)", "(1,2)", True, "text"), ("Blue Car?", "blue  car?", True, "unread"),
        ("???", "!!!", False, "unread"), ("x" * 2001, "x" * 2001 + " ", True, "text"), ("x" * 2001, "x", False, "text"),
        (" " * 2001, " " * 2001, False, "text"), ("{1,2}", r"\{2,1\}", True, "numbers"),
        ("[1,2)", "1 <= x < 2", True, "tree"),
    ):  # fmt: skip
        assert comparison(answer, reference) == (same, by), answer[:9]
    assert same_answer("1/2", "0.5") and not same_answer("1/3", "0.33")
