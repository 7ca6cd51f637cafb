"""Watches the libraries that unittest cases call: what they hold is what it was before the answer was loaded.

Joined with `unit_runner.py` into one program for the sandbox. Standard library only. What the tests import is imported
before the answer is, and compared after it and after each test: functions, their code, and what the classes hold.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from firsthand.scorers.programs.unit_shared import Shared, constants, is_same

LIBRARY = os.path.realpath(sysconfig.get_path("stdlib"))
COMPILE = compile
LIBRARIES = tuple(
    {sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {each for each in sys.path if each and not Path.cwd().is_relative_to(os.path.realpath(each))}
    | {os.path.realpath(sysconfig.get_path(each)) for each in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {os.path.realpath(each) for each in sys.path if each and not Path.cwd().is_relative_to(os.path.realpath(each))}
)
ACCESS = (property, classmethod, staticmethod, types.ModuleType)
HOOKS = {
    ("sys", "excepthook"), ("sys", "displayhook"), ("sys", "unraisablehook"), ("sys", "breakpointhook"),
    ("threading", "excepthook"), ("warnings", "showwarning"), ("warnings", "formatwarning"),
}  # fmt: skip
"""Functions that Python's documentation tells users to replace."""


@functools.cache
def codes_of_file(name: str) -> frozenset[types.CodeType]:
    """Return all code of a file of Python's library or of an installed one; of any other file, none."""
    if name.startswith("<frozen "):
        name = f"{LIBRARY}/{name[8:-1].replace('.', '/')}.py"
    if "/../" in name or not any(name.startswith(f"{each}/") for each in LIBRARIES):
        return frozenset()
    try:
        with FileIO(name) as file:  # tests patch `open` and `os.path`, and an answer might
            return frozenset(codes_in(COMPILE(file.readall(), name, "exec", dont_inherit=True)))
    except (OSError, ValueError, SyntaxError):
        return frozenset()


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from codes_in(each)


def of_library(kind: type) -> bool:
    """True if a class is what a module of Python's or of an installed library holds under its name."""
    try:
        found: Any = sys.modules[kind.__module__]
        if not _installed(found):
            return False
        for name in kind.__qualname__.split("."):
            found = vars(found)[name]
    except (KeyError, TypeError, AttributeError):
        return False
    return found is kind


def _installed(module: Any) -> bool:
    if type(module) is not types.ModuleType and not isinstance(module, types.ModuleType):
        return False
    file = getattr(module, "__file__", None) or getattr(getattr(module, "__spec__", None), "origin", None)
    return file in ("built-in", "frozen") or (
        isinstance(file, str) and any(file.startswith(f"{each}/") for each in LIBRARIES)
    )


class Libraries:
    """Compares what the loaded libraries hold with what they held before the answer was loaded."""

    def __init__(self, names: Iterable[str]) -> None:
        self.codes: set[types.CodeType] = set()
        self.patched: set[str] = set()
        self._named = {module: sys.modules[module] for name in names if (module := _module(name))}
        self._shared = Shared()
        self.hold()

    def hold(self) -> None:
        """Remember what the libraries hold now."""
        self._shared.hold()
        self._constants = [
            (module, name, value)
            for module in self._named.values()
            if _installed(module)
            for name, value in constants(module).items()
        ]
        self._held: list[tuple[str, Any, dict[str, Any]]] = []
        self._codes: list[tuple[str, types.FunctionType, Any]] = []
        for name, module in list(sys.modules.items()):
            if not _installed(module):
                continue
            space = vars(module)
            self._hold(name, space)
            for kind in list(space.values()):
                if isinstance(kind, type) and type.__dict__["__module__"].__get__(kind) == name and is_changeable(kind):
                    self._hold(f"{name}.{kind.__name__}", type.__dict__["__dict__"].__get__(kind))

    def _hold(self, owner: str, space: Any) -> None:
        held = {name: value for name, value in list(space.items()) if callable(value) or type(value) in ACCESS}
        self._held.append((owner, space, held))
        functions = [each for each in held.values() if type(each) is types.FunctionType]
        self._codes += [(owner, each, _inside(each)) for each in functions]

    def changes(self, ours: bool = False) -> list[str]:
        """Return what is no longer as it was; `ours` leaves out what the tests themselves may have replaced."""
        found = [
            f"the answer changed {name}" for name, module in self._named.items() if sys.modules.get(name) is not module
        ]
        found += self._shared.changes()
        for module, name, value in self._constants:
            if not (ours and name in self.patched) and not is_same(vars(module).get(name, value), value):
                found.append(f"the answer changed {module.__name__}.{name}")
        for owner, space, held in self._held:
            for name, value in held.items():
                now = space.get(name, value)
                if now is not value and not (ours and self._of_tests(name, now)) and self._counts(owner, name, now):
                    found.append(f"the answer changed {owner}.{name}")
        found += [
            f"the answer changed {owner}.{each.__name__}"
            for owner, each, inside in self._codes
            if inside != _inside(each)
        ]
        return found

    def put_back(self) -> None:
        """Set what an answer may change and a test may rely on to what it was."""
        self._shared.put_back()

    def _of_tests(self, name: str, now: Any) -> bool:
        if type(now) is types.FunctionType and now.__code__ in self.codes:
            return True
        return name in self.patched

    def _counts(self, owner: str, name: str, now: Any) -> bool:
        """True unless it is a hook for users to set, or a library replaced what is private to it by another of its own."""
        if (owner, name) in HOOKS:
            return False
        if owner in self._named and not name.startswith("_"):
            return True
        if type(now) is types.FunctionType and now.__code__ in codes_of_file(now.__code__.co_filename):
            return now.__name__ != name and str(now.__module__).partition(".")[0] != owner.partition(".")[0]
        if isinstance(now, type):
            return not of_library(now) or str(now.__module__).partition(".")[0] != owner.partition(".")[0]
        return type(now) is not types.BuiltinFunctionType or now.__name__ != name


def _module(name: str) -> str:
    """Import the longest part of a dotted name that is a module, and return its own name."""
    found, parts = "", name.split(".")
    for end in range(1, len(parts) + 1):
        dotted = ".".join(parts[:end])
        try:
            value = getattr(sys.modules[found], parts[end - 1], None) if found else None
            module = value if isinstance(value, types.ModuleType) else importlib.import_module(dotted)
        except Exception:  # not a module, or one that cannot be imported: the tests will say so
            break
        found = module.__name__ if sys.modules.get(module.__name__) is module else dotted
        if found not in sys.modules:
            break
    return found


def is_changeable(kind: type) -> bool:
    flags = type.__dict__["__flags__"].__get__(kind)
    return bool(flags & 1 << 9) and not flags & 1 << 8


def _inside(function: types.FunctionType) -> Any:
    given = function.__kwdefaults__
    return function.__code__, function.__defaults__, tuple(given.items()) if given else None
