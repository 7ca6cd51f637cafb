"""Splits mathematical answers into tokens, and reads answers in words alone."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, NamedTuple

from firsthand.patterns.parts.value_words import MULTIPLES, has_words_of_value

Tree = list[Any]
MAX_EXPONENT = 400

TRIGONOMETRY = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
FUNCTIONS = TRIGONOMETRY | {
    "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "lg", "exp", "sqrt", "abs",
}  # fmt: skip
_NUMBER_WORDS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip
BASE_WORDS = {word: digits for word, digits in _NUMBER_WORDS.items() if word not in ("zero", "one", "eleven")}
"""Names of bases, with their digits."""
_NOTHING = frozenset({"no solution", "no solutions", "no real solution", "no real solutions", "none", "empty set"})
_EVERYTHING = frozenset({"all real numbers", "all reals", "the real numbers", "real numbers", "any real number"})
_SHORT_WORD = re.compile("no|yes|on|off|odd|not|all|any|six|ten|two|one|red|old|new|low|top|up|in|out|sun|mon")
_TOKEN = re.compile(
    r"\s*(?:\\text\{(?P<text>[^{}]*)\}"
    r"|(?P<based>\((?=[0-9A-F]*\d)[0-9A-F]+\)\s*_|(?=[0-9A-Fa-f]*\d)[0-9A-F][0-9A-Fa-f]*(?:\.[0-9A-F]+)?\s*_)"
    r"(?P<base>\{?\s*(?:\\text\{)?\s*(?:base)?\s*\}?\s*(?:\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)\}{0,2})"
    r"|(?P<num>(?:\d+(?:\.\d*)?|\.\d+)"
    r"(?:\s*\\(?:overline|bar|dot)\s*(?:\{\d+\}|\d)|(?<=\d\d)\s*(?:\\[lc]?dots(?![A-Za-z])|\.\.\.)|[eE][-+]?\d+(?![\d.]))?)"
    r"|\\(?P<cmd>[A-Za-z]+|[{}|\\])|(?P<word>[A-Za-z]+)|(?P<sym>\*\*|.))",
    re.DOTALL,
)
_SAID_BASE = re.compile(  # `52 base 8`, `52 (base eight)`, `52 \text{base 8}` unwrapped
    r"(?<![\w.])(\d[0-9A-F]{0,99}(?:\.[0-9A-F]{1,99})?) ?\(?(?:\\text\{)? ?(?:in )?base\}? ?"
    rf"(\d{{1,2}}|{'|'.join(BASE_WORDS)})\b\)?",
    re.IGNORECASE,
)


class LatexToken(NamedTuple):
    """A piece of the text; `spaced` if white space stands before it."""

    kind: str
    value: str
    spaced: bool


class NotUnderstoodError(Exception):
    """The text is not an expression of this grammar."""


def words_alone(text: str) -> Tree | None:
    """Return the tree of an answer in words alone, such as `\\text{Evelyn}`, `no solution`, `(C)`; None if it is not one."""
    inner = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    key = " ".join(re.sub(r"[^\w' ]", " ", inner).split())
    if not re.fullmatch(r"[A-Za-z' .,!()-]+", inner) or not key or inner.lstrip().startswith("-"):
        return None
    if re.fullmatch(r"\W*[A-Z](?:\s*,\s*[A-Z])+\W*", inner):  # the letters of several choices
        return ["list", *(["var", each] for each in key.split())]
    first = re.split(r"[ ']", key.casefold())
    wrapped = inner != text
    if not wrapped and not any(len(each) > 3 or _SHORT_WORD.fullmatch(each) for each in first):
        return ["var", key] if re.fullmatch(r"\([A-Z]\)", inner.strip()) else None
    if not wrapped and ({*first} & FUNCTIONS or "," in inner or {*first} & {"and", "or", "infinity"}):
        return None
    if wrapped and len(key) > 1 and {*first} & {"and", "or"} and len(first) > 2:
        return None
    lower = key.casefold()
    if lower in _NOTHING or lower in _EVERYTHING:
        return ["set"] if lower in _NOTHING else ["reals"]
    if lower in _NUMBER_WORDS:
        return ["num", _NUMBER_WORDS[lower]]
    return ["const", "oo"] if lower == "infinity" else ["word", key if len(key) == 1 else lower]


def tokens(text: str) -> list[LatexToken]:
    found = []
    for match in _TOKEN.finditer(_SAID_BASE.sub(r"\1_{\2}", text.strip())):
        spaced = match.group()[:1].isspace()
        if match.group("based") is not None:
            digits, base = match.group("based").strip("()_ "), re.sub(r".*?(\w+)\}*$", r"\1", match.group("base"))
            found.append(LatexToken("based", f"{digits.upper()}_{_NUMBER_WORDS.get(base, base)}", spaced))
            continue
        kind = str(match.lastgroup)
        value = match.group(kind)
        if kind in ("text", "word") and value.strip(" ,").casefold() in ("or", "and"):
            kind, value = "sym", {"or": "|or|", "and": "|and|"}[value.strip(" ,").casefold()]
        if kind == "text" or (kind == "word" and len(value) > 3 and value not in FUNCTIONS | {"infinity"}):
            found += _words(kind, value, spaced)
        else:
            found.append(LatexToken(kind, value, spaced))
    return found


def _words(kind: str, value: str, spaced: bool) -> list[LatexToken]:
    """Return words as tokens, `million` as times 1,000,000; other words that change a value are not understood."""
    words, found = value.split(), list[LatexToken]()
    while words and words[0].casefold() in MULTIPLES:
        found += [LatexToken("sym", "*", True), LatexToken("num", str(MULTIPLES[words.pop(0).casefold()]), True)]
    rest = " ".join(words) if found else value
    if has_words_of_value(re.findall(r"[^\W\d_]+", rest)):
        raise NotUnderstoodError
    return [*found, LatexToken(kind, rest, spaced)] if rest else found


def number(text: str) -> str:
    """Return a number as Fraction reads it: `0.1\\overline{6}`, `0.333...` and `1.5e3` are exact."""
    repeating = re.fullmatch(r"(\d*)\.?(\d*)\s*\\(?:overline|bar|dot)\s*\{?(\d+)\}?", text)
    if dotted := re.fullmatch(r"(\d*)\.(\d+)\s*(?:\\[lc]?dots|\.\.\.)", text):
        repeating = re.fullmatch(r"(\d*)\.(\d*?)((\d+?)\4*)(?<=\d\d)", dotted[0][: dotted.end(2)])
        period = re.fullmatch(r"(\d*?)(\d{1,12}?)\2+", dotted[2])
        if period is None or (len(dotted[2]) - len(period[1]) < 3 and len(period[2]) == 1):
            raise NotUnderstoodError
        repeating = re.fullmatch(r"(\d*)\.(\d*)\|(\d+)", f"{dotted[1]}.{period[1]}|{period[2]}")
    if repeating is not None:
        whole, fixed, period_digits = (each or "" for each in repeating.groups())
        if "." not in text:
            raise NotUnderstoodError
        nines = 10 ** len(period_digits) - 1
        return str(Fraction(int((whole + fixed) or 0) * nines + int(period_digits), nines * 10 ** len(fixed)))
    exponent = re.split("[eE]", text)[1:]
    if exponent and (len(exponent[0]) > 4 or abs(int(exponent[0])) > MAX_EXPONENT):
        raise NotUnderstoodError
    return text.rstrip(".") if not text.startswith(".") else "0" + text
