"""Errors of an answer, told to the tests' process as plain values. Standard library only; for `checker.py`.

Python's own errors and those of its standard library are raised again as what they are, with their arguments. An error class
of the answer's is stood in for by one of its name, with stand-ins of its bases, so that the tests' `except` finds it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from firsthand.sandbox.programs.passed_values import Values, decode, no_iterator
else:  # in the sandbox
    from passed_values import Values, decode, no_iterator

_MOST_TEXT, _MOST_TOLD, _MOST_CAUSES = 500, 1 << 16, 3
_KEPT_APART = ((OSError, "filename"), (ImportError, "name"), (NameError, "name"), (AttributeError, "name"))
"""Attributes of Python's errors that are neither arguments nor in their `__dict__`."""
_MODULES = frozenset({
    "builtins", "json.decoder", "decimal", "re", "re._constants", "sre_constants", "struct", "zlib", "binascii", "csv",
    "_csv", "configparser", "ipaddress", "statistics", "sqlite3", "xml.etree.ElementTree", "xml.parsers.expat", "queue",
    "_queue", "graphlib", "urllib.error", "email.errors", "subprocess", "socket", "shutil", "copy",
    "pickle", "_pickle", "dataclasses", "lzma", "_lzma", "zoneinfo", "zoneinfo._common",
    "tomllib", "tomllib._parser", "calendar", "getopt", "argparse", "optparse", "threading", "http.client", "asyncio.queues",
    "asyncio.exceptions", "concurrent.futures._base",
})  # fmt: skip
"""Whose errors are raised again as what they are: not those of `unittest`, which would skip a test."""
_ENDS_A_LOOP = (StopIteration, StopAsyncIteration)
"""Would end a `map`, a `zip` or an `async for` of the tests as if there were no more cases (PEP 479)."""


class ErrorTeller:
    """Writes errors, in the answer's process."""

    def __init__(self) -> None:
        self.own: list[type] = []

    def told(self, error: BaseException, depth: int = 0) -> dict[str, Any]:
        """An error: its class, its text, its cause, and its arguments and attributes where they are plain values."""
        text = str(error)[:_MOST_TEXT]
        told: dict[str, Any] = {"class": self.described(type(error)), "text": text}
        args = error.args
        if not isinstance(self.described(type(error)), str) and is_known(
            type(error)
        ):  # some make one argument of several
            args = tuple(error.__reduce__()[1])
        if error.__cause__ is not None and depth < _MOST_CAUSES:
            told["cause"] = self.told(error.__cause__, depth + 1)
        found = dict(vars(error))
        for kind, name in _KEPT_APART:
            if isinstance(error, kind) and getattr(error, name) is not None:
                found[name] = getattr(error, name)
        for name, value in (("args", args), *((f".{name}", each) for name, each in found.items())):
            try:
                body = Values(iterator=no_iterator).encode(value)
            except Exception:  # no plain value: the text stands for it
                continue
            if len(json.dumps(body)) <= _MOST_TOLD:
                told[name] = body
        return told

    def described(self, kind: type) -> Any:
        """An error class: the name of one of Python's, or of its own a number, its name and its bases."""
        if kind.__module__ == "builtins" and is_known(kind):
            return kind.__qualname__
        told: dict[str, Any] = {"name": kind.__name__, "known": kind.__module__ if is_known(kind) else None}
        if told["known"] is None:
            if not any(each is kind for each in self.own):
                self.own.append(kind)
            told["own"] = next(number for number, each in enumerate(self.own) if each is kind)
        return told | {"bases": [self.described(each) for each in kind.__bases__ if issubclass(each, BaseException)]}


def is_known(kind: type) -> bool:
    """True for an error class of Python, or of one of those modules."""
    return found(kind.__module__, kind.__name__) is kind


def found(module: object, name: object) -> Any:
    """The object of a name in one of those modules, if it is loaded; None if there is none."""
    if not isinstance(module, str) or not isinstance(name, str) or module not in _MODULES:
        return None
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


class ErrorReader:
    """Makes errors of what was told, in the tests' process."""

    def __init__(self) -> None:
        self.own: dict[int | str, type[Exception]] = {}

    def error(self, told: Any) -> Exception:
        """The error to raise. RuntimeError, with its name and text, for what would end a loop or is no plain error."""
        kind, text = self.kind(told["class"]), str(told["text"])
        if kind is None or issubclass(kind, _ENDS_A_LOOP) or issubclass(kind, BaseExceptionGroup):
            return RuntimeError(f"{name_of(told['class'])}: {text}")
        args = decode(told["args"]) if "args" in told else (text,)
        made = new_error(kind, args)
        if made is None:
            return RuntimeError(f"{name_of(told['class'])}: {text}")
        for name, body in told.items():
            is_attribute = name.startswith(".") and name[1:].isidentifier() and not name.startswith(".__")
            if is_attribute or name == ".__notes__":
                setattr(made, name[1:], decode(body))
        if "cause" in told:
            made.__cause__ = self.error(told["cause"])
        if kind in self.own.values():
            made._told = text  # type: ignore[attr-defined]
        return made

    def kind(self, described: Any) -> type[Exception] | None:
        """The class that stands for one; None if that is no Exception."""
        is_pythons = isinstance(described, str)
        known = found("builtins", described) if is_pythons else found(described["known"], described["name"])
        if isinstance(known, type) and issubclass(known, Exception):
            return known
        if is_pythons:
            return None
        number = described.get("own", f"{described['known']}.{described['name']}")
        if number not in self.own:
            bases = [each for each in map(self.kind, described["bases"]) if each is not None]
            self.own[number] = stand_in(str(described["name"]), bases)
        return self.own[number]


def stand_in(name: str, bases: list[type[Exception]]) -> type[Exception]:
    """A class of this name, whose errors show the text they were told with."""

    def shown(self: Exception) -> str:
        text = vars(self).get("_told")
        return Exception.__str__(self) if text is None else str(text)

    for tried in (tuple(bases), tuple(bases[:1]), (Exception,)):
        try:
            return type(name, tried, {"__str__": shown, "__module__": "answer"})
        except TypeError:  # no bases, or such as do not go together
            continue
    raise AssertionError("any name gives an Exception")


def new_error(kind: type[Exception], args: Any) -> Exception | None:
    """An error of these arguments; None if the class takes others."""
    try:
        made = kind(*args)
    except Exception:
        return None
    return made if isinstance(made, Exception) else None


def name_of(described: Any) -> str:
    """The name of a class that was described."""
    return str(described if isinstance(described, str) else described["name"])
