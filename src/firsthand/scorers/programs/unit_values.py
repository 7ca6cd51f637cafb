"""Looks at the values that unittest cases compare: they must be built of known types, with operators that are no answer's.

Joined with `unit_runner.py` into one program for the sandbox. Standard library only.

- types in C of Python's own that compare by what they hold are a closed list, and what they hold is looked at too, at any
  depth; proxies and the like, which leave `==` to another object, are on none;
- an object of a library's class that compares in Python is looked at by its attributes;
- an operator of the answer's own is asked about fresh values (`unit_probes.py`): it is refused if it says yes to what
  nothing equals, and its object's attributes and items are looked at;
- a class of the answer's that derives from a class of values of numpy or pandas, and replaces a method of it, is no value.
"""

from __future__ import annotations

import collections
import gc
import sys
import types
import unittest.mock
import weakref
from collections import deque
from typing import Any

from firsthand.scorers.programs.unit_libraries import codes_of_file, of_library
from firsthand.scorers.programs.unit_operators import (
    DESCRIPTORS,
    derives,
    in_cython,
    is_heap,
    is_known,
    is_unset,
    line_of,
    of_dataclass,
    space_of,
    spaces_of,
    state_of,
)
from firsthand.scorers.programs.unit_probes import equals_strangers, items_of, lies, lists_others, says_yes_to_texts

OPERATORS = (
    *(f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains", "class", "getattribute")),
    *(f"__{name}__" for name in ("array_ufunc", "array_function", "torch_function", "instancecheck")), "equals",
    *(f"__array_{name}__" for name in ("interface", "struct", "wrap", "prepare")), "__array__", "__dataframe__",
    *(f"__{side}{name}__" for side in ("", "r") for name in
      ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "and", "or", "xor")),
)  # fmt: skip
"""Special methods that decide how objects compare, or which class they claim."""
COMPARING = frozenset(OPERATORS) - {"__class__", "__getattribute__", "__instancecheck__"}
"""Of these, the ones that a class has only if its objects do not compare by identity."""
ITERATING = ("__iter__", "__getitem__", "__len__")
"""Methods by which a library reads what an object holds."""
ARRAYS = frozenset(name for name in OPERATORS if name.startswith(("__array", "__torch", "__dataframe")))
"""Methods by which numpy and others take an object for an array: the answer's own are refused."""
PLAIN = (int, str, float, bool, bytes, types.NoneType)
DICT_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
HOLDERS: tuple[Any, ...] = (list, tuple, set, frozenset, deque, *DICT_VIEWS)
OPENED = (
    dict, collections.OrderedDict, collections.defaultdict, *HOLDERS, slice, weakref.ReferenceType, types.MethodType,
    types.MappingProxyType, types.SimpleNamespace, types.GenericAlias, types.UnionType,
)  # fmt: skip
CLOSED = frozenset({
    *(f"builtins.{name}" for name in (
        "int", "float", "complex", "bool", "str", "bytes", "bytearray", "memoryview", "range", "code", "type",
        "builtin_function_or_method", "method-wrapper", "InterpreterID",
    )),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"_ctypes.{name}" for name in (
        "PyCArrayType", "PyCFuncPtrType", "PyCPointerType", "PyCSimpleType", "PyCStructType", "UnionType",
    )),
    "array.array", "decimal.Decimal", "re.Pattern", "_ssl.Certificate", "_ssl.SSLSession", "sqlite3.Row",
})  # fmt: skip
"""Types in C of Python's own that hold what is plain; others that compare by what they hold are opened or refused."""
OWN = frozenset(
    f"__{name}__" for name in (
        "init", "new", "repr", "str", "format", "hash", "doc", "module", "dict", "weakref", "slots", "reduce", "reduce_ex",
        "init_subclass", "class_getitem", "set_name", "getnewargs", "getnewargs_ex", "getstate", "setstate", "copy",
        "deepcopy", "sizeof", "dir", "del", "array_finalize",
    )
) | {"_constructor", "_constructor_sliced", "_metadata"}  # fmt: skip
"""Methods that a class of values may replace: none of them says what an object equals or holds."""
TEXTS = (str, bytes, int, float, complex, tuple, frozenset)
ANYTHING = unittest.mock._ANY()
"""Replaces `mock.ANY` in the tests, so that an answer that returns `mock.ANY` is rejected."""


