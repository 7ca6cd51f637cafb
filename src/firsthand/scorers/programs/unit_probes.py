"""Asks an operator of the answer's own about fresh values that nothing equals, and undoes what asking has changed.

Joined with `unit_runner.py` into one program for the sandbox. Standard library only.

- an operator is refused if it says yes to every fresh value of a kind: numbers, texts, lists, objects with fresh attributes;
  one that raises, or says no to one of them, is an ordinary operator;
- an order is refused if an object is before itself, or if it says yes to every number and nothing contradicts it;
- a sum or difference is refused if it is the same plain value for every number, and the difference of nothing is 0.
"""

from __future__ import annotations

import collections
import io
import random
import secrets
import sys
import types
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from firsthand.scorers.programs.unit_operators import derives, line_of, space_of, state_of

ASKED = 24
LOOKED_AT = 1000
ORDER = {"__lt__": "__gt__", "__le__": "__gt__", "__gt__": "__lt__", "__ge__": "__lt__"}
SUMS = frozenset({"__add__", "__radd__", "__sub__", "__rsub__"})
EQUALS = frozenset({"__eq__", "equals"})
CHOSEN = random.Random(secrets.token_bytes(32))


class Stranger:
    """Has every attribute, and none that equals anything."""

    def __init__(self, truth: bool = True) -> None:
        self.__dict__[f"a{CHOSEN.getrandbits(64)}"] = truth
        self.__dict__["_truth"] = truth
        self.__dict__["_read"] = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__dict__["_read"] = True
        return object()

    def __bool__(self) -> bool:
        return bool(self.__dict__["_truth"])


def strangers() -> list[Any]:
    return [object(), Stranger(), Stranger(truth=False)]


def numbers() -> list[Any]:
    return [0, *(CHOSEN.choice((-1, 1)) * CHOSEN.getrandbits(CHOSEN.choice((8, 30, 60))) for _ in range(ASKED))]


def groups() -> Iterator[list[Any]]:
    """Yield fresh values, kind by kind; an honest object equals at most some of each."""
    yield strangers()
    yield numbers()
    yield [CHOSEN.uniform(-1e9, 1e9) for _ in range(ASKED)]
    texts = ["", *(f"{CHOSEN.getrandbits(64):x}"[: at % 16 + 1] + "~" * (at % 5) for at in range(ASKED))]
    yield texts
    yield [each.encode() for each in texts]
    rows = [[CHOSEN.getrandbits(60) for _ in range(at % 7)] for at in range(ASKED)]
    yield rows
    yield [tuple(each) for each in rows]
    yield [set(each) for each in rows]
    yield [{key: CHOSEN.getrandbits(60) for key in each} for each in rows]
    counters = [collections.Counter(f"{CHOSEN.getrandbits(60)}" for _ in range(3)) for _ in range(ASKED)]
    for each in counters:
        each.own = CHOSEN.getrandbits(60)  # type: ignore[attr-defined]
    yield counters


def lies(value: Any, kind: type, name: str) -> bool:
    """True if an operator of the class of an object says what is true of nothing."""
    with Undone(value, kind):
        if name in ("__class__", "__getattribute__"):
            try:
                return object.__getattribute__(value, "__class__") is not kind or value.__class__ is not kind
            except Exception:
                return False
        if name in EQUALS:
            if _compares_attributes(value, kind, name):
                return False
            return any(all(_says(value, kind, name, each) for each in group) for group in groups())
        if name == "__ne__":
            denied = any(all(_says(value, kind, name, each, False) for each in group) for group in groups())
            return denied or (_says(value, kind, name, value) and _says(value, kind, "__eq__", value))
        if name in ORDER:
            return _orders_all(value, kind, name)
        if name in ("__contains__", "__instancecheck__"):
            return not _holds_iterator(value, kind) and all(_says(value, kind, name, each) for each in strangers())
        return name in SUMS and not _holds_iterator(value, kind) and _same_for_all(value, kind, name)


def says_yes_to_texts(value: Any, kind: type, name: str) -> bool:
    """True if a method says True to every text, as a false `startswith` does."""
    with Undone(value, kind):
        texts = [f"{CHOSEN.getrandbits(64):x}" for _ in range(ASKED)]
        try:
            return all(_asked(value, kind, name, each) is True for each in texts)
        except Exception:
            return False


