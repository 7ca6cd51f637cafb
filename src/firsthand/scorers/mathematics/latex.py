"""Parses mathematical answers in LaTeX or plain text into a small tree of plain data, bounded in size, never run as code.

A tree is `["num", "3/4"]`, `["var", "x"]`, `["op", left, right]` for + - * / ^, `["fn", argument]`, a collection (`tuple`,
`list`, `or`, `and`, `set`, `interval`, `matrix`, `union`, `ratio`), `["relation", signs, part, ...]`, or a value with a unit
(`quantity`, `percent`, `deg`). Text outside the grammar gives None and is compared as text.
"""

from __future__ import annotations

import re
from fractions import Fraction

from firsthand.scorers.mathematics.answer_text import MAX_CHARS, plain
from firsthand.scorers.mathematics.high_precision import variables
from firsthand.scorers.mathematics.latex_tokens import (
    FUNCTIONS,
    TRIGONOMETRY,
    LatexToken,
    NotUnderstoodError,
    Tree,
    number,
    tokens,
    words_alone,
)
from firsthand.scorers.mathematics.left_off_units import without_units
from firsthand.scorers.mathematics.quantities import BARE

MAX_DEPTH = 40

_CONSTANTS = {"pi": "pi", "infty": "oo", "infinity": "oo", "inf": "oo", "oo": "oo"}
_GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
})  # fmt: skip
_DECORATED = ("angle", "triangle", "vec", "hat", "overline", "overrightarrow", "mathcal")
_RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "approx": "~", "in": "in"}
_OR, _AND = ("|or|", "lor", "vee"), ("|and|", "land", "wedge")
_INEQUALITIES = {"<", ">", "<=", ">=", "!="}
_PREFIXES = {"dollar": "dollar", "euro": "euro", "sterling": "sterling"}
_PAIRS = {"(": ")]", "[": ")]", "\\{": ("}",), "{": "}", "langle": ("rangle",)}


def parse(text: str, letters: frozenset[str] = frozenset()) -> Tree | None:
    """Parse an answer into a tree; None if it is too long or outside the grammar. `letters` are units after a number."""
    if len(text) > 2 * MAX_CHARS or not (text := plain(text)) or len(text) > MAX_CHARS:
        return None
    if (words := words_alone(text)) is not None:
        return words
    try:
        parser = _LatexParser(tokens(text), BARE | letters)
        tree = parser.listed()
        return tree if parser.done() else None
    except (NotUnderstoodError, RecursionError):
        return None


def times(left: Tree, right: Tree) -> Tree:
    """Return a product; a factor goes into the entries of a matrix and the number of a quantity."""
    for one, other in ((left, right), (right, left)):
        if other[0] == "matrix" and one[0] != "matrix":
            return ["matrix", *[["row", *[["*", one, each] for each in row[1:]]] for row in other[1:]]]
        if other[0] in ("quantity", "percent", "deg") and one[0] == "num":
            return [other[0], ["*", one, other[1]], *other[2:]]
    return ["*", left, right]


def _restrict_one_variable(left: Tree, right: Tree) -> bool:
    """Return whether both are inequalities of the same variable, so that `and` between them is their intersection."""
    parts = [*(left[1:] if left[0] == "and" else [left]), right]
    names = variables(["all", *(side for each in parts for side in each[2:])])
    return len(names) == 1 and all(each[0] == "relation" and _INEQUALITIES.issuperset(each[1]) for each in parts)


def _all_of(left: Tree, right: Tree) -> Tree:
    return [*left, right] if left[0] == "and" else ["and", left, right]


