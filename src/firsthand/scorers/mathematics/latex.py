"""Parses mathematical answers in LaTeX or plain text into a small tree of plain data, bounded in size, never run as code.

A tree is `["num", "3/4"]`, `["var", "x"]`, `["op", left, right]` for + - * / ^, `["fn", argument]`, or a collection
(`tuple`, `set`, `interval`, `matrix`, `union`) of trees. Text outside the grammar gives None and is compared as text.
"""

from __future__ import annotations

import re
from typing import Any

Tree = list[Any]
MAX_CHARS = 500
MAX_DEPTH = 40

FUNCTIONS = ("sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "ln", "exp", "abs")
_CONSTANTS = {"pi": "pi", "infty": "oo", "infinity": "oo", "inf": "oo", "i": "i", "e": "e"}
_TOKEN = re.compile(
    r"\s*(?:(?P<num>\d[\d]*(?:\.\d+)?|\.\d+)|\\(?P<cmd>[A-Za-z]+|[{}|])|(?P<word>[A-Za-z]+)|(?P<sym>\*\*|.))", re.DOTALL
)
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname|rm)\s*\{([^{}]*)\}")
_UNIT = re.compile(
    r"(?:(?<!\s)\s++|)\b(?:dollars?|cents?|degrees?|units?|square|cubic|inch(?:es)?|feet|foot|ft|cm|km|mm|meters?|metres?|miles?|mph|"
    r"hours?|minutes?|seconds?|days?|years?|points?|ways|students|people|pounds?|grams?|kg)\b\s*(?:\^\s*\{?[23]\}?)?"
)