class Judge:
    """Called with a value of the tests, returns it, and notes when operators of its class are the answer's own."""

    def __init__(self, changes: list[str]) -> None:
        self.codes: set[types.CodeType] = set()
        self._changes = changes
        self._made: set[tuple[type, str]] = set()

    def __call__(self, value: Any) -> Any:
        self._look(value, read=True)
        return value

    def handed(self, value: Any) -> Any:
        """Return a value that nothing compares yet; how it iterates and which methods it replaces is its own matter."""
        self._look(value, read=False)
        return value

    def each(self, value: Any) -> Any:
        """Return what `in` is asked of; where it iterates, each item is looked at."""
        if any("__contains__" in each for each in spaces_of(type(value))):
            return self(value)
        return self.every(value)

    def every(self, value: Any) -> Any:
        """Return an iterator that looks at each item."""
        self.handed(value)
        return map(self, value) if any("__iter__" in each for each in spaces_of(type(value))) else value

    def called(self, value: Any, name: str) -> Any:
        """Return the object whose method is called; of a value, it may not be the answer's."""
        kind = type(value)
        if (
            kind in PLAIN
            or kind is types.ModuleType
            or derives(kind, type)
            or derives(kind, unittest.mock.NonCallableMock)
        ):
            return value
        owners = [each for each in line_of(kind) if name in space_of(each)]
        if owners and name in state_of(value, kind) and not self._known_call(state_of(value, kind)[name]):
            self._changes.append(f"the answer changed {kind.__name__}.{name} of an object")
        elif self._replaces(kind, (name,)) and (not self._of_python(kind) or says_yes_to_texts(value, kind, name)):
            self._changes.append("an object equals, or passes for, what it is not")
        return value

    def made(self, kind: Any) -> Any:
        """Return a class that the tests define: a mock among its operators is theirs."""
        self._made.add((kind, ""))
        return kind

    def given(self, value: Any, name: str) -> Any:
        """Return a mock whose operator of this name the tests are about to set."""
        self._made.add((type(value), name))
        return value

    def _known_call(self, what: Any) -> bool:
        if type(what) is types.MethodType:
            what = what.__func__
        if type(what) is types.FunctionType:
            return what.__code__ in self.codes or what.__code__ in codes_of_file(what.__code__.co_filename)
        return not callable(what) or derives(type(what), unittest.mock.NonCallableMock)

    def _look(self, value: Any, read: bool) -> None:
        pending, seen = [value], dict[int, Any]()
        while pending:
            one = pending.pop()
            kind = type(one)
            if kind in PLAIN or one is ANYTHING or id(one) in seen:
                continue
            if self._passes_for_another(one, kind, read):
                self._changes.append("an object equals, or passes for, what it is not")
                return
            seen[id(one)] = one
            pending += _parts(one, kind)
            if read and self._iterates(kind):
                pending += items_of(one, kind)

    def _passes_for_another(self, value: Any, kind: type, read: bool) -> bool:
        if self._refused(kind, read) or _masked(value, kind):
            return True
        own = [
            name
            for name in OPERATORS
            if any(is_heap(each) and name in space_of(each) and not self._allowed(space_of(each)[name], name, each)
                   for each in line_of(kind))
        ]  # fmt: skip
        if any(lies(value, kind, name) for name in own):
            return True
        if read and self._replaces(kind) and "__eq__" not in own and lies(value, kind, "__eq__"):
            return True
        if read and self._iterates(kind) and lists_others(value, kind):
            return True
        return "__eq__" not in own and self._of_a_library(kind) and equals_strangers(value, kind)

    def _refused(self, kind: type, read: bool) -> bool:
        """True if a class has an operator that no ordinary class has: nothing is asked of its objects."""
        for each in line_of(kind):
            held = space_of(each)
            if is_heap(each) and any(
                name in held and not self._allowed(held[name], name, each) and self._strange(held[name], name, each)
                for name in OPERATORS
            ):
                return True
            if _delegates(each, held):
                return True
        return read and self._replaces(kind) and not self._of_python(kind)

    def _strange(self, what: Any, name: str, owner: type) -> bool:
        """True for mocks, slots of another name, library code with the answer's globals, and numpy's protocols."""
        kind = type(what)
        if name in ARRAYS or kind in DESCRIPTORS or derives(owner, unittest.mock.NonCallableMock):
            return True
        if kind is types.FunctionType:
            return what.__code__ in codes_of_file(what.__code__.co_filename)
        return kind is unittest.mock.MagicProxy or derives(kind, unittest.mock.NonCallableMock)

    def _iterates(self, kind: type) -> bool:
        """True if a class of the answer's says itself which items it has."""
        return any(
            type(space_of(each).get(name)) is types.FunctionType and not self._allowed(space_of(each)[name], name, each)
            for each in line_of(kind)
            if is_heap(each) and not any(base in TEXTS or base in OPENED for base in line_of(kind))
            for name in ITERATING
        )

    def _of_python(self, kind: type) -> bool:
        """True if the classes of values from which a class derives are all of Python's own library."""
        bases = [each for each in line_of(kind) if _of_values(each) and (not is_heap(each) or of_library(each))]
        return all(_module_of(each, space_of(each)).partition(".")[0] in sys.stdlib_module_names for each in bases)

    def _of_a_library(self, kind: type) -> bool:
        """True if the `==` of a class is a function that is not in the tests."""
        equal = next((space_of(each)["__eq__"] for each in line_of(kind) if "__eq__" in space_of(each)), None)
        return type(equal) is types.FunctionType and equal.__code__ not in self.codes

    def _replaces(self, kind: type, names: Any = None) -> bool:
        """True if a class of the answer's replaces methods of a library's class of values from which it derives."""
        line = line_of(kind)
        for at, each in enumerate(line):
            values = [
                base
                for base in line[at + 1 :]
                if _of_values(base) and (base not in OPENED or (names and base in TEXTS))
            ]
            if not is_heap(each) or not values or of_library(each):
                continue
            own = [name for name in names or space_of(each) if name in space_of(each) and name not in OWN]
            if any(
                name in space_of(base) and self._foreign(space_of(each)[name], name, each)
                for name in own
                for base in values
            ):
                return True
        return False

    def _foreign(self, what: Any, name: str, owner: type) -> bool:
        kind = type(what)
        if kind in (types.FunctionType, property, classmethod, *DESCRIPTORS):
            return not self._allowed(what, name, owner)
        if kind is staticmethod:
            return not self._allowed(what.__func__, name, owner)
        return (
            (callable(what) or hasattr(kind, "__get__"))
            and not isinstance(what, type)
            and kind.__name__ != "_tuplegetter"
        )

    def _allowed(self, what: Any, name: str, owner: type) -> bool:
        kind = type(what)
        if kind in (classmethod, staticmethod):
            return kind is not staticmethod and self._allowed(what.__func__, name, owner)
        if kind is property:
            return self._allowed(what.fget, name, owner)
        if kind in DESCRIPTORS:
            return bool(what.__name__ == name)
        if kind is types.FunctionType:
            return is_known(what, self.codes) or of_dataclass(what.__code__, owner)
        if kind is unittest.mock.MagicProxy or derives(kind, unittest.mock.NonCallableMock):
            return not self._made.isdisjoint({(owner, ""), (owner, name)}) or self._unset(what, name, owner)
        return what is None or in_cython(kind)

    def _unset(self, mock: Any, name: str, owner: type) -> bool:
        """True for a mock's own operator that nobody gave anything to return; what it has returned is such a mock too."""
        if not is_unset(mock, name, owner, self.codes):
            return False
        given = state_of(mock, type(mock)).get("_mock_return_value")
        return not derives(type(given), unittest.mock.NonCallableMock) or not self._set(type(given))

    def _set(self, kind: type) -> bool:
        """True if somebody has set an operator of a mock."""
        return any(
            is_heap(each) and name in space_of(each) and not self._allowed(space_of(each)[name], name, each)
            for each in line_of(kind)
            for name in OPERATORS
        )


