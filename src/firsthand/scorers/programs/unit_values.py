"""Looks at the values that unittest cases compare: they must be built of known types, with operators that are no answer's.

Joined with `unit_runner.py` into one program for the sandbox. Standard library only.

- types in C of Python's own that compare by what they hold are a closed list, and what they hold is looked at too, at any
  depth; proxies and the like, which leave `==` to another object, are on none;
- an object of a library's class that compares in Python is looked at by its attributes;
- a class of the answer's that derives from a library's class of values, and replaces a method of it, is no value.
"""

from __future__ import annotations

import collections
import dataclasses
import gc
import sys
import types
import unittest.mock
import weakref
from collections import deque
from typing import Any

from firsthand.scorers.programs.unit_libraries import codes_of_file, of_library

OPERATORS = (
    *(f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains", "class", "getattribute")),
    *(f"__{name}__" for name in ("array_ufunc", "array_function", "torch_function", "instancecheck")), "equals",
    *(f"__array_{name}__" for name in ("interface", "struct", "wrap", "prepare")), "__array__", "__dataframe__",
    *(f"__{side}{name}__" for side in ("", "r") for name in
      ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "and", "or", "xor")),
)  # fmt: skip
"""Special methods that decide how objects compare, or which class they claim."""
DESCRIPTORS = (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType,
               types.BuiltinFunctionType, types.GetSetDescriptorType, types.MemberDescriptorType)  # fmt: skip
COMPARING = frozenset(OPERATORS) - {"__class__", "__getattribute__", "__instancecheck__"}
"""Of these, the ones that a class has only if its objects do not compare by identity."""
ITERATING = ("__iter__", "__getitem__", "__len__")
"""Methods by which a library reads what an object holds, where nobody looks at the items."""
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
        "deepcopy", "sizeof", "dir", "del",
    )
)  # fmt: skip
"""Methods that a class of values may replace: none of them says what an object equals or holds."""
TEXTS = (str, bytes, int, float, complex, tuple, frozenset)
ANYTHING = unittest.mock._ANY()
"""Replaces `mock.ANY` in the tests, so that an answer that returns `mock.ANY` is rejected."""