def plain(text: str) -> str:
    """Return the answer without insignificant parts: $, \\left, LaTeX spaces, units, %, a final full stop."""
    text = text.strip().strip("$").strip().removesuffix(".")
    for old, new in (
        ("\\left", ""), ("\\right", ""), ("\\!", ""), ("\\,", " "), ("\\;", " "), ("\\:", " "), ("\\ ", " "), ("~", " "),
        ("\\$", ""), ("$", ""), ("\\%", ""), ("%", ""), ("^\\circ", ""), ("^{\\circ}", ""), ("dfrac", "frac"),
        ("tfrac", "frac"), ("{,}", ","), ("\\cdot", "*"), ("\\times", "*"), ("\\div", "/"), ("−", "-"), ("\\pi", "\\pi "),
        ("\\leq", "\\le"), ("\\geq", "\\ge"), ("\\displaystyle", ""), ("\\quad", " "),
    ):  # fmt: skip
        text = text.replace(old, new)
    text = _WRAPPED.sub(lambda found: found.group(1), text)
    if re.search(r"\d|\\", text):
        text = _UNIT.sub("", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return " ".join(text.split())


def parse(text: str) -> Tree | None:
    """Parse an answer into a tree; None if it is too long or outside the grammar."""
    text = plain(text)
    if not text or len(text) > MAX_CHARS:
        return None
    for sign in (
        "\\in ",
        "=",
    ):  # `x = 5` and `x \in [0, 1]` give their right side if the left side is a name
        left, found, right = text.rpartition(sign)
        if found and re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?", left.strip()):
            text = right
    try:
        parser = _LatexParser(_tokens(text))
        tree = parser.listed()
        return tree if parser.done() else None
    except (_NotUnderstoodError, RecursionError):
        return None


class _NotUnderstoodError(Exception):
    """The text is not an expression of this grammar."""


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    for match in _TOKEN.finditer(text.strip()):
        kind = str(match.lastgroup)
        found.append((kind, match.group(kind)))
    return found


class _LatexParser:
    """Recursive-descent parser over the tokens; nesting deeper than MAX_DEPTH is refused."""

    def __init__(self, tokens: list[tuple[str, str]]):
        self.tokens, self.at, self.depth = tokens, 0, 0

    def done(self) -> bool:
        return self.at == len(self.tokens)

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *values: str) -> str | None:
        if self.peek()[0] in ("sym", "cmd") and self.peek()[1] in values:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def need(self, *values: str) -> str:
        found = self.take(*values)
        if found is None:
            raise _NotUnderstoodError
        return found

    def listed(self) -> Tree:
        """Parse `a, b, c` at the top level as a set of answers; sets and intervals may be joined."""
        parts = [self.joined()]
        while self.take(","):
            parts.append(self.joined())
        return parts[0] if len(parts) == 1 else ["set", *parts]

    def joined(self) -> Tree:
        parts = [self.sum()]
        while self.take("cup"):
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else ["union", *parts]

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NotUnderstoodError
        tree = self.product()
        while sign := self.take("+", "-", "pm"):
            right = self.product()
            tree = ["set", ["+", tree, right], ["-", tree, right]] if sign == "pm" else [sign, tree, right]
        self.depth -= 1
        return tree

    def product(self) -> Tree:
        tree = self.signed()
        while True:
            if sign := self.take("*", "/"):
                tree = [sign, tree, self.signed()]
            elif self.starts_factor():
                tree = self.mixed(tree) or ["*", tree, self.power()]
            else:
                return tree

    def mixed(self, whole: Tree) -> Tree | None:
        """Parse a mixed number: `1\\frac{2}{3}` is one and two thirds."""
        if whole[0] != "num" or "/" in whole[1] or "." in whole[1] or self.peek() != ("cmd", "frac"):
            return None
        part = self.power()
        numbers = part[0] == "/" and part[1][0] == part[2][0] == "num"
        return ["+" if numbers else "*", whole, part]

    def starts_factor(self) -> bool:
        kind, value = self.peek()
        return (
            kind in ("num", "word")
            or (kind == "sym" and value in "({")
            or (kind == "cmd" and (value in FUNCTIONS or value in _CONSTANTS or value in ("frac", "binom")))
        )

    def signed(self) -> Tree:
        if sign := self.take("-", "+", "pm"):
            tree = self.signed()
            minus: Tree = ["*", ["num", "-1"], tree]
            return {"-": minus, "+": tree, "pm": ["set", tree, minus]}[sign]
        return self.power()

    def power(self) -> Tree:
        tree = self.atom()
        while self.take("!"):
            tree = ["factorial", tree]
        if self.take("^", "**"):
            return ["^", tree, self.signed_group()]
        return tree

    def signed_group(self) -> Tree:
        if self.take("-"):
            return ["*", ["num", "-1"], self.atom()]
        return self.power()

    def group(self) -> Tree:
        """Parse `{...}`, or one token as in `\\frac12`."""
        if self.take("{"):
            tree = self.sum()
            self.need("}")
            return tree
        kind, value = self.peek()
        if kind == "num" and len(value) > 1:
            self.tokens[self.at] = (kind, value[1:])
            return ["num", value[0]]
        return self.atom()

    def atom(self) -> Tree:
        kind, value = self.peek()
        self.at += 1
        if kind == "num":
            return ["num", value]
        if kind == "word":
            return self.word(value)
        if kind == "cmd":
            return self.command(value)
        if kind == "sym" and value in ("(", "[", "{", "|"):
            return self.bracketed(value)
        raise _NotUnderstoodError

    def word(self, value: str) -> Tree:
        if value in FUNCTIONS or value == "pi":
            return self.command(value)
        if len(value) > 1:  # `xy` is x times y; a longer word is a word
            if len(value) > 3:
                return ["word", value.casefold()]
            self.tokens[self.at : self.at] = [("word", each) for each in value[1:]]
        if self.take("_"):
            return ["var", f"{value[0]}_{self.group()[1]}"]
        return ["const", value[0]] if value[0] in ("i", "e") else ["var", value[0]]

    def command(self, value: str) -> Tree:
        if value == "frac":
            return ["/", self.group(), self.group()]
        if value == "sqrt" and self.take("["):
            index = self.sum()
            self.need("]")
            return ["^", self.group(), ["/", ["num", "1"], index]]
        if value == "log" and self.take("_"):
            base = self.group()
            return ["/", ["ln", self.argument()], ["ln", base]]
        if value in FUNCTIONS:
            exponent = self.signed_group() if self.take("^") else None  # \\sin^2 x
            tree: Tree = [{"log": "ln"}.get(value, value), self.argument()]
            return tree if exponent is None else ["^", tree, exponent]
        if value in _CONSTANTS:
            return ["const", _CONSTANTS[value]]
        if value == "{":
            return self.bracketed("\\{")
        if value == "begin":
            return self.matrix()
        if value in ("alpha", "beta", "gamma", "theta", "phi", "lambda", "mu", "omega", "emptyset"):
            return ["var", value]
        raise _NotUnderstoodError

    def argument(self) -> Tree:
        if self.peek() == ("sym", "{"):
            return self.group()
        return self.atom() if self.peek() == ("sym", "(") else self.power()

    def bracketed(self, opened: str) -> Tree:
        if opened == "|":
            tree = self.sum()
            self.need("|")
            return ["abs", tree]
        parts = [self.joined()]
        while self.take(","):
            parts.append(self.joined())
        closed = self.need(*{"(": (")", "]"), "[": ("]", ")"), "{": ("}",), "\\{": ("}",)}[opened])
        if opened == "\\{":
            return ["set", *parts]
        if len(parts) == 1 and opened in "({" and closed in ")}":
            return parts[0]
        if len(parts) == 2 and (opened, closed) != ("(", ")"):
            return ["interval", opened + closed, *parts]
        return ["tuple", *parts]

    def matrix(self) -> Tree:
        self.need("{") if self.peek()[0] != "word" else None
        kind, name = self.peek()
        if kind != "word" or not name.endswith("matrix"):
            raise _NotUnderstoodError
        self.at += 1
        self.need("}")
        parts = [self.sum()]
        while self.peek() != ("cmd", "end"):
            if not self.take("&"):
                self.need("\\")
                self.take("\\")
                parts.append(["num", "0"])  # a separator between rows, so that shapes count
            parts.append(self.sum())
        for _ in range(4):  # \end { name }
            self.at += 1
        return ["matrix", *parts]
