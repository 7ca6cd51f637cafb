"""Parses a typed filter such as `score<0.5 has:error model:llama -agent:cot "two words"` into terms.

Terms are separated by blanks and all must hold; a minus before a term negates it. A quotation mark within a quoted value is
written twice. What a field means is up to the list that is filtered; `fields` says which there are, so that an unknown one
is an error that names the near ones.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from firsthand.errors import ConfigError, nearest
from firsthand.runs.database import folded, plain

Kind = Literal["text", "number", "flag"]
Operator = Literal[":", "=", "<", "<=", ">", ">="]
MAX_CHARS = 2000
MAX_TERMS = 40
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_TERM = re.compile(
    r"(?P<minus>-?)(?:(?P<field>[A-Za-z_][\w.-]*)(?P<operator><=|>=|[:=<>]))?"
    r'(?P<value>"[^"]*(?:""[^"]*)*"|[^\s"]*)(?P<rest>[^\s]*)'
)


@dataclass(frozen=True)
class Term:
    """One condition: `field operator value`. The field is empty for a bare word."""

    field: str
    operator: Operator
    value: str
    is_negated: bool = False

    @property
    def number(self) -> float:
        """The value of a condition on a number."""
        return float(self.value)


def parse_filter(text: str, fields: Mapping[str, Kind], flags: Mapping[str, tuple[str, ...]]) -> tuple[Term, ...]:
    """The terms of a filter.

    Args:
        fields: The fields that there are, each with its kind. A name that ends with `.` takes any ending: `score.` is
            `score.exact` too.
        flags: The values that each flag takes, such as has -> (error, score).

    Raises:
        ConfigError: What came is no filter, says which field or value is not known, or is too long.
    """
    if len(text) > MAX_CHARS:
        raise ConfigError(f"the filter has {len(text):,} characters: at most {MAX_CHARS:,} are read")
    terms: list[Term] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        found = _TERM.match(text, position)
        if found is None or found["rest"] or found.end() == position:
            raise ConfigError(
                f"the filter is not understood from {text[position : position + 30]!r} on: write FIELD:VALUE"
            )
        position = found.end()
        terms.append(_checked(found, fields, flags))
        if len(terms) > MAX_TERMS:
            raise ConfigError(f"the filter has more than {MAX_TERMS} terms")
    return tuple(terms)


def _checked(found: re.Match[str], fields: Mapping[str, Kind], flags: Mapping[str, tuple[str, ...]]) -> Term:
    value, name = found["value"], found["field"] or ""
    if value.startswith('"'):
        value = value[1:-1].replace('""', '"')
    operator = cast(Operator, found["operator"] or ":")
    term = Term(name, operator, value, found["minus"] == "-")
    if not name:
        if not value:
            raise ConfigError(f"the filter has a {found[0]!r} with nothing behind it")
        if found["value"][0] in ":=<>":
            raise ConfigError(
                f"the filter says {found[0]!r} with no field before it: write score<0.5 without blanks, or quote the word"
            )
        return term
    if not value:
        raise ConfigError(f"the filter says {found[0]!r} without a value")
    if name in flags:
        if value not in flags[name] or operator not in (":", "="):
            raise ConfigError(
                f"the filter says {found[0]!r}: {name} takes {', '.join(flags[name])}, as in {name}:{flags[name][0]}"
            )
        return term
    kind = fields.get(name) or next(
        (each for key, each in fields.items() if key.endswith(".") and name.startswith(key)), None
    )
    if kind is None:
        known = [*(key for key in fields if not key.endswith(".")), *flags]
        close = nearest(name, known)
        hint = f"; did you mean {close!r}?" if close else ""
        raise ConfigError(f"the filter asks for {name[:40]!r}, which is no field{hint}; there are {', '.join(known)}")
    if kind == "number":
        _check_number(found[0], value)
    elif operator not in (":", "="):
        raise ConfigError(f"the filter says {found[0]!r}: {name} is text, which takes {name}:WORD or {name}=WORD")
    return term


def _check_number(said: str, value: str) -> None:
    try:
        is_number = math.isfinite(float(value))
    except ValueError:
        is_number = False
    if not is_number:
        raise ConfigError(f"the filter says {said!r}: {value!r} is not a number")


def written_term(field: str, value: str, operator: Operator = "=") -> str:
    """The text of a condition that `parse_filter` reads back, its value quoted where it needs to be."""
    is_plain = re.fullmatch(r'[^\s"]+', value)
    return f"{field}{operator}{value}" if is_plain else '{}{}"{}"'.format(field, operator, value.replace('"', '""'))


def holds(term: Term, value: object) -> bool:
    """True if a value fulfils a term: text by a part of it, whatever the case (`=` by all of it); numbers by comparison.

    The case of texts is that of `without_case`, so that lists filtered in Python and in SQL find the same.
    None fulfils no comparison, negated or not.
    """
    if value is None:
        return False
    if isinstance(value, int | float):
        return _compares(term.operator, float(value), term.number) != term.is_negated
    lowered = str.casefold if not term.value.isascii() else _ascii_lower
    texts = [lowered(str(each)) for each in (value if isinstance(value, list | tuple) else [value])]
    word = lowered(term.value)
    return any(word == each if term.operator == "=" else word in each for each in texts) != term.is_negated


def _ascii_lower(text: str) -> str:
    """SQLite's `lower`."""
    return text.translate(_ASCII_LOWER)


def _compares(operator: Operator, value: float, bound: float) -> bool:
    return {
        ":": value == bound,
        "=": value == bound,
        "<": value < bound,
        "<=": value <= bound,
        ">": value > bound,
        ">=": value >= bound,
    }[operator]


def without_case(column: str, word: str) -> tuple[str, str]:
    """A column in SQL and a word, both without their case; in a Run's or TraceStore's database, which has `folded`.

    A word of ASCII is compared by SQLite's own `lower`, which is faster and knows the letters of ASCII alone: `straße`
    finds STRASSE, and `strasse` does not find Straße.
    """
    return (f"lower({column})", word.lower()) if word.isascii() else (f"folded({column})", folded(plain(word)))