class Judge:
    """Called with a value of the tests, returns it, and notes when operators of its class are the answer's own."""

    def __init__(self, changes: list[str]) -> None:
        self.codes: set[types.CodeType] = set()
        self._changes = changes

    def __call__(self, value: Any) -> Any:
        self._look(value, read=True)
        return value

    def handed(self, value: Any) -> Any:
        """Return a value that nothing compares yet; how it iterates and which methods it replaces is its own matter."""
        self._look(value, read=False)
        return value

    def each(self, value: Any) -> Any:
        """Return what `in` is asked of; where it iterates, each item is looked at."""
        if any("__contains__" in each for each in _spaces(type(value))):
            return self(value)
        return self.every(value)

    def every(self, value: Any) -> Any:
        """Return an iterator that looks at each item."""
        self.handed(value)
        return map(self, value) if any("__iter__" in each for each in _spaces(type(value))) else value

    def called(self, value: Any, name: str) -> Any:
        """Return the object whose method is called; of a value, it may not be the answer's."""
        kind = type(value)
        if kind in PLAIN or kind is types.ModuleType or _is(kind, type) or _is(kind, unittest.mock.NonCallableMock):
            return value
        owners = [each for each in _mro(kind) if name in _space(each)]
        if owners and name in _state_of(value, kind) and not self._known_call(_state_of(value, kind)[name]):
            self._changes.append(f"the answer changed {kind.__name__}.{name} of an object")
        elif self._replaces(kind, (name,)):
            self._changes.append("an object equals, or passes for, what it is not")
        return value

    def _known_call(self, what: Any) -> bool:
        if type(what) is types.MethodType:
            what = what.__func__
        if type(what) is types.FunctionType:
            return what.__code__ in self.codes or what.__code__ in codes_of_file(what.__code__.co_filename)
        return not callable(what) or _is(type(what), unittest.mock.NonCallableMock)

    def _look(self, value: Any, read: bool) -> None:
        pending, seen = [value], dict[int, Any]()
        while pending:
            one = pending.pop()
            kind = type(one)
            if kind in PLAIN or one is ANYTHING or id(one) in seen:
                continue
            if self._own(kind, read) or _says_yes(one, kind) or _masked(one, kind):
                self._changes.append("an object equals, or passes for, what it is not")
                return
            seen[id(one)] = one
            pending += _parts(one, kind)

    def _own(self, kind: type, read: bool) -> bool:
        for each in _mro(kind):
            held = _space(each)
            if _heap(each) and any(name in held and not self._allowed(held[name], name, each) for name in OPERATORS):
                return True
            if _delegates(each, held):
                return True
        if not read:
            return False
        own = (
            each
            for each in _mro(kind)
            if _heap(each) and not any(base in TEXTS or base in OPENED for base in _mro(kind))
        )
        return self._replaces(kind) or any(
            type(_space(each).get(name)) is types.FunctionType and not self._allowed(_space(each)[name], name, each)
            for each in own for name in ITERATING
        )  # fmt: skip

    def _replaces(self, kind: type, names: Any = None) -> bool:
        """True if a class of the answer's replaces methods of a library's class of values from which it derives."""
        line = _mro(kind)
        for at, each in enumerate(line):
            values = [
                base
                for base in line[at + 1 :]
                if _of_values(base) and (base not in OPENED or (names and base in TEXTS))
            ]
            if not _heap(each) or not values or of_library(each):
                continue
            own = [name for name in names or _space(each) if name in _space(each) and name not in OWN]
            if any(
                name in _space(base) and self._foreign(_space(each)[name], name, each)
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
            cells = [cell.cell_contents for cell in what.__closure__ or () if cell.cell_contents is not what]
            inner = [each for each in cells if type(each) is types.FunctionType]
            return self._known(what.__code__, owner) and all(self._known(each.__code__, owner) for each in inner)
        mocked = isinstance(what, unittest.mock.MagicProxy) or _is(kind, unittest.mock.NonCallableMock)
        return what is None or mocked or kind.__name__ == "cython_function_or_method"

    def _known(self, code: types.CodeType, owner: type) -> bool:
        return code in self.codes or code in codes_of_file(code.co_filename) or _of_dataclass(code, owner)


def _heap(kind: type) -> bool:
    """True if a class is none of the interpreter's own static ones, which nobody can change."""
    return bool(type.__dict__["__flags__"].__get__(kind) & 1 << 9)


def _is(kind: type, base: type) -> bool:
    return any(each is base for each in _mro(kind))


def _mro(kind: type) -> tuple[type, ...]:
    return type.__dict__["__mro__"].__get__(kind)  # type: ignore[no-any-return]


def _space(kind: type) -> Any:
    return type.__dict__["__dict__"].__get__(kind)


def _spaces(kind: type) -> list[Any]:
    return [_space(each) for each in _mro(kind)]


def _of_values(kind: type) -> bool:
    """True if objects of a class compare by what they hold."""
    return kind not in (object, type) and not COMPARING.isdisjoint(_space(kind))


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
    return str(held.get("__module__") or type.__dict__["__module__"].__get__(kind)) if _heap(kind) else kind.__module__


def _state_of(value: Any, kind: type) -> dict[str, Any]:
    """Return the attributes of an object, those in slots too, without a call of its class."""
    found: dict[str, Any] = {}
    for held in _spaces(kind):
        for name, each in held.items():
            if type(each) is types.MemberDescriptorType:
                try:
                    found[name] = each.__get__(value)
                except AttributeError:
                    continue
    space = next(
        (held["__dict__"] for held in _spaces(kind) if type(held.get("__dict__")) is types.GetSetDescriptorType), None
    )
    own = space.__get__(value) if space is not None else None
    return found | own if type(own) is dict else found


def _parts(value: Any, kind: type) -> list[Any]:
    """Return what an object compares by: what a container holds, the attributes of an object that compares in Python."""
    held: list[Any] = []
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    array: Any = getattr(numpy, "ndarray", None)
    frames = [getattr(pandas, name, None) for name in ("DataFrame", "Series")]
    if _is(kind, dict):
        held = [*dict.keys(value), *dict.values(value)]
    elif base := next((each for each in HOLDERS if _is(kind, each)), None):
        held = list(base.__iter__(value))
    elif kind is types.MappingProxyType:
        held = gc.get_referents(value)
    elif kind is types.MethodType:
        held = [value.__func__]
    elif _is(kind, weakref.ReferenceType):
        held = [weakref.ReferenceType.__call__(value)]
    elif kind is slice:
        held = [value.start, value.stop, value.step]
    elif kind in (types.GenericAlias, types.UnionType):
        held = [*value.__args__, getattr(value, "__origin__", None)]
    elif array is not None and _is(kind, array):
        held = array.ravel(value).tolist() if value.dtype.hasobject else []
    elif any(isinstance(each, type) and _is(kind, each) for each in frames):
        manager = _state_of(value, kind).get("_mgr")
        held = [*getattr(manager, "arrays", ()), *getattr(manager, "axes", ())]
    elif f"{kind.__module__}.{kind.__name__}" == "sqlite3.Row":
        held = list(value)
    if _compares_in_python(kind) or _is(kind, types.SimpleNamespace):
        held += _state_of(value, kind).values()
    return [each for each in held if type(each) not in PLAIN]


def _compares_in_python(kind: type) -> bool:
    if _is(kind, unittest.mock.NonCallableMock):
        return False
    return any(
        _heap(each) and type(_space(each).get(name)) is types.FunctionType for each in _mro(kind) for name in COMPARING
    )


def _masked(value: Any, kind: type) -> bool:
    """True for a masked array, which equals whatever stands where it is masked."""
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    return isinstance(masked, type) and _is(kind, masked) and bool(sys.modules["numpy"].any(value.mask))


def _says_yes(value: Any, kind: type) -> bool:
    """True if an object of a class with an `==` in Python says that it equals a new object."""
    for each in type.__dict__["__mro__"].__get__(kind):
        equal = type.__dict__["__dict__"].__get__(each).get("__eq__")
        if equal is not None:
            try:
                return type(equal) is types.FunctionType and equal(value, object()) is True
            except Exception:
                return False
    return False


def _of_dataclass(code: types.CodeType, owner: type) -> bool:
    """True if this is what `dataclasses` writes for a class with these fields."""
    fields = type.__dict__["__dict__"].__get__(owner).get("__dataclass_fields__")
    if type(fields) is not dict:
        return False
    names = [name for name, each in fields.items() if getattr(each, "compare", False)]
    fresh = vars(dataclasses.make_dataclass("Fresh", names, order=True)).get(code.co_name)
    return isinstance(fresh, types.FunctionType) and fresh.__code__ == code
