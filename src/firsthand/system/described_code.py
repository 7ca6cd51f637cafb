"""Describes a function or an object by what decides its results, so that two of equal digest compute the same.

Of a function that the user wrote that is its source, with the functions, classes and values of the user's own that it
reaches by name; of one that is installed its name alone, with its options. Comments, docstrings and the rest of the file
count for nothing. What a function reads while it runs, such as a file, is not seen.
"""

from __future__ import annotations

import dis
import hashlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from enum import Enum
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from firsthand.system.code_source import Sources
from firsthand.system.secret_names import is_secret_name

MAX_PARTS = 200_000
"""Functions, objects and values that are described; what lies beyond counts for nothing."""
MAX_ITEMS = 50_000
"""Items of a list, set or table that are described, beside their number."""
MAX_DEPTH = 60
_INSTALLED = tuple(
    f"{os.path.realpath(path)}{os.sep}"
    for path in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[1]),
    )
)
_PACKAGES = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_PLAIN = (str, int, float, bool, type(None))
_SUNDER = re.compile(r"_[^_]\w*_")
Described = Any
"""Data that JSON can hold."""


def code_digest(thing: object) -> str:
    """Sixteen hexadecimal digits that stand for what decides the results of a function or an object."""
    return _sha(_Describer().described(thing))


def own_words(thing: object) -> str:
    """Name and options of a function or an object, as the command line writes them: `regex:pattern=([0-9]+)`."""
    if isinstance(words := _attribute(thing, "described"), str):
        return words
    given: dict[str, object] = {}
    while isinstance(thing, partial):
        given = {**thing.keywords, **given}
        thing = thing.func
    if isinstance(thing, FunctionType):
        given = {**dict(_enclosed(thing)), **given}
    options = "".join(f":{key}={value}" for key, value in given.items() if _is_told(key, value))
    return names_of(thing)[-1] + options


def names_of(thing: object) -> list[str]:
    """The names that a scorer's scores may go by: its own, and that of the function that made it."""
    while isinstance(thing, partial):
        thing = thing.func
    named = [_attribute(thing, "name"), _attribute(thing, "__name__")]
    whole = _attribute(thing, "__qualname__") or type(thing).__qualname__
    return list(dict.fromkeys([*(each for each in named if isinstance(each, str)), str(whole).split(".<locals>")[0]]))


