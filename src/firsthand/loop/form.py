"""Fields of a form that a program asks the user to fill in: flat values of JSON, each described by a small schema.

MCP's elicitation and A2A's input requests give such forms. A schema is untrusted input: what is no field is left out.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from itertools import islice
from typing import Any

from firsthand.errors import ConfigError
from firsthand.message import Json

MAX_FIELDS = 24
MAX_ANSWER = 4_000
"""The most characters of an answer."""
MAX_TITLE = 200
"""The most characters of a choice's title."""
_TOO_LONG = f"it has more than {MAX_ANSWER:,} characters"
_BLANK = re.compile(r"[^\S ]|(?<= ) ")
"""Blanks that are not told from a single space."""
_SAFE = 1 << 53
"""Whole numbers from here on may be the same float as another."""
_NUMBER = {
    "integer": re.compile(r"[+-]?[0-9]{1,400}"),
    "number": re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})?"),
}
"""Numbers that are typed, or sent as text."""
_EXAMPLE = {"integer": "1000", "number": "1.5"}


@dataclass(frozen=True)
class FormField:
    """One field: its name, its kind, and the values that it may have."""

    name: str
    kind: str
    """`string`, `integer`, `number`, `boolean`, or `array` for several of `choices`."""
    title: str = ""
    required: bool = False
    choices: tuple[str, ...] = ()
    default: Any = None
    least: float | None = None
    """The smallest number, the fewest characters, or the fewest choices."""
    most: float | None = None
    titles: tuple[str, ...] = ()
    """Display titles of the choices, in the same order; empty if the form has none."""

    @property
    def is_numbered(self) -> bool:
        """True where a typed choice may be read as another: it holds a comma, or blanks that are not seen."""
        return any("," in each or not each or each != " ".join(each.split()) for each in self.choices)

    def shown(self, *, typed: bool = False) -> str:
        """The field as a person reads it who answers in JSON, or who types the answer at a terminal."""
        hint = {"boolean": "yes or no", "array": "several, with commas between"}.get(self.kind, self.kind)
        choices: Sequence[str] = self.choices
        if self.is_numbered:
            choices = [_BLANK.sub(_escape, json.dumps(each, ensure_ascii=False)) for each in choices]
            if typed:
                hint = "the number of one" if self.kind == "string" else "the numbers of several, with commas between"
                choices = [f"{number} {each}" for number, each in enumerate(choices, 1)]
        if self.titles:
            told = zip(choices, self.titles, strict=True)
            choices = [f"{each} ({title})" if title else each for each, title in told]
        hint = f"{hint}: {', '.join(choices)}" if choices else hint
        default = "" if self.default is None else f"; empty for {self.default!r}"
        return f"{self.title or self.name} ({hint}{default}{'' if self.required else '; may be left empty'})"

    def parse(self, text: str) -> Any:
        """The value of a typed text; the default, or None, of an empty one. ValueError says what is wrong."""
        text = text.strip()
        if len(text) > MAX_ANSWER:
            raise ValueError(_TOO_LONG)
        if not text:
            if self.default is None and self.required:
                raise ValueError("it must be given")
            return self.default
        if self.kind == "boolean":
            if text.lower() not in ("yes", "y", "true", "no", "n", "false"):
                raise ValueError(f"{text!r} is neither yes nor no")
            return text.lower() in ("yes", "y", "true")
        if self.is_numbered:
            chosen = [self._numbered(each.strip()) for each in text.split(",") if each.strip()]
            if self.kind == "string" and len(chosen) != 1:
                raise ValueError("the number of one choice was expected")
            return self._checked(chosen if self.kind == "array" else chosen[0])
        if self.kind == "array":
            return self._checked([each.strip() for each in text.split(",") if each.strip()])
        if (grammar := _NUMBER.get(self.kind)) is not None:
            digits = "".join(str(unicodedata.decimal(each, each)) for each in text)
            if grammar.fullmatch(digits) is None:
                raise ValueError(f"{text!r:.100} is no {self.kind}: write it in digits, such as {_EXAMPLE[self.kind]}")
            return self._checked(_number(digits))
        return self._checked(text)

    def check(self, value: Any) -> Any:
        """The value of an answer in JSON. ValueError says what is wrong."""
        if isinstance(value, str) and (digits := _NUMBER.get(self.kind)) is not None and digits.fullmatch(value):
            value = _number(value)
        if self.kind == "integer" and isinstance(value, float) and value.is_integer():
            if abs(value) >= _SAFE:
                raise ValueError(f"{value:.0f} may have lost digits on the way: send it as text")
            value = int(value)  # some formats of the wire know no whole numbers
        if not isinstance(value, _TYPES[self.kind]) or (isinstance(value, bool) and self.kind != "boolean"):
            raise ValueError(f"{str(value)[:100]!r} is no {self.kind}")
        texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
        if not all(isinstance(each, str) for each in texts):
            raise ValueError(f"{str(value)[:100]} is no list of texts")
        if sum(map(len, texts)) > MAX_ANSWER:
            raise ValueError(_TOO_LONG)
        return value if self.kind == "boolean" else self._checked(value)

    def schema(self) -> Json:
        """The field as a schema, from which `form_fields` reads it again."""
        choices: Json = {"enum": list(self.choices)} if self.choices else {}
        if self.titles:
            titled = zip(self.choices, self.titles, strict=True)
            key = "anyOf" if self.kind == "array" else "oneOf"
            choices = {key: [{"const": each, **({"title": title} if title else {})} for each, title in titled]}
        items: Json = {"items": {"type": "string"} | choices} if self.kind == "array" else choices
        low, high = _BOUNDS.get(self.kind, ("minimum", "maximum"))
        told = {"description": self.title or None, low: self.least, high: self.most, "default": self.default}
        return {"type": self.kind} | items | {key: value for key, value in told.items() if value is not None}

    def _numbered(self, text: str) -> str:
        if not text.isascii() or not text.isdecimal() or len(text) > 6 or not 1 <= int(text) <= len(self.choices):
            raise ValueError(
                f"{text!r:.100} is no number of a choice: one from 1 to {len(self.choices):,} was expected"
            )
        return self.choices[int(text) - 1]

    def _checked(self, value: Any) -> Any:
        given = value if isinstance(value, list) else [value]
        if self.choices and (bad := [each for each in given if each not in self.choices]):
            raise ValueError(f"{bad[0]!r:.100} is none of {', '.join(self.choices)[:1000]}")
        size = value if isinstance(value, int | float) else len(value)
        if not _is_finite(size):
            raise ValueError(f"{value if isinstance(value, float) else 'it'} is no number that can be kept")
        if self.least is not None and size < self.least:
            raise ValueError(f"{self.least:g} or more was expected")
        if self.most is not None and size > self.most:
            raise ValueError(f"{self.most:g} or less was expected")
        return value


