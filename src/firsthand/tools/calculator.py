"""A calculator: exact arithmetic on text, by a small parser of our own. Nothing is ever handed to Python's `eval`.

Whole numbers and decimals are exact (they are kept as fractions, so 0.1 + 0.2 is 0.3); what sqrt, log, exp, pi, e or a
broken exponent touches is a float. Left out: variables, complex numbers, units, comparison.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.tool import tool

Number = Fraction | float

MAX_CHARS = 500
MAX_DEPTH = 40
MAX_BITS = 665
"""About 200 decimal digits."""

_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")", "$": " ", "\n": " "})
_PLAIN = re.compile(r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?")
_SPACED = re.compile(r",\s|\s,")
"""Commas with blanks part numbers, so that one without, as in `max(1,200, 1,500)`, may group thousands."""
_SIGN = re.compile(r"\*\*|//|[-+*/%^(),]")
_REMAINDER = re.compile(r"\s%\s+[-+](?=[\d.(A-Za-z])")
"""`8 % -3`, spaced as an operator before a signed number; `8% - 3`, `8 % - 3` and `8%-3` take 3 from 8 percent."""
_WORD = re.compile(r"[A-Za-z_]\w*")
_EXAMPLE = "write numbers with + - * / ** and parentheses, such as (12 + 3) * 4"


class Token(NamedTuple):
    """A piece of the expression."""

    kind: str
    """`number`, `word`, `end`, or the sign itself."""
    text: str


@tool(effect="read", timeout_s=5.0, declares=Declaration(clean=True))
def calculator(expression: str) -> str:
    """The value of an arithmetic expression.

    Args:
        expression: Numbers with + - * / // % ** and parentheses, sqrt, abs, round, min, max, floor, ceil, log, exp, pi, e.
    """
    return show(evaluate(expression))


def evaluate(expression: str) -> Number:
    """The value of an expression; ToolError with a sentence for the model where there is none."""
    if len(expression) > MAX_CHARS:
        raise ToolError(
            f"the expression has {len(expression)} characters: give at most {MAX_CHARS}, one step at a time"
        )
    parser = _Parser(_tokens(expression.translate(_SPELLINGS).rstrip(" =?").lstrip()))
    try:
        return parser.whole()
    except ZeroDivisionError:
        raise ToolError("this divides by zero: check the expression") from None
    except OverflowError:
        raise ToolError(_too_big()) from None
    except ValueError as error:
        raise ToolError(f"this has no real value ({error}): check the expression") from None


def show(value: Number) -> str:
    """A number in digits: whole and short decimal numbers exactly, others to 12 significant digits."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ToolError(_too_big())
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10**12
    if scaled.denominator == 1:
        digits = f"{abs(scaled.numerator):013d}"
        return f"{'-' if value < 0 else ''}{digits[:-12]}.{digits[-12:].rstrip('0')}"
    return f"{float(value):.12g}"


class _Parser:
    """Recursive descent: sum > product > sign > power > percent > atom. Every value is checked as it is made."""

    def __init__(self, tokens: Sequence[Token]):
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self, *kinds: str) -> Token | None:
        """The next token if it is one of these, or None."""
        token = self.next
        if token.kind not in kinds:
            return None
        self.at += 1
        return token

    def whole(self) -> Number:
        value = self.sum()
        if self.next.kind != "end":
            raise self.unexpected("an operator")
        return value

    def sum(self) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ToolError(f"the expression is nested more than {MAX_DEPTH} deep: give it one step at a time")
        value = self.product()
        while operator := self.take("+", "-"):
            value = _checked(_both(value, self.product(), _OPERATORS[operator.kind]))
        self.depth -= 1
        return value

    def product(self) -> Number:
        value = self.sign()
        while operator := self.take("*", "/", "//", "%", "mod", "of"):
            value = _checked(_both(value, self.sign(), _OPERATORS[operator.kind]))
        return value

    def sign(self) -> Number:
        negative = False
        while sign := self.take("+", "-"):
            negative ^= sign.kind == "-"
        value = self.power()
        return -value if negative else value

    def power(self) -> Number:
        base = self.percent()
        if not self.take("**", "^"):
            return base
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ToolError(f"the expression is nested more than {MAX_DEPTH} deep: give it one step at a time")
        exponent = self.sign()
        self.depth -= 1
        return _checked(_power(base, exponent))

    def percent(self) -> Number:
        """`15%` is 0.15. Before a number, a name or a parenthesis `%` is the remainder, and belongs to `product`."""
        value = self.atom()
        while self.next.kind == "%" and self.tokens[self.at + 1].kind not in ("number", "word", "("):
            self.at += 1
            value = value / 100
        return value

    def atom(self) -> Number:
        if number := self.take("number"):
            return _literal(number.text)
        if word := self.take("word"):
            return self.named(word.text)
        if self.take("("):
            value = self.sum()
            self.close()
            return value
        raise self.unexpected("a number")

    def named(self, name: str) -> Number:
        if name in ("pi", "e"):
            return getattr(math, name)  # type: ignore[no-any-return]
        if name not in _FUNCTIONS:
            raise ToolError(f"{name[:40]!r} is unknown here: {_EXAMPLE}; or use {', '.join(_FUNCTIONS)}, pi, e")
        if not self.take("("):
            raise self.unexpected(f"( after {name}")
        values = [self.sum()]
        while self.take(","):
            values.append(self.sum())
        self.close()
        function, least, most = _FUNCTIONS[name]
        if not least <= len(values) <= most:
            raise ToolError(f"{name} was given {len(values)} numbers: it takes {least}" + " or more" * (most > least))
        return _checked(function(*values))

    def close(self) -> None:
        if not self.take(")"):
            raise self.unexpected(")")

    def unexpected(self, wanted: str) -> ToolError:
        found = "the end" if self.next.kind == "end" else repr(self.next.text)
        return ToolError(f"{wanted} was expected, but {found} came: {_EXAMPLE}")


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    calls: list[str] = []  # for each open parenthesis, the function whose arguments it holds, or nothing
    is_spaced = _SPACED.search(text) is not None
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        # Inside a function's parentheses a comma parts arguments; elsewhere it may group thousands.
        grouped = _GROUPED.match(text, at)
        if grouped and calls and calls[-1]:
            if is_spaced or ",0" in grouped.group():
                raise ToolError(
                    f"{grouped.group():.40} in {calls[-1]}(...) may be one number or several: write one without commas, and "
                    "several with a blank after each comma"
                )
            grouped = None
        if number := grouped or _PLAIN.match(text, at):
            tokens.append(Token("number", number.group()))
            at = number.end()
        elif word := _WORD.match(text, at):
            name = word.group().lower()
            tokens.append(Token({"x": "*", "of": "of"}.get(name, "word"), name))
            at = word.end()
        elif sign := _SIGN.match(text, at):
            if sign.group() == "(":
                calls.append(tokens[-1].text if tokens and tokens[-1].kind == "word" else "")
            elif sign.group() == ")" and calls:
                calls.pop()
            tokens.append(Token("mod" if _REMAINDER.match(text, at - 1) else sign.group(), sign.group()))
            at = sign.end()
        else:
            raise ToolError(f"{text[at]!r} means nothing here: {_EXAMPLE}")
    if not tokens:
        raise ToolError(f"the expression is empty: {_EXAMPLE}")
    return [*tokens, Token("end", ""), Token("end", "")]