class _Describer:
    """Describes one thing and all that it reaches, each part once."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Described, object]] = {}
        """By id what stands for a part that was met before; the part itself is kept, so that no other gets its id."""
        self.sources = Sources()
        self.num_parts = 0

    def described(self, thing: object, depth: int = 0) -> Described:
        """Return the parts that decide a thing's results, as data."""
        self.num_parts += 1
        if self.num_parts > MAX_PARTS or depth > MAX_DEPTH:
            return ["more"]
        if isinstance(thing, Enum):
            return ["member", self.described(type(thing), depth + 1), thing.name]
        if isinstance(thing, _PLAIN):
            return ["path"] if _is_place(thing) else [type(thing).__name__, _shown(thing)]
        if id(thing) in self.seen:
            return self.seen[id(thing)][0]
        self.seen[id(thing)] = (["again", str(_attribute(thing, "__qualname__") or type(thing).__qualname__)], thing)
        try:
            found = [_sha(self._with_parts(thing, lambda part: self.described(part, depth + 1)))]
        except Exception:  # an object of the user's may raise anything when it is looked at, and no run ends by that
            found = ["unknown", type(thing).__qualname__]
        self.seen[id(thing)] = (found, thing)  # whichever of two is met first, as in a set, both are the same
        return found

    def _with_parts(self, thing: object, inner: Callable[[object], Described]) -> Described:
        match thing:
            case bytes() | bytearray():
                return ["bytes", hashlib.sha256(thing).hexdigest()]
            case re.Pattern():
                return ["pattern", str(thing.pattern), thing.flags]
            case _ if thing is os.environ:
                return ["environment"]
            case Mapping():
                return ["mapping", len(thing), [[inner(key), inner(value)] for key, value in _first(thing.items())]]
            case list() | tuple():
                return ["sequence", len(thing), [inner(each) for each in _first(thing)]]
            case Set():
                are_plain = len(thing) > MAX_ITEMS and all(isinstance(each, str) for each in thing)
                shown = thing if len(thing) <= MAX_ITEMS else sorted(thing) if are_plain else ()
                return ["set", len(thing), sorted((inner(each) for each in _first(shown)), key=str)]
            case partial():
                return ["partial", inner(thing.func), inner(thing.args), _fields(thing.keywords.items(), inner)]
            case MethodType():
                return ["method", inner(thing.__func__), inner(thing.__self__)]
            case FunctionType():
                return self._function(thing, inner)
            case BuiltinFunctionType():
                return ["function", thing.__module__, thing.__qualname__]
            case ModuleType():
                return ["module", thing.__name__, self._own_source(_attribute(thing, "__file__"))]
            case type():
                return self._class(thing, inner)
        if isinstance(wrapped := _attribute(thing, "__wrapped__"), FunctionType):  # as by `functools.cache`
            return ["wrapped", type(thing).__qualname__, inner(wrapped)]
        return self._instance(thing, inner)

    def _function(self, function: FunctionType, inner: Callable[[object], Described]) -> Described:
        code = function.__code__
        defaults, named = function.__defaults__ or (), function.__kwdefaults__ or {}
        is_own = _is_own(code.co_filename)
        if is_own:  # what such a default holds is written in the source, and what was put into it later is none
            names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
            defaults = tuple(
                "" if self.sources.is_filled(code.co_filename, name) and isinstance(each, dict | list | set) else each
                for name, each in zip(names, defaults, strict=True)
            )
        options = [inner(defaults), inner(named)]
        held: list[Described] = _fields(_enclosed(function), inner)
        held += [[name, inner(value)] for name, value in sorted(vars(function).items()) if name == "decided_by"]
        if not is_own:
            return ["function", function.__module__, function.__qualname__, options, held]
        reached = [
            [name, self._global(code.co_filename, name, function.__globals__[name], inner)]
            for name in sorted(set(_global_names(code)))
            if name in function.__globals__
        ]
        return ["function", function.__qualname__, self._source(code), options, held, reached]

    def _global(self, file: str, name: str, value: object, inner: Callable[[object], Described]) -> Described:
        """A global by its value; by what is written of it where functions fill it or it is of this process alone."""
        if isinstance(value, str) and is_secret_name(name):
            return ["secret"]
        if not isinstance(value, FunctionType | type | ModuleType) and self.sources.is_filled(file, name):
            return ["filled", self.sources.statements(file, name)]
        if isinstance(value, list | tuple | dict) and all(isinstance(each, str) for each in value):
            # made of a set it has another order in each process; an order that is written is in the statements
            parts = [
                [inner(each), inner(value[each]) if isinstance(value, dict) else ""] for each in _first(sorted(value))
            ]
            return ["words", type(value).__name__, len(value), parts, self.sources.statements(file, name)]
        return inner(value)

    def _class(self, made: type, inner: Callable[[object], Described]) -> Described:
        if not _is_own_class(made):
            return ["class", made.__module__, made.__qualname__]
        held = [
            [name, inner(_method(each))] for name, each in sorted(vars(made).items()) if _is_decisive(made, name, each)
        ]
        if issubclass(made, Enum):
            held += [[name, inner(_attribute(each, "_value_"))] for name, each in made.__members__.items()]
        return ["class", made.__qualname__, held, [inner(base) for base in made.__bases__]]

    def _instance(self, thing: object, inner: Callable[[object], Described]) -> Described:
        for name in ("described", "decided_by"):
            if isinstance(told := _attribute(thing, name), str | list | tuple):
                return [name, type(thing).__qualname__, inner(told)]
        if isinstance(fingerprint := _attribute(thing, "fingerprint"), str):
            return ["model", str(_attribute(thing, "name")), fingerprint]
        kind = inner(type(thing))
        if not _is_own_class(type(thing)):
            return ["object", kind]
        slots = [name for each in type(thing).__mro__ for name in getattr(each, "__slots__", ())]
        fields = {name: _attribute(thing, name) for name in slots} | getattr(thing, "__dict__", {})
        files = [_file_of(each) for each in type(thing).__mro__ if _is_own_class(each)]
        kept = [
            (name, value)
            for name, value in sorted(fields.items())
            if not any(file and self.sources.is_filled_field(file, name) for file in files)
        ]
        return ["object", kind, _fields(kept, inner)]

    def _source(self, code: CodeType) -> Described:
        """The source of a function without its docstring; its code where there is no source."""
        return self.sources.function(code) or _compiled(code)

    def _own_source(self, file: object) -> str:
        """All the source of a module that the user wrote; "" of any other."""
        return self.sources.module(file) if isinstance(file, str) and _is_own(file) else ""