def form_fields(schema: Json) -> tuple[FormField, ...]:
    """The fields of a form's schema, in its order; at most `MAX_FIELDS`."""
    properties = schema.get("properties")
    required = schema.get("required")
    names = {each for each in required if isinstance(each, str)} if isinstance(required, list) else set()
    found = (
        _field(str(name), each, name in names)
        for name, each in (properties if isinstance(properties, dict) else {}).items()
        if isinstance(each, dict)
    )
    return tuple(islice((each for each in found if each is not None), MAX_FIELDS))


def form_schema(fields: Sequence[FormField]) -> Json:
    """The schema of a form, for another program to show."""
    needed = [each.name for each in fields if each.required]
    body: Json = {"type": "object", "properties": {each.name: each.schema() for each in fields}}
    return body | ({"required": needed} if needed else {})


def checked_answers(fields: Sequence[FormField], answers: Json) -> Json:
    """The answers to a form, checked, with the defaults of what was left out. ConfigError names the field that is wrong."""
    known = {each.name: each for each in fields}
    if unknown := [name for name in answers if name not in known]:
        raise ConfigError(f"the form has no field {unknown[0][:100]!r}: it has {', '.join(known)[:1000] or 'none'}")
    found: Json = {}
    for each in fields:
        value = answers.get(each.name)
        if value is None:
            if each.required and each.default is None:
                raise ConfigError(f"the form needs {each.name[:100]} ({each.shown()[:1000]}), and no answer gives it")
            value = each.default
        if value is not None:
            try:
                found[each.name] = each.check(value)
            except ValueError as error:
                raise ConfigError(f"the answer to {each.name[:100]} does not fit: {error}") from None
    return found


