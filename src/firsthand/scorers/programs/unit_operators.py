"""Tells whether an operator of a class is Python's, a library's or the tests', and reads classes without calling them.

Joined with `unit_runner.py` into one program for the sandbox. Standard library only.

- a function counts if its code is in a library's file, its globals are that module, and its closure holds nothing of the
  answer's; or if its code is in the tests;
- a mock counts if it is what `MagicMock` sets up and nobody has told it what to return.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import sys
import types
import unittest.mock
from typing import Any

from firsthand.scorers.programs.unit_libraries import codes_of_file, is_changeable, of_library

DESCRIPTORS = (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType,
               types.BuiltinFunctionType, types.GetSetDescriptorType, types.MemberDescriptorType)  # fmt: skip
UNSET = {
    "__eq__": unittest.mock.DEFAULT, "__ne__": unittest.mock.DEFAULT, "__contains__": False,
    **{f"__{name}__": NotImplemented for name in ("lt", "le", "gt", "ge")},
}  # fmt: skip
"""Default return values of the comparison operators of a `MagicMock`."""
HELD = (int, str, float, complex, bool, bytes, range, types.NoneType, types.NotImplementedType, types.EllipsisType,
        types.ModuleType, types.CodeType, types.BuiltinFunctionType, *DESCRIPTORS)  # fmt: skip
"""Types of what a library's function may have in its closure, besides its own classes, functions and objects."""
FREE = ("__doc__", "__module__", "__dict__", "__weakref__", "__init__")
MOST = 1000
CACHE_INFO: Any = vars(functools).get("_CacheInfo")


def is_known(function: types.FunctionType, codes: set[types.CodeType]) -> bool:
    """True if a function is the tests' or a library's, with nothing of the answer's in its closure."""
    pending: list[Any] = [function]
    seen = dict[int, Any]()
    while pending:
        one = pending.pop()
        kind = type(one)
        if id(one) in seen or kind in HELD:
            continue
        seen[id(one)] = one
        if len(seen) > MOST:
            return False
        if kind is types.FunctionType:
            if one.__code__ in codes:
                pending += [each for each in _cells(one) if type(each) is types.FunctionType]
            elif _of_its_module(one):
                pending += _cells(one)
            else:
                return False
        elif derives(kind, type):
            if is_changeable(one) and not of_library(one) and one is not CACHE_INFO:
                return False
        elif kind in (
            list,
            tuple,
            dict,
            set,
            frozenset,
            functools.partial,
            types.MethodType,
            types.CellType,
            staticmethod,
        ):
            pending += [each for each in gc.get_referents(one) if each is not kind]
        elif _is_ufunc(one):
            continue
        elif is_heap(kind) and not of_library(kind):
            return False
        else:
            pending += [each for each in gc.get_referents(one) if callable(each) and each is not kind]
    return True


