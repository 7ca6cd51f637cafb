"""Records the items of an iterator that a call returned, as the caller takes them: a client's stream, a generator.

The caller gets an object that stands for the iterator: it has its class, its attributes and its methods. The span of the
call ends when the iterator is exhausted, fails or is closed, or when nothing holds it any more.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Protocol

_OTHERS = ("read", "readline", "write", "recv", "fetchone")
"""Methods of files, connections and cursors: iterators whose items are no answer."""
_STEPS = {"send": False, "throw": False, "close": True, "asend": False, "athrow": False, "aclose": True}
"""Methods of generators and streams -> True of those that end one."""
_LATER = ("asend", "athrow", "aclose")


class RecordedCall(Protocol):
    """The call whose result is a stream."""

    def running(self) -> AbstractContextManager[None]:
        """The time in which code of the stream runs."""

    def gave(self, item: Any) -> None:
        """Take an item."""

    def failed(self, error: BaseException) -> None:
        """Take an error; GeneratorExit for a stream that was left before its end."""

    def ended(self) -> None:
        """End the span, once."""


def is_stream(value: Any) -> bool:
    """True for an iterator or an async iterator that is no file, connection or cursor, no stand-in of a test and no
    generator to be awaited, as `types.coroutine` makes them."""
    kind = type(value)
    mock = sys.modules.get("unittest.mock")
    if mock is not None and issubclass(kind, mock.NonCallableMock):
        return False
    if inspect.isgenerator(value) and value.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return False
    steps = (hasattr(kind, "__next__") and hasattr(kind, "__iter__")) or hasattr(kind, "__anext__")
    return steps and not any(hasattr(kind, name) for name in _OTHERS)


def recorded_stream(stream: Any, call: RecordedCall) -> Any:
    """An object that stands for the iterator, and records what it gives."""
    return _stand_in(stream, call, None)


class _Stream:
    """Stands for an iterator."""

    __slots__ = ("__weakref__", "_firsthand_call", "_firsthand_inner", "_firsthand_source")

    def __init__(self, inner: Any, call: RecordedCall, source: _Stream | None):
        object.__setattr__(self, "_firsthand_inner", inner)
        object.__setattr__(self, "_firsthand_call", call)
        object.__setattr__(self, "_firsthand_source", source)  # whose iterator this is: it lives as long

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._firsthand_inner)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._firsthand_inner, name)
        return _recorded_method(self, name, found) if name in _STEPS and callable(found) else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._firsthand_inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._firsthand_inner, name)

    def __dir__(self) -> list[str]:
        return dir(self._firsthand_inner)

    def __repr__(self) -> str:
        return repr(self._firsthand_inner)

    def __str__(self) -> str:
        return str(self._firsthand_inner)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._firsthand_inner.__reduce_ex__(protocol)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be ending
            if self._firsthand_source is None:
                _left(self._firsthand_call)


def _next(self: Any) -> Any:
    return _step(self._firsthand_call, lambda: next(self._firsthand_inner))


async def _anext(self: Any) -> Any:
    return await _later_step(self._firsthand_call, lambda: anext(self._firsthand_inner))


def _iter(self: Any) -> Any:
    return _same_or_recorded(self, iter(self._firsthand_inner))


def _aiter(self: Any) -> Any:
    return _same_or_recorded(self, aiter(self._firsthand_inner))


def _enter(self: Any) -> Any:
    return _same(self, self._firsthand_inner.__enter__())


async def _aenter(self: Any) -> Any:
    return _same(self, await self._firsthand_inner.__aenter__())


def _exit(self: Any, *error: Any) -> Any:
    try:
        return self._firsthand_inner.__exit__(*error)
    finally:
        _left(self._firsthand_call)


async def _aexit(self: Any, *error: Any) -> Any:
    try:
        return await self._firsthand_inner.__aexit__(*error)
    finally:
        _left(self._firsthand_call)


_OWN: dict[str, Callable[..., Any]] = {
    "__next__": _next, "__anext__": _anext, "__iter__": _iter, "__aiter__": _aiter,
    "__enter__": _enter, "__aenter__": _aenter, "__exit__": _exit, "__aexit__": _aexit,
}  # fmt: skip


def _stand_in(inner: Any, call: RecordedCall, source: _Stream | None) -> _Stream:
    kind: Any = type(inner)
    return _standing_for(kind)(inner, call, source)


@lru_cache(maxsize=256)
def _standing_for(kind: Any) -> type[_Stream]:
    """The class for iterators of a class, with each special method that those have."""
    special = [name for name in dir(kind) if name[:2] == name[-2:] == "__" and callable(getattr(kind, name, None))]
    methods: dict[str, Any] = {
        name: _OWN.get(name) or _passed_on(name) for name in special if not hasattr(_Stream, name)
    }
    return type(kind.__name__, (_Stream,), {"__slots__": (), **methods})


def _passed_on(name: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: getattr(self._firsthand_inner, name)(*args, **kwargs)


def _same(self: Any, found: Any) -> Any:
    return self if found is self._firsthand_inner else found


def _same_or_recorded(self: Any, found: Any) -> Any:
    """The iterator itself, or one that a stream makes of itself, which stands for its items as well."""
    if found is self._firsthand_inner:
        return self
    return _stand_in(found, self._firsthand_call, self) if is_stream(found) else found


def _recorded_method(self: Any, name: str, found: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the iterator that takes a step of it, or ends it."""
    step = _later_step if name in _LATER else _step

    def stepped(*args: Any, **kwargs: Any) -> Any:
        return step(self._firsthand_call, lambda: found(*args, **kwargs), is_end=_STEPS[name])

    return stepped


def _step(call: RecordedCall, take: Callable[[], Any], *, is_end: bool = False) -> Any:
    """Return the item of one step; the end or an error of the iterator ends the span."""
    try:
        with call.running():
            item = take()
    except BaseException as error:
        if not isinstance(error, StopIteration):
            call.failed(error)
        call.ended()
        raise
    if hasattr(type(item), "__await__") and is_end:  # the `close` of an async stream
        return _later_step(call, lambda: item, is_end=True)
    _took(call, item, is_end)
    return item


async def _later_step(call: RecordedCall, take: Callable[[], Any], *, is_end: bool = False) -> Any:
    try:
        with call.running():
            item = await take()
    except BaseException as error:
        if not isinstance(error, StopAsyncIteration):
            call.failed(error)
        call.ended()
        raise
    _took(call, item, is_end)
    return item


def _took(call: RecordedCall, item: Any, is_end: bool) -> None:
    if is_end:
        _left(call)
    else:
        call.gave(item)


def _left(call: RecordedCall) -> None:
    """End the span of a stream, which was left unless it has ended before."""
    call.failed(GeneratorExit())
    call.ended()