class _LatexParser:
    """Recursive-descent parser over the tokens; nesting deeper than MAX_DEPTH is refused."""

    def __init__(self, tokens: list[LatexToken], units: frozenset[str] = BARE):
        self.tokens, self.at, self.depth, self.units = tokens, 0, 0, units
        self.brackets, self.bars, self.braces = 0, 0, 0

    def done(self) -> bool:
        return self.at == len(self.tokens)

    def peek(self, ahead: int = 0) -> LatexToken:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else LatexToken("end", "", False)

    def take(self, *values: str) -> str | None:
        token = self.peek()
        if token.kind in ("sym", "cmd") and token.value in values:
            self.at += 1
            return token.value
        return None

    def need(self, *values: str) -> str:
        found = self.take(*values)
        if found is None:
            raise NotUnderstoodError
        return found

    def listed(self) -> Tree:
        """Parse `a, b, c`, `a or b` at the top level."""
        parts, either = [self.relation()], False
        while sign := self.take(",", ";", *_OR, *_AND):
            comma = sign in (",", ";")
            if comma:  # `1, 2, and 3`
                sign = self.take(*_OR, *_AND, ",") or sign
            either |= sign in _OR
            part = self.relation()
            joined = len(parts) if comma and not either else 1  # `x > 0, x < 5, and x \ne 2` joins all
            before: Tree = parts[-1] if joined == 1 else ["and", *parts]
            if sign in _AND and _restrict_one_variable(before, part):
                parts[-joined:] = [_all_of(before, part)]
            elif sign in ("land", "wedge"):  # of logic and of vectors, and no list
                raise NotUnderstoodError
            else:
                parts.append(part)
        return parts[0] if len(parts) == 1 else ["or" if either else "list", *parts]

    def relation(self) -> Tree:
        self.take("approx")
        parts, signs = [self.joined()], []
        while (token := self.peek()).kind in ("sym", "cmd") and token.value in _RELATIONS:
            self.at += 1
            signs.append(_RELATIONS[token.value])
            parts.append(self.joined())
        return ["relation", signs, *parts] if signs else parts[0]

    def joined(self) -> Tree:
        tree = self.ratio()
        while sign := self.take("cup", "setminus", "cap"):
            right = self.ratio()
            if sign == "cup":
                tree = [*tree, right] if tree[0] == "union" else ["union", tree, right]
            else:
                tree = [{"setminus": "without", "cap": "both"}[sign], tree, right]
        return tree

    def ratio(self) -> Tree:
        parts = [self.sum()]
        while not self.braces and self.take(":"):
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else ["ratio", *parts]

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotUnderstoodError
        tree = self.product()
        while sign := self.take("+", "-", "pm", "mp"):
            tree = [sign, tree, self.product()]
        self.depth -= 1
        return tree

    def product(self) -> Tree:
        tree = self.signed()
        while True:
            if sign := self.take("*", "/"):
                right = self.signed()
                tree = times(tree, right) if sign == "*" else ["/", tree, right]
            elif self.starts_unit(tree):
                return self.quantity(tree)
            elif self.starts_factor():
                after_letter = self.peek(-1).kind == "word" and not self.peek().spaced
                if self.peek().kind == "num" and (tree[0] == "num" or after_letter):
                    raise NotUnderstoodError  # `5 7` is neither 57 nor 35, and `5R2` no product
                tree = times(tree, self.power())
            else:
                return tree

    def starts_unit(self, tree: Tree) -> bool:
        token = self.peek()
        if token.kind == "text":
            return bool(tree[0] != "word")
        known = token.value.casefold() in self.units or (
            len(token.value) > 3 and token.value not in FUNCTIONS | {"infinity"}
        )
        return token.kind == "word" and known and tree[0] in ("num", "/", "*", "+", "-", "pm", "mp")

    def quantity(self, tree: Tree) -> Tree:
        """Parse the unit after a value: words, a power of 2 or 3, `/` between two units."""
        words = [""]
        while True:
            token = self.peek()
            if token.kind in ("text", "word"):
                words.append(token.value)
                self.at += 1
            elif token == ("sym", "/", token.spaced) and self.peek(1).kind in ("text", "word"):
                words.append("/")
                self.at += 1
            elif token.value == "^" and token.kind == "sym":
                self.at += 1
                power = self.group()
                words.append(f"^{power[1]}")
            else:
                break
        unit = " ".join(words).replace(" ^", "^").strip()
        unit = "molar" if unit == "M" else unit.casefold()  # 5 M is not 5 m
        if unit in ("percent", "percents", "degrees", "degree"):
            return ["percent" if unit.startswith("p") else "deg", tree]
        if unit.startswith(("squared", "cubed", "^")):
            raise NotUnderstoodError  # a power of the number, not of a unit
        return ["quantity", without_units(tree, ("deg",)), unit]

    def starts_factor(self) -> bool:
        kind, value, _ = self.peek()
        if kind == "sym" and value == "|":
            return not self.bars
        return (
            kind in ("num", "word", "based")
            or (kind == "sym" and value in "({")
            or (kind == "cmd" and (value in FUNCTIONS or value in _CONSTANTS or value in _GREEK))
            or (kind == "cmd" and value in ("frac", "binom", "begin", "lfloor", "lceil", *_DECORATED))
        )

    def signed(self) -> Tree:
        if sign := self.take("-", "+", "pm", "mp"):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise NotUnderstoodError
            tree = self.signed()
            self.depth -= 1
            if sign in ("pm", "mp"):
                return [sign, ["num", "0"], tree]
            return tree if sign == "+" else times(["num", "-1"], tree)
        return self.power()

    def power(self) -> Tree:
        tree = self.atom()
        while sign := self.take("!", "%", "degree"):
            tree = [{"!": "factorial", "%": "percent", "degree": "deg"}[sign], tree]
        if self.take("^", "**"):
            return ["^", tree, self.exponent()]
        return tree

    def exponent(self) -> Tree:
        return times(["num", "-1"], self.power()) if self.take("-") else self.power()

    def group(self) -> Tree:
        """Parse `{...}`, or one token as in `\\frac12`."""
        if self.take("{"):
            return self.inside("}")
        kind, value, _ = self.peek()
        if kind == "num" and len(value) > 1 and value.isdigit():
            self.tokens[self.at] = LatexToken(kind, value[1:], False)
            return ["num", value[0]]
        return self.atom()

    def inside(self, closing: str) -> Tree:
        """Parse the rest of a group up to its closing brace; `\\over` and `\\choose` divide it."""
        brackets, self.brackets = self.brackets, 0
        tree = self.sum()
        if sign := self.take("over", "choose"):
            tree = ["/" if sign == "over" else "binom", tree, self.sum()]
        self.need(closing)
        self.brackets = brackets
        return tree

    def atom(self) -> Tree:
        token = self.peek()
        if token.kind == "end":
            raise NotUnderstoodError
        self.at += 1
        if token.kind == "num":
            return self.mixed(["num", number(self.grouped(token.value))])
        if token.kind == "based":
            return self.based(*token.value.split("_"))
        if token.kind == "text":
            return ["word", token.value if len(token.value) == 1 else token.value.casefold()]
        if token.kind == "word":
            return self.letters(token.value)
        if token.kind == "cmd":
            return self.command(token.value)
        if token.value in ("(", "[", "{", "|"):
            return self.bracketed(token.value)
        raise NotUnderstoodError

    def grouped(self, value: str) -> str:
        """Join `1,234,567` and `12 345`; between brackets a comma separates."""
        while re.fullmatch(r"\d{1,3}(?:\d{3})*", value) and len(value) < 40:
            comma = not self.brackets and self.peek()[:3] == ("sym", ",", False)
            after = self.peek(1 if comma else 0)
            fits = after.kind == "num" and re.fullmatch(r"\d{3}(?:\.\d+)?", after.value)
            if not fits or after.spaced == comma or value == "0" or (not comma and self.peek(1).value == "/"):
                break
            self.at += 2 if comma else 1
            value += after.value
        return value

    def mixed(self, whole: Tree) -> Tree:
        """Parse the rest of a mixed number: `1\\frac{2}{3}` and `1 2/3` are one and two thirds."""
        if not whole[1].isdigit():
            return whole
        start = self.at
        if self.peek()[:2] == ("cmd", "frac"):
            self.at += 1
            parts = [self.group(), self.group()]
        elif self.peek().kind == "num" and self.peek(1)[:2] == ("sym", "/") and self.peek(2).kind == "num":
            parts = [["num", self.peek().value], ["num", self.peek(2).value]]
            self.at += 3
        else:
            return whole
        if all(each[0] == "num" and each[1].isdigit() for each in parts) and 0 < int(parts[0][1]) < int(parts[1][1]):
            return ["num", str(int(whole[1]) + Fraction(int(parts[0][1]), int(parts[1][1])))]
        self.at = start
        return whole

    def based(self, digits: str, base: str) -> Tree:
        size = int(base)
        if not 2 <= size <= 36 or any(int(each, 36) >= size for each in digits.replace(".", "")):
            raise NotUnderstoodError
        return ["num", digits] if size == 10 else ["based", digits, base]

    def letters(self, value: str) -> Tree:
        if value in FUNCTIONS or value in _CONSTANTS:
            return self.command(value)
        if len(value) > 3:
            return ["word", value.casefold()]
        if len(value) > 1:  # `xy` is x times y; a longer word is a word
            self.tokens[self.at : self.at] = [LatexToken("word", each, False) for each in value[1:]]
        if self.take("_"):
            return ["var", f"{value[0]}_{self.subscript()}"]
        return ["const", value[0]] if value[0] in ("i", "e") else ["var", value[0]]

    def subscript(self) -> str:
        """Return a subscript as text."""
        depth, found = 0, ""
        while True:
            kind, value, _ = self.peek()
            if kind == "end":
                raise NotUnderstoodError
            self.at += 1
            depth += {"{": 1, "}": -1}.get(value, 0) if kind == "sym" else 0
            found += "" if value in ("{", "}") else value
            if depth <= 0:
                return found

    def command(self, value: str) -> Tree:
        if value in ("frac", "binom"):
            return ["/" if value == "frac" else "binom", self.group(), self.group()]
        if value == "sqrt" and self.take("["):
            index = self.sum()
            self.need("]")
            return ["root", self.group(), index]
        if value in FUNCTIONS:
            return self.function(value)
        if value in _CONSTANTS:
            return ["const", _CONSTANTS[value]]
        if value in ("{", "langle"):
            return self.bracketed("\\{" if value == "{" else value)
        if value in ("lfloor", "lceil"):
            return [value[1:], self.inside("r" + value[1:])]
        if value == "begin":
            return self.matrix()
        if value in _GREEK:
            return ["var", f"\\{value}_{self.subscript()}" if self.take("_") else f"\\{value}"]
        if value in _DECORATED:
            return ["var", f"\\{value} {self.subscript()}"]
        if value == "emptyset":
            return ["set"]
        if value == "mathbb" and self.subscript() == "R":
            return ["reals"]
        if value in _PREFIXES:
            tree = self.signed()
            return ["quantity", tree, _PREFIXES[value]]
        raise NotUnderstoodError

    def function(self, value: str) -> Tree:
        base = self.group() if value == "log" and self.take("_") else None
        exponent = self.exponent() if self.take("^") else None  # \sin^2 x
        tree: Tree = [value, self.argument(value)]
        if base is not None:
            tree = ["/", ["ln", tree[1]], ["ln", base]]
        if exponent in (["num", "-1"], ["*", ["num", "-1"], ["num", "1"]]) and value in TRIGONOMETRY:
            return [f"arc{value}", tree[1]]
        return tree if exponent is None else ["^", tree, exponent]

    def argument(self, function: str) -> Tree:
        """Parse `{...}`, `(...)`, or the factors up to the next function: `\\sin 2x \\cos x`."""
        if self.peek()[:2] == ("sym", "{"):
            return self.group()
        if self.peek()[:2] == ("sym", "("):
            return self.atom()
        tree = self.power()
        while function != "sqrt" and self.starts_factor() and self.peek()[:2] != ("sym", "("):
            if self.peek().value in FUNCTIONS:
                break
            tree = times(tree, self.power())
        return tree

    def bracketed(self, opened: str) -> Tree:
        if opened == "|":
            self.bars += 1
            tree = self.sum()
            self.bars -= 1
            self.need("|")
            return ["abs", tree]
        brackets, self.brackets = self.brackets, int(opened != "{")
        self.braces += opened == "\\{"
        builder = opened == "\\{" and self.has_lone_bar()
        self.bars += builder  # then `|` opens no absolute value in what stands before it
        parts = [self.relation()]
        self.bars -= builder
        if opened == "{" and (sign := self.take("over", "choose")):
            parts = [["/" if sign == "over" else "binom", parts[0], self.sum()]]
        if opened == "\\{" and self.take(":", "mid", "|"):
            parts = self.conditions()
        while self.take(",", ";", *_AND):
            parts.append(self.relation())
        self.braces -= opened == "\\{"
        self.brackets = brackets
        closed = self.need(*_PAIRS[opened])
        if len(parts) == 1 and (opened != "\\{" or parts[0][0] in ("relation", "and", "or")):
            return parts[0]
        if opened in ("\\{", "{"):
            return ["set", *parts]
        if len(parts) == 2 and (opened, closed) not in (("(", ")"), ("langle", "rangle")):
            return ["interval", opened + closed, *parts]
        return ["tuple", *parts]

    def has_lone_bar(self) -> bool:
        """Return whether one of the bars up to the end of a set has no partner: `{x | |x| < 3}`, but not `{x|x|}`."""
        bars = 0
        for token in self.tokens[self.at :]:
            if token[:2] == ("cmd", "}"):
                break
            bars += token[:2] == ("sym", "|")
        return bars % 2 == 1

    def conditions(self) -> list[Tree]:
        """Parse what holds for the elements of a set: `x > 1, x < 3` as one, conditions of several variables as they are.

        `x \\in \\mathbb{R}` beside others is taken off.
        """
        braces, self.braces = self.braces, 0
        tree = self.listed()
        self.braces = braces
        if tree[0] != "list":
            return [tree]
        narrower = [each for each in tree[1:] if each[:2] != ["relation", ["in"]] or each[3:] != [["reals"]]]
        if not narrower:
            return [tree[1]]
        first: Tree = narrower[0]
        for each in narrower[1:]:
            if not _restrict_one_variable(first, each):
                return [*tree[1:]]
            first = _all_of(first, each)
        return [first]

    def matrix(self) -> Tree:
        name = self.subscript()
        if not name.endswith("matrix") and name != "array":
            raise NotUnderstoodError
        if name == "array" and self.peek()[:2] == ("sym", "{"):
            self.subscript()
        rows: list[Tree] = [["row", self.sum()]]
        while not self.take("end"):
            if self.take("&"):
                rows[-1].append(self.sum())
                continue
            self.need("\\")
            if self.peek()[:2] != ("cmd", "end"):
                rows.append(["row", self.sum()])
        if self.subscript() != name:
            raise NotUnderstoodError
        return ["matrix", *rows] if name != "vmatrix" else ["det", *rows]