def _compiled(code: CodeType) -> Described:
    """A function by its byte code, which another version of Python writes differently."""
    inner = [_compiled(each) for each in code.co_consts if isinstance(each, CodeType)]
    consts = [_shown(each) for each in code.co_consts if isinstance(each, (*_PLAIN, tuple))]
    sets = [sorted(map(repr, each)) for each in code.co_consts if isinstance(each, frozenset)]
    return [code.co_code.hex(), list(code.co_names), consts, sets, inner]


def _fields(named: Iterable[tuple[str, object]], inner: Callable[[object], Described]) -> list[Described]:
    """Names with their values, those of secrets without: a key is another one on another machine."""
    return [
        [name, "secret" if isinstance(value, str) and is_secret_name(name) else inner(value)] for name, value in named
    ]


def _first(items: Iterable[Any]) -> Iterator[Any]:
    return islice(items, MAX_ITEMS)


def _shown(value: object) -> str:
    return hex(value) if type(value) is int else repr(value)


def _is_told(name: str, value: object) -> bool:
    """True for an option that is part of a scorer's words: no secret is."""
    return isinstance(value, _PLAIN) and value != "" and not (isinstance(value, str) and is_secret_name(name))


def _method(each: object) -> object:
    """The function within a property or method."""
    if isinstance(each, property):
        return each.fget
    return each.func if isinstance(each, cached_property) else getattr(each, "__func__", each)


def _is_decisive(made: type, name: str, each: object) -> bool:
    """True for a part of a class that the user wrote, and not Python or a decorator."""
    held = _method(each)
    is_written = isinstance(held, FunctionType) and not _is_generated(held) and _is_own(held.__code__.co_filename)
    if name.startswith("__"):
        return is_written and name != "__annotate__"
    return not issubclass(made, Enum) or is_written or (name not in made.__members__ and not _SUNDER.fullmatch(name))


def _file_of(made: type) -> str | None:
    found = _attribute(sys.modules.get(made.__module__), "__file__")
    return found if isinstance(found, str) else None


def _attribute(thing: object, name: str) -> Any:
    """An attribute, None without it, or where it cannot be computed here: a model's files may be on another machine."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def _is_place(value: object) -> bool:
    """True for the absolute path of something on this machine, which lies elsewhere on another."""
    if not isinstance(value, str) or value[:1] != "/" or "\0" in value:
        return False
    first, _, rest = value[1:].partition("/")  # a folder may be made only later: only the first one has to be there
    return os.path.exists(value) or (rest != "" and first != "" and os.path.isdir(f"/{first}"))  # noqa: PTH110, PTH112


def _enclosed(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Names and values of the variables around a function that it uses."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not set yet
            continue


def _global_names(code: CodeType) -> Iterator[str]:
    """The global names that a function reads, and those that functions in it do."""
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(each.argval)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _global_names(part)


def _is_own(file: str | None) -> bool:
    """True for a file of code that the user wrote: neither installed nor ours."""
    return (
        file is not None
        and not file.startswith("<frozen")
        and not _PACKAGES.search(file)
        and not os.path.realpath(file).startswith(_INSTALLED)
    )


def _is_own_class(made: type) -> bool:
    """True for a class that the user wrote, in a notebook too."""
    module = sys.modules.get(made.__module__)
    return made.__module__ == "__main__" or _is_own(getattr(module, "__file__", None))


def _is_generated(method: object) -> bool:
    """True for a method that a decorator such as `dataclass` wrote."""
    return isinstance(method, FunctionType) and method.__code__.co_filename == "<string>"


def _sha(found: Described) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