def _literal(text: str) -> Number:
    mantissa, _, exponent = text.replace(",", "").lower().partition("e")
    if len(mantissa) > 200 or (exponent and (len(exponent) > 5 or abs(int(exponent)) > 200)):
        raise ToolError(_too_big())
    return _checked(Fraction(mantissa + (f"e{exponent}" if exponent else "")))


def _both(left: Number, right: Number, function: Callable[[Number, Number], Number]) -> Number:
    if isinstance(left, float) or isinstance(right, float):
        return function(float(left), float(right))
    return function(left, right)


def _power(base: Number, exponent: Number) -> Number:
    exact = isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1
    if not exact:
        result = float(base) ** float(exponent)
        if isinstance(result, complex):
            raise ValueError("a root of a negative number")
        return float(result)
    assert isinstance(base, Fraction) and isinstance(exponent, Fraction)
    if abs(base) == 1 or not base:
        return base ** int(exponent % 2 if base else exponent)
    bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length()) - 1
    if abs(exponent) * max(bits, 1) > 2 * MAX_BITS:
        raise ToolError(_too_big())
    return base ** int(exponent)


def _checked(value: Number) -> Number:
    """The value, if it is small enough: a fraction with too many digits becomes a float, a huge number is refused."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ToolError(_too_big())
        return value
    if abs(value).numerator.bit_length() - value.denominator.bit_length() > MAX_BITS:
        raise ToolError(_too_big())
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        return float(value) if value.denominator != 1 else _refuse()
    return value


def _refuse() -> Number:
    raise ToolError(_too_big())


def _too_big() -> str:
    return "the numbers are too big: results may have at most 200 digits"


def _round(value: Number, digits: Number = Fraction(0)) -> Number:
    if digits != int(digits) or not -100 <= digits <= 100:
        raise ToolError(f"round was asked for {float(digits):g} digits: give a whole number from -100 to 100")
    return Fraction(round(Fraction(value), int(digits)))


def _root(value: Number) -> Number:
    if value < 0:
        raise ValueError("the square root of a negative number")
    if isinstance(value, Fraction):
        exact = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
        if exact * exact == value:
            return exact
    return math.sqrt(value)


def _settled(value: Number) -> Number:
    """The value; a float that only rounding keeps from a whole number is that: log(1000, 10) is 2.9999999999999996."""
    if not isinstance(value, float):
        return value
    whole = round(value)
    return Fraction(whole) if abs(value - whole) <= min(16 * math.ulp(value), 1e-6) else value


def _remainder(value: Number, by: Number) -> Number:
    """The remainder; zero where only rounding keeps the quotient from a whole number."""
    quotient = value / by
    if isinstance(quotient, float) and abs(quotient) < 2**48 and isinstance(_settled(quotient), Fraction):
        return Fraction(0)
    return value % by


def _log(value: Number, base: Number | None = None) -> Number:
    return math.log(value) if base is None else math.log(value, base)


_OPERATORS: dict[str, Callable[[Number, Number], Number]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "of": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: Fraction(math.floor(_settled(a / b))),
    "%": lambda a, b: _remainder(a, b),
    "mod": lambda a, b: _remainder(a, b),
}
_FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {
    "sqrt": (_root, 1, 1),
    "abs": (abs, 1, 1),
    "round": (_round, 1, 2),
    "min": (lambda *values: min(values), 1, 100),
    "max": (lambda *values: max(values), 1, 100),
    "floor": (lambda value: Fraction(math.floor(_settled(value))), 1, 1),
    "ceil": (lambda value: Fraction(math.ceil(_settled(value))), 1, 1),
    "log": (_log, 1, 2),
    "exp": (math.exp, 1, 1),
}
