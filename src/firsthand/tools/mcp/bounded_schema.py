"""Checks values against the JSON schema of somebody else in bounded time, without regular expressions.

A schema of 1 kB whose thirty definitions each refer to the next one twice takes 2^30 steps, in which no other attempt goes
on. Each keyword that is applied is a step here, with more for the elements, names and errors that it goes through, and a
value that takes too many of them ends the check. Processor time ends it where a keyword costs more than its steps say.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

MAX_STEPS = 50_000
"""About half a second."""
MAX_CPU_S = 3.0
"""Processor time of one check, some six times what its steps take."""
MAX_READING_STEPS = 150_000
"""To see that a schema is one: some thirty for each schema within it."""
MAX_RESULT_SCHEMA = 64_000
"""The most characters of a schema that results are checked by."""
MAX_FAULT = 1_000
"""The most characters of an error: jsonschema's own hold the whole value."""
_PASSED_OVER = ("pattern", "format", "patternProperties", "unevaluatedProperties", "unevaluatedItems")
"""Keywords that search by regular expressions, which the schema's author could choose to take for ever."""
_EACH = frozenset({"items", "prefixItems", "contains", "propertyNames", "additionalProperties", "uniqueItems"})
"""Keywords that go through a value's elements or names, whatever their own schema says of each."""
_spent = threading.local()


class TooManySteps(Exception):
    """A schema took more steps than a check may have."""


class BoundedValidator:
    """A schema of the dialect 2020-12, compiled once."""

    def __init__(self, schema: Any):
        """Raises jsonschema.SchemaError or TooManySteps for what is no schema. References that leave it lead nowhere."""
        from jsonschema import Draft202012Validator, SchemaError
        from referencing import Registry

        text = json.dumps(schema)
        if (fault := _fault(text)) is None:
            raise TooManySteps
        if fault:
            raise SchemaError(fault)
        self._crawl_steps, self._has_ids = len(text) // 150, '"$id"' in text
        self._validator = _counting(Draft202012Validator)(schema, registry=Registry())

    def iter_errors(self, value: Any) -> Iterator[Any]:
        """The errors of a value, all of them within one count of steps. TooManySteps beyond it."""
        _begin(MAX_STEPS, MAX_CPU_S, self._crawl_steps, has_ids=self._has_ids)
        yield from self._validator.iter_errors(value)


class ResultValidator:
    """Checks results of a tool, on whose form nothing depends: a schema that takes too long is left."""

    def __init__(self, schema: Any):
        """Raises jsonschema.SchemaError for what is no schema."""
        self._bounded = None
        with suppress(TooManySteps, RecursionError):
            if len(json.dumps(schema)) <= MAX_RESULT_SCHEMA:
                self._bounded = BoundedValidator(schema)

    def iter_errors(self, value: Any) -> Iterator[Any]:
        """The most telling of the errors that are found in time, as one sentence.

        The SDK writes an error out with all of its value and schema: 36 MB of text, and 20 s, for a result of 0.6 MB.
        """
        from jsonschema import ValidationError
        from jsonschema.exceptions import best_match

        if (error := best_match(self._found(value))) is not None:
            place = ".".join(map(str, error.absolute_path))[:200] or "the result"
            yield ValidationError(f"{place}: {error.message[:300]}")

    def _found(self, value: Any) -> Iterator[Any]:
        if self._bounded is not None:
            with suppress(TooManySteps):
                yield from self._bounded.iter_errors(value)


@lru_cache(maxsize=256)
def _fault(schema: str) -> str | None:
    """The first fault of a schema, by the schema of schemas; empty if it has none, None if that takes too many steps.

    Each attempt reads the schemas of its servers, and a hostile one takes more than a second.
    """
    from jsonschema import Draft202012Validator

    _begin(MAX_READING_STEPS, float("inf"), 0, has_ids=False)
    validator = _counting(Draft202012Validator, ())(Draft202012Validator.META_SCHEMA)
    try:
        return next((error.message for error in validator.iter_errors(json.loads(schema))), "")
    except TooManySteps:
        return None


@cache
def _counting(dialect: Any, passed_over: tuple[str, ...] = _PASSED_OVER) -> Any:
    from jsonschema.validators import extend

    keywords = {name: _counted(name, apply) for name, apply in dialect.VALIDATORS.items() if name not in passed_over}
    keywords["additionalProperties"] = _counted("additionalProperties", _additional)
    made: Any = extend(dialect, keywords | dict.fromkeys(passed_over, _passed_over))
    of_any_dialect = made.evolve

    def evolve(self: Any, **changes: Any) -> Any:
        """This validator for another schema: that of a dialect which the schema names would count no steps."""
        schema = changes.get("schema", self.schema)
        if isinstance(schema, dict) and "$schema" in schema:
            changes["schema"] = {key: value for key, value in schema.items() if key != "$schema"}
        return of_any_dialect(self, **changes)

    made.evolve = evolve
    return made


def _counted(name: str, apply: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def counted(validator: Any, keyword: Any, value: Any, schema: Any) -> Iterator[Any]:
        _spend(1 + _walked(name, keyword, value))
        for error in apply(validator, keyword, value, schema) or ():
            _spend(1 + len(error.message) // 1_000)  # written out by now, so that the time is gone
            error.message = error.message[:MAX_FAULT]
            yield error

    return counted


def _begin(most: int, cpu_s: float, crawl_steps: int, *, has_ids: bool) -> None:
    """Begin to count the steps of a check in this thread."""
    _spent.steps, _spent.most, _spent.until_s = 0, most, time.thread_time() + cpu_s
    _spent.crawl_steps, _spent.has_ids = crawl_steps, has_ids


def _spend(steps: int) -> None:
    _spent.steps += steps
    if _spent.steps > _spent.most or time.thread_time() > _spent.until_s:
        raise TooManySteps


def _walked(name: str, keyword: Any, value: Any) -> int:
    """The steps of a keyword for what it goes through itself, in its own list or table and in the value."""
    steps = 0
    if name in ("enum", "const"):
        steps += _leaves(keyword) // 10
    elif isinstance(keyword, list | dict):
        steps += len(keyword) // 10
    if name in _EACH and isinstance(value, list | dict):
        steps += len(value) // 4
    if name == "uniqueItems" and isinstance(value, list) and not all(isinstance(each, str) for each in value):
        steps += len(value) * _leaves(value) // 20  # each is compared with each
    if name in ("$ref", "$dynamicRef") and isinstance(keyword, str):
        by_pointer = keyword.startswith("#/") and not _spent.has_ids
        steps += len(keyword) // 20 if by_pointer else _spent.crawl_steps  # anchors are looked for in all of the schema
    return steps


def _leaves(value: Any) -> int:
    """The number of values within a value, lists and tables not counted but for empty ones."""
    if isinstance(value, dict):
        value = list(value.values())
    return (sum(map(_leaves, value)) or 1) if isinstance(value, list) else 1


def _additional(validator: Any, additional: Any, value: Any, schema: Any) -> Iterator[Any]:
    """jsonschema's own searches for `patternProperties`; here all properties are additional that have no schema by name."""
    from jsonschema import ValidationError

    if not isinstance(value, dict) or "patternProperties" in schema:
        return
    extra = [name for name in value if name not in schema.get("properties", {})]
    if isinstance(additional, dict):
        for name in extra:
            yield from validator.descend(value[name], additional, path=name)
    elif additional is False and extra:
        yield ValidationError(f"Additional properties are not allowed ({', '.join(map(repr, extra))[:200]})")


def _passed_over(validator: Any, keyword: Any, value: Any, schema: Any) -> Iterator[Any]:
    return iter(())
