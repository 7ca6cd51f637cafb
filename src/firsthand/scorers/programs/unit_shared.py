"""Watches what all code shares besides functions: constants of libraries, caches of `re`, decimal's context.

Joined with `unit_runner.py` into one program for the sandbox. Standard library only.
"""

from __future__ import annotations

import decimal
import re
import types
from typing import Any

CONSTANT = (int, str, float, bytes)
COLLECTED = (tuple, frozenset)
SETTINGS = {
    ("PIL.Image", "MAX_IMAGE_PIXELS"), ("tempfile", "tempdir"), ("time", "timezone"), ("time", "altzone"),
    ("time", "daylight"), ("time", "tzname"),
}  # fmt: skip
"""Plain values of libraries that users are told to set, or that a call of the library sets."""
CACHES = tuple(name for name in ("_cache", "_cache2") if type(vars(re).get(name)) is dict)


def constants(module: types.ModuleType) -> dict[str, Any]:
    """Return the public plain values that a module holds: `string.ascii_lowercase`, `math.pi`."""
    return {
        name: value
        for name, value in list(vars(module).items())
        if not name.startswith("_") and _plain_value(value) and (module.__name__, name) not in SETTINGS
    }


def _plain_value(value: Any) -> bool:
    return type(value) in CONSTANT or (type(value) in COLLECTED and all(map(_plain_value, value)))


def is_same(now: Any, before: Any) -> bool:
    """True if two plain values are of one type and equal."""
    return now is before or (_plain_value(now) and type(now) is type(before) and bool(now == before))


class Shared:
    """Remembers the caches of `re` and the context of `decimal`."""

    def __init__(self) -> None:
        self._caches: list[tuple[str, dict[Any, Any]]] = [(name, vars(re)[name]) for name in CACHES]
        self._compile, self._pattern = re._compiler.compile, re.Pattern  # type: ignore[attr-defined]
        self.hold()

    def hold(self) -> None:
        """Remember decimal's context as it is now."""
        self._context = decimal.getcontext().copy()

    def changes(self) -> list[str]:
        """Return what is wrong in the caches of `re`, which are emptied."""
        for name, cache in self._caches:
            if vars(re).get(name) is not cache or not all(map(self._fits, list(cache), list(cache.values()))):
                return [f"the answer changed re.{name}"]
            cache.clear()
        return []

    def _fits(self, key: Any, found: Any) -> bool:
        """True if an entry is what its key compiles to."""
        if type(found) is not self._pattern or type(key) is not tuple or len(key) < 3:
            return False
        if type(key[0]) is not type or key[0] is not type(key[1]):
            return False
        return bool(found.pattern == key[1] and found == self._compile(key[1], key[2]))

    def put_back(self) -> None:
        """Set decimal's context to what it was; an answer may have asked for more digits."""
        now, context = decimal.getcontext(), self._context.copy()
        context.prec = max(context.prec, now.prec)
        decimal.setcontext(context)