def _cells(function: types.FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # empty
            continue
    return found


def _of_its_module(function: types.FunctionType) -> bool:
    """True if the code is in a library's file, and the globals are those of the module that was loaded from it."""
    code, space = function.__code__, function.__globals__
    if code not in codes_of_file(code.co_filename) or type(space) is not dict:
        return False
    names = {str(space.get("__name__")), str(getattr(space.get("__spec__"), "name", None))}
    modules = [each for name in names if isinstance(each := sys.modules.get(name), types.ModuleType)]
    return any(object.__getattribute__(each, "__dict__") is space for each in modules)


def _is_ufunc(value: Any) -> bool:
    """True for a function of numpy itself; `frompyfunc` makes others out of anything."""
    numpy = sys.modules.get("numpy")
    kind: Any = getattr(numpy, "ufunc", None)
    return kind is not None and type(value) is kind and vars(numpy).get(value.__name__) is value


def is_unset(mock: Any, name: str, owner: type, codes: set[types.CodeType]) -> bool:
    """True if an operator of a mock is as `MagicMock` sets it up: it returns what nobody has chosen."""
    if not derives(owner, unittest.mock.NonCallableMock):
        return False
    if type(mock) is unittest.mock.MagicProxy:
        parent = mock.parent
        state = state_of(parent, type(parent)) if type(parent) is owner else None
        return (
            state is not None
            and mock.name == name
            and _plain(owner, state, codes)
            and (state.get("_mock_wraps") is None or type(state["_mock_wraps"]) in (types.FunctionType, *DESCRIPTORS))
        )
    state = state_of(mock, type(mock))
    if state.get("_mock_wraps") is not None or state.get("_mock_delegate") is not None:
        return False
    effect, given = state.get("_mock_side_effect"), state.get("_mock_return_value", unittest.mock.DEFAULT)
    if name in ("__eq__", "__ne__"):
        if type(effect) is not types.FunctionType or not _of_its_module(effect):
            return False
        cells = _cells(effect)
        if len(cells) != 1 or type(cells[0]) is not owner or effect.__globals__ is not vars(unittest.mock):
            return False
    elif effect is not None:
        return False
    if name in UNSET:
        return given is UNSET[name] and _plain(type(mock), state, codes)
    free = (
        given is unittest.mock.DEFAULT or given is NotImplemented or derives(type(given), unittest.mock.NonCallableMock)
    )
    return free and _plain(type(mock), state, codes)


def _plain(kind: type, state: dict[str, Any], codes: set[types.CodeType]) -> bool:
    """True if a mock does what `unittest.mock` says: none of its methods is replaced, in its class or by an attribute."""
    spaces = spaces_of(unittest.mock.MagicMock)
    if any(type(space.get(name)) is types.FunctionType for name in state for space in spaces):
        return False
    return all(
        type(each) is unittest.mock.MagicProxy
        or derives(type(each), unittest.mock.NonCallableMock)
        or (type(each) is types.FunctionType and is_known(each, codes))
        for own in line_of(kind)
        if not of_library(own)
        for name, each in space_of(own).items()
        if name not in FREE and any(name in space for space in spaces)
    )


def in_cython(kind: type) -> bool:
    """True for the type of functions that Cython makes, which is written in C."""
    slot = space_of(kind).get("__call__")
    return kind.__name__ == "cython_function_or_method" and type(slot) is types.WrapperDescriptorType


def is_heap(kind: type) -> bool:
    """True if a class is none of the interpreter's own static ones, which nobody can change."""
    return bool(type.__dict__["__flags__"].__get__(kind) & 1 << 9)


def derives(kind: type, base: type) -> bool:
    return any(each is base for each in line_of(kind))


def line_of(kind: type) -> tuple[type, ...]:
    return type.__dict__["__mro__"].__get__(kind)  # type: ignore[no-any-return]


def space_of(kind: type) -> Any:
    return type.__dict__["__dict__"].__get__(kind)


def spaces_of(kind: type) -> list[Any]:
    return [space_of(each) for each in line_of(kind)]


def state_of(value: Any, kind: type) -> dict[str, Any]:
    """Return the attributes of an object, those in slots too, without a call of its class."""
    found: dict[str, Any] = {}
    for held in spaces_of(kind):
        for name, each in held.items():
            if type(each) is types.MemberDescriptorType:
                try:
                    found[name] = each.__get__(value)
                except AttributeError:
                    continue
    space = next(
        (held["__dict__"] for held in spaces_of(kind) if type(held.get("__dict__")) is types.GetSetDescriptorType), None
    )
    own = space.__get__(value) if space is not None else None
    return found | own if type(own) is dict else found


def of_dataclass(code: types.CodeType, owner: type) -> bool:
    """True if this is what `dataclasses` writes for a class with these fields."""
    fields = type.__dict__["__dict__"].__get__(owner).get("__dataclass_fields__")
    if type(fields) is not dict:
        return False
    names = [name for name, each in fields.items() if getattr(each, "compare", False)]
    fresh = vars(dataclasses.make_dataclass("Fresh", names, order=True)).get(code.co_name)
    return isinstance(fresh, types.FunctionType) and fresh.__code__ == code