def fields_to_json(fields: Sequence[FormField]) -> list[Json]:
    """The fields as data."""
    return [asdict(each) for each in fields]


def fields_from_json(body: Sequence[Json]) -> tuple[FormField, ...]:
    """The fields that `fields_to_json` gave."""
    lists = ("choices", "titles")
    return tuple(FormField(**each | {name: tuple(each.get(name, ())) for name in lists}) for each in body)


def _field(name: str, schema: Json, required: bool) -> FormField | None:
    schema = _without_null(schema)
    kind = schema.get("type")
    if kind not in ("string", "integer", "number", "boolean", "array"):
        return None
    inner = schema.get("items") if kind == "array" else schema
    least, most = (schema.get(key) for key in _BOUNDS.get(kind, ("minimum", "maximum")))
    default = schema.get("default")
    title = schema.get("description") or schema.get("title")
    is_chosen = isinstance(inner, dict) and kind in ("string", "array")  # numbers are compared with no choice
    choices, titles = _choices(inner) if isinstance(inner, dict) and is_chosen else ((), ())
    made = FormField(
        name,
        kind,
        title if isinstance(title, str) else "",
        required,
        choices,
        None,
        least if _is_finite(least) else None,
        most if _is_finite(most) else None,
        titles,
    )
    try:
        return made if default is None else replace(made, default=made.check(default))
    except ValueError:  # a default that is no answer is none
        return made


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _number(text: str) -> int | float:
    """The number that a text states. ValueError where a float would change digits before the point."""
    if _NUMBER["integer"].fullmatch(text):
        return int(text)
    value = float(text)
    if math.isfinite(value) and abs(value) >= _SAFE and Decimal(text) != Decimal(repr(value)):
        raise ValueError(f"{text:.100} has more digits than can be kept with a fraction or an exponent")
    return value


def _is_finite(value: Any) -> bool:
    """True for a number that a float can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


_BOUNDS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
}


def _without_null(schema: Json) -> Json:
    """The schema of a field that may be null, as Pydantic writes `int | None`, without the null."""
    kinds = schema.get("type")
    if isinstance(kinds, list) and len(left := [each for each in kinds if each != "null"]) == 1:
        return {**schema, "type": left[0]}
    for key in ("anyOf", "oneOf"):
        if kinds is None and isinstance(options := schema.get(key), list):
            real = [each for each in options if isinstance(each, dict) and each.get("type") != "null"]
            if len(real) == 1:
                return {**real[0], **{name: value for name, value in schema.items() if name != key}}
    return schema


def _choices(schema: Json) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The values of `enum`, `const`, or the constants of `oneOf` and `anyOf`, and their titles if any has one."""
    listed: list[tuple[str, Any]] = []
    if isinstance(values := schema.get("enum"), list):
        names = schema.get("enumNames")
        names = names if isinstance(names, list) and len(names) == len(values) else [""] * len(values)
        listed = [(each, name) for each, name in zip(values, names, strict=True) if isinstance(each, str)]
    else:
        options = next((each for key in ("oneOf", "anyOf") if isinstance(each := schema.get(key), list)), [])
        options = [{"const": schema["const"]}] if "const" in schema else options
        constants = [each for each in options if isinstance(each, dict) and each.get("const") is not None]
        listed = [(str(each["const"]), each.get("title")) for each in constants]
    titles = tuple(_title(each, title) for each, title in listed)
    return tuple(each for each, _ in listed), titles if any(titles) else ()


def _title(choice: str, title: Any) -> str:
    """The title of a choice on one line; empty if it says no more than the choice."""
    text = " ".join(title[:MAX_TITLE].split()) if isinstance(title, str) else ""
    return "" if text == choice else text