def equals_strangers(value: Any, kind: type) -> bool:
    """True if an object says that it equals what nothing equals; for an `==` of a library this is all that is asked."""
    with Undone(value, kind):
        try:
            return all(_asked(value, kind, "__eq__", each) is True for each in strangers())
        except Exception:
            return False


def items_of(value: Any, kind: type) -> list[Any]:
    """Return what an object of the answer's own gives when it is iterated, where nothing is used up by it."""
    if _holds_iterator(value, kind):
        return []
    with Undone(value, kind):
        try:
            one, two = iter(value), iter(value)
            return [] if one is value or one is two else list(islice(one, LOOKED_AT))
        except Exception:
            return []


def lists_others(value: Any, kind: type) -> bool:
    """True if a mapping lists other keys with its values than without."""
    if not derives(kind, collections.abc.Mapping) or _holds_iterator(value, kind):
        return False
    with Undone(value, kind):
        try:
            pairs: Any = _asked(value, kind, "items")
            return [key for key, _ in islice(pairs, LOOKED_AT)] != list(islice(iter(value), LOOKED_AT))
        except Exception:
            return False


def _asked(value: Any, kind: type, name: str, *given: Any) -> Any:
    found = next((space_of(each)[name] for each in line_of(kind) if name in space_of(each)), None)
    bind = getattr(type(found), "__get__", None)
    bound: Any = bind(found, value, kind) if bind else found
    return bound(*given)


def _says(value: Any, kind: type, name: str, other: Any, word: bool = True) -> bool:
    try:
        said = _asked(value, kind, name, other)
        return said is not NotImplemented and bool(said) is word
    except Exception:
        return False


def _compares_attributes(value: Any, kind: type, name: str) -> bool:
    """True if `==` reads an attribute that no plain value has, and says no: `getattr(other, "name", None) == self.name`."""
    stranger = Stranger()
    return not _says(value, kind, name, stranger) and bool(stranger.__dict__["_read"])


def _orders_all(value: Any, kind: type, name: str) -> bool:
    if name in ("__lt__", "__gt__") and _says(value, kind, name, value):
        return True
    if not all(_says(value, kind, name, each) for each in numbers()):
        return False
    return not all(_says(value, kind, ORDER[name], each, False) for each in numbers())


def _same_for_all(value: Any, kind: type, name: str) -> bool:
    try:
        found = [_asked(value, kind, name, each) for each in numbers()]
    except Exception:
        return False
    return all(type(each) in (int, float, complex, bool, str) and each == found[0] for each in found)


def _holds_iterator(value: Any, kind: type) -> bool:
    return "__next__" in dir(kind) or any(hasattr(type(each), "__next__") for each in state_of(value, kind).values())


class Undone:
    """Puts back the plain values, lists, dicts and sets of an object, its class and its module, and hears no output."""

    def __init__(self, value: Any, kind: type) -> None:
        self._spaces: list[tuple[Any, Callable[[str, Any], None]]] = []
        state = state_of(value, kind)
        self._hold(state, lambda name, each: object.__setattr__(value, name, each))
        for owner in line_of(kind):
            held = space_of(owner)
            if type.__dict__["__flags__"].__get__(owner) & 1 << 9:
                self._hold(held, lambda name, each, owner=owner: type.__setattr__(owner, name, each))  # type: ignore[misc]
                for function in held.values():
                    if type(function) is types.FunctionType and function.__globals__.get("__name__") == "__test__":
                        self._hold(function.__globals__, function.__globals__.__setitem__)
                        break

    def _hold(self, space: Any, put: Callable[[str, Any], None]) -> None:
        kept = {
            name: (each, each.copy() if type(each) in (list, dict, set) else None)
            for name, each in list(space.items())
            if type(each) in (int, float, str, bool, tuple, list, dict, set, types.NoneType)
            and not (name.startswith("__") and name.endswith("__"))
        }
        self._spaces.append((kept, put))

    def __enter__(self) -> Undone:
        self._output = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._output
        for kept, put in self._spaces:
            for name, (each, copied) in kept.items():
                try:
                    put(name, each)
                except (AttributeError, TypeError):
                    continue
                if type(each) is list:
                    each[:] = copied
                elif copied is not None:
                    each.clear()
                    each.update(copied)
