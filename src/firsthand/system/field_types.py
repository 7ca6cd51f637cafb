"""Checks a dataclass's values against its annotations, for settings that callers write in Python.

Ranges are checked by the dataclass itself, once the types are known.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from numbers import Integral, Real
from typing import Any

from firsthand.errors import ConfigError

MANY = 64
"""Sequences this long are shown by their length alone."""


def check_kinds(settings: Any, *, whole: bool = True) -> None:
    """Raise ConfigError for the first field of a dataclass whose value does not fit its annotation.

    Annotations may be numbers, bool, str, Literal, tuples (lists are accepted), classes, and unions of these. With
    `whole=False` a field for an int accepts any number.
    """
    cls: Any = type(settings)
    for name, kind in _kinds(cls).items():
        value = getattr(settings, name)
        if not _fits(value, kind, whole):
            raise ConfigError(f"{name} is {shown(value)}: give {_words(kind, whole)}")


def shown(value: object) -> str:
    """A value for an error message, shortened; Python refuses to print very long integers."""
    if isinstance(value, tuple | list) and len(value) >= MANY:
        return f"{len(value)} values"
    if isinstance(value, int) and abs(value) >= 10**100:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


@cache
def _kinds(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _fits(value: Any, kind: Any, whole: bool) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(value, each, whole) for each in typing.get_args(kind))
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return isinstance(value, str) and value in inside
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if inside[1:] == (...,):
            if set(map(type, value)) <= {inside[0]}:  # as it nearly always is, however long
                return True
            return all(_fits(each, inside[0], whole) for each in value)
        return len(value) == len(inside) and all(map(_fits, value, inside, (whole,) * len(inside)))
    if kind is int or kind is float:
        return isinstance(value, Integral if kind is int and whole else Real) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: Any, whole: bool) -> str:
    """A type in words, for an error message."""
    if isinstance(kind, types.UnionType):
        return " or ".join(_words(each, whole) for each in typing.get_args(kind))
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return f"one of {', '.join(inside)}"
    if origin is tuple:
        if inside[1:] == (...,):
            return f"a tuple, each {_words(inside[0], whole)}"
        return f"({', '.join(_words(each, whole) for each in inside)})"
    names = {int: "a whole number" if whole else "a number", float: "a number", str: "a text", bool: "True or False"}
    return names.get(kind, "None" if kind is types.NoneType else f"a {kind.__name__}")