def _of_values(kind: type) -> bool:
    """True if objects of a class compare by what they hold."""
    return kind not in (object, type) and not COMPARING.isdisjoint(space_of(kind))


def _delegates(kind: type, held: Any) -> bool:
    """True if a class in C of Python's own compares by what nobody knows it to hold, as a proxy does."""
    slots = [held[name] for name in COMPARING if type(held.get(name)) is types.WrapperDescriptorType]
    if kind in OPENED or not any(each.__objclass__ is kind for each in slots):
        return False
    module, name = _module_of(kind, held), type.__dict__["__name__"].__get__(kind)
    return (
        module.partition(".")[0] in sys.stdlib_module_names and f"{module}.{name}" not in CLOSED and kind is not object
    )


def _module_of(kind: type, held: Any) -> str:
    return (
        str(held.get("__module__") or type.__dict__["__module__"].__get__(kind)) if is_heap(kind) else kind.__module__
    )


def _parts(value: Any, kind: type) -> list[Any]:
    """Return what an object compares by: what a container holds, the attributes of an object that compares in Python."""
    held: list[Any] = []
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    array: Any = getattr(numpy, "ndarray", None)
    frames = [getattr(pandas, name, None) for name in ("DataFrame", "Series")]
    if derives(kind, dict):
        held = [*dict.keys(value), *dict.values(value)]
    elif base := next((each for each in HOLDERS if derives(kind, each)), None):
        held = list(base.__iter__(value))
    elif kind is types.MappingProxyType:
        held = gc.get_referents(value)
    elif kind is types.MethodType:
        held = [value.__func__]
    elif derives(kind, weakref.ReferenceType):
        held = [weakref.ReferenceType.__call__(value)]
    elif kind is slice:
        held = [value.start, value.stop, value.step]
    elif kind in (types.GenericAlias, types.UnionType):
        held = [*value.__args__, getattr(value, "__origin__", None)]
    elif array is not None and derives(kind, array):
        held = array.ravel(value).tolist() if value.dtype.hasobject else []
    elif any(isinstance(each, type) and derives(kind, each) for each in frames):
        manager = state_of(value, kind).get("_mgr")
        held = [*getattr(manager, "arrays", ()), *getattr(manager, "axes", ())]
    elif f"{kind.__module__}.{kind.__name__}" == "sqlite3.Row":
        held = list(value)
    if _compares_in_python(kind) or derives(kind, types.SimpleNamespace):
        held += state_of(value, kind).values()
    return [each for each in held if type(each) not in PLAIN]


def _compares_in_python(kind: type) -> bool:
    if derives(kind, unittest.mock.NonCallableMock):
        return False
    return any(
        is_heap(each) and type(space_of(each).get(name)) is types.FunctionType
        for each in line_of(kind)
        for name in COMPARING
    )


def _masked(value: Any, kind: type) -> bool:
    """True for a masked array, which equals whatever stands where it is masked."""
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    return isinstance(masked, type) and derives(kind, masked) and bool(sys.modules["numpy"].any(value.mask))
