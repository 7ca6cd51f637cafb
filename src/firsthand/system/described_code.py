"""Describes a function or an object by what decides its results, so that two of equal digest compute the same.

Of a function that the user wrote that is its source, with the functions, classes and values of the user's own that it
reaches by name; of one that is installed its name alone, with its options. Comments, docstrings and the rest of the file
count for nothing. What a function reads while it runs, such as a file, is not seen.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from firsthand.system.ordinary_file import read_ordinary_text

MAX_PARTS = 200_000
"""Functions, objects and values that are described; what lies beyond counts for nothing."""
MAX_SOURCE_BYTES = 1 << 24
MAX_DEPTH = 60
_INSTALLED = tuple(
    f"{os.path.realpath(path)}{os.sep}"
    for path in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[1]),
    )
)
_PLAIN = (str, int, float, bool, type(None))
_SPECIAL = ("__init__", "__call__", "__post_init__")
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
    options = "".join(f":{key}={value}" for key, value in given.items() if isinstance(value, _PLAIN) and value != "")
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
        self.trees: dict[str, ast.Module | None] = {}
        self.num_parts = 0

    def described(self, thing: object, depth: int = 0) -> Described:
        """What decides the results of a thing, as data."""
        self.num_parts += 1
        if self.num_parts > MAX_PARTS or depth > MAX_DEPTH:
            return ["more"]
        if isinstance(thing, _PLAIN):
            return ["path"] if _is_place(thing) else [type(thing).__name__, repr(thing)]
        if id(thing) in self.seen:
            return self.seen[id(thing)][0]
        self.seen[id(thing)] = (["again", str(_attribute(thing, "__qualname__") or type(thing).__qualname__)], thing)
        found = self._with_parts(thing, lambda part: self.described(part, depth + 1))
        if isinstance(thing, Mapping | list | tuple | Set):  # equal data is the same wherever it lies
            found = [_sha(found)]
            self.seen[id(thing)] = (found, thing)
        return found

    def _with_parts(self, thing: object, inner: Callable[[object], Described]) -> Described:
        match thing:
            case bytes() | bytearray():
                return ["bytes", hashlib.sha256(thing).hexdigest()]
            case re.Pattern():
                return ["pattern", str(thing.pattern), thing.flags]
            case Mapping():
                return ["mapping", [[inner(key), inner(value)] for key, value in thing.items()]]
            case list() | tuple():
                return ["sequence", [inner(each) for each in thing]]
            case Set():
                return ["set", sorted((inner(each) for each in thing), key=str)]
            case partial():
                return ["partial", inner(thing.func), inner(thing.args), inner(thing.keywords)]
            case MethodType():
                return ["method", inner(thing.__func__), inner(thing.__self__)]
            case FunctionType():
                return self._function(thing, inner)
            case BuiltinFunctionType():
                return ["function", thing.__module__, thing.__qualname__]
            case ModuleType():
                return ["module", thing.__name__, self._own_source(getattr(thing, "__file__", None))]
            case type():
                return self._class(thing, inner)
        if isinstance(wrapped := _attribute(thing, "__wrapped__"), FunctionType):  # as by `functools.cache`
            return ["wrapped", type(thing).__qualname__, inner(wrapped)]
        return self._instance(thing, inner)

    def _function(self, function: FunctionType, inner: Callable[[object], Described]) -> Described:
        options = [inner(function.__defaults__), inner(function.__kwdefaults__)]
        held: list[Described] = [[name, inner(value)] for name, value in _enclosed(function)]
        held += [[name, inner(value)] for name, value in sorted(vars(function).items()) if name == "decided_by"]
        if not _is_own(function.__code__.co_filename):
            return ["function", function.__module__, function.__qualname__, options, held]
        reached = [
            [name, inner(function.__globals__[name])]
            for name in sorted(set(_global_names(function.__code__)))
            if name in function.__globals__
        ]
        return ["function", function.__qualname__, self._source(function), options, held, reached]

    def _class(self, made: type, inner: Callable[[object], Described]) -> Described:
        if not _is_own_class(made):
            return ["class", made.__module__, made.__qualname__]
        held = [
            [name, inner(each.fget if isinstance(each, property) else getattr(each, "__func__", each))]
            for name, each in sorted(vars(made).items())
            if not name.startswith("__") or (name in _SPECIAL and not _is_generated(each))
        ]
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
        return ["object", kind, [[name, inner(value)] for name, value in sorted(fields.items())]]

    def _source(self, function: FunctionType) -> str:
        """The source of a function without its docstring; its code where there is no source."""
        code = function.__code__
        tree = self._tree(code.co_filename)
        found = [each for each in ast.walk(tree) if _begins(each, code)] if tree is not None else []
        if found:
            return "\n".join(map(ast.unparse, found))
        return repr((code.co_code, code.co_names, [each for each in code.co_consts if isinstance(each, _PLAIN)]))

    def _tree(self, file: str) -> ast.Module | None:
        if file not in self.trees:
            try:
                tree = ast.parse(read_ordinary_text(Path(file), MAX_SOURCE_BYTES))
                for each in ast.walk(tree):
                    _drop_docstring(each)
                self.trees[file] = tree
            except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
                self.trees[file] = None
        return self.trees[file]

    def _own_source(self, file: str | None) -> str:
        """All the source of a module that the user wrote; "" of any other."""
        tree = self._tree(file) if file is not None and _is_own(file) else None
        return "" if tree is None else ast.unparse(tree)


def _attribute(thing: object, name: str) -> Any:
    """An attribute, None without it, or where it cannot be computed here: a model's files may be on another machine."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def _is_place(value: object) -> bool:
    """True for the absolute path of something on this machine, which lies elsewhere on another."""
    return isinstance(value, str) and value[:1] == "/" and "\0" not in value and os.path.exists(value)  # noqa: PTH110


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
    return file is not None and not file.startswith("<frozen") and not os.path.realpath(file).startswith(_INSTALLED)


def _is_own_class(made: type) -> bool:
    """True for a class that the user wrote, in a notebook too."""
    module = sys.modules.get(made.__module__)
    return made.__module__ == "__main__" or _is_own(getattr(module, "__file__", None))


def _is_generated(method: object) -> bool:
    """True for a method that a decorator such as `dataclass` wrote."""
    return isinstance(method, FunctionType) and method.__code__.co_filename == "<string>"


def _sha(found: Described) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _begins(node: ast.AST, code: CodeType) -> bool:
    """True if the node is the function of that code; several lambdas of one line are one."""
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    lines = [node.lineno, *(each.lineno for each in node.decorator_list)]
    return node.name == code.co_name and min(lines) == code.co_firstlineno


def _drop_docstring(node: ast.AST) -> None:
    """Take the docstring out of a function or a class."""
    match node:
        case (
            ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str())), _, *_])
            | ast.AsyncFunctionDef(body=[ast.Expr(value=ast.Constant(value=str())), _, *_])
            | ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str())), _, *_])
            | ast.Module(body=[ast.Expr(value=ast.Constant(value=str())), _, *_])
        ):
            del node.body[0]
