"""Checks values against the JSON schema of somebody else in bounded time, without regular expressions.

A schema of 1 kB whose thirty definitions each refer to the next one twice takes 2^30 steps, in which no other attempt goes
on. Each keyword that is applied is a step here, and a value that takes more of them ends the check.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

MAX_STEPS = 50_000
"""About half a second."""
MAX_READING_STEPS = 150_000
"""To see that a schema is one: some thirty for each schema within it."""
MAX_RESULT_SCHEMA = 64_000
"""The most characters of a schema that results are checked by."""
_PASSED_OVER = ("pattern", "format", "patternProperties", "unevaluatedProperties", "unevaluatedItems")
"""Keywords that search by regular expressions, which the schema's author could choose to take for ever."""
_spent = threading.local()


class TooManySteps(Exception):
    """A schema took more steps than a check may have."""


class BoundedValidator:
    """A schema of the dialect 2020-12, compiled once."""

    def __init__(self, schema: Any):
        """Raises jsonschema.SchemaError or TooManySteps for what is no schema. References that leave it lead nowhere."""
        from jsonschema import Draft202012Validator, SchemaError
        from referencing import Registry

        if (fault := _fault(json.dumps(schema))) is None:
            raise TooManySteps
        if fault:
            raise SchemaError(fault)
        self._validator = _counting(Draft202012Validator)(schema, registry=Registry())

    def iter_errors(self, value: Any) -> Iterator[Any]:
        """The errors of a value, all of them within one count of steps. TooManySteps beyond it."""
        _spent.steps, _spent.most = 0, MAX_STEPS
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
        """The errors that are found in time."""
        if self._bounded is not None:
            with suppress(TooManySteps):
                yield from self._bounded.iter_errors(value)


@lru_cache(maxsize=256)
def _fault(schema: str) -> str | None:
    """The first fault of a schema, by the schema of schemas; empty if it has none, None if that takes too many steps.

    Each attempt reads the schemas of its servers, and a hostile one takes more than a second.
    """
    from jsonschema import Draft202012Validator

    _spent.steps, _spent.most = 0, MAX_READING_STEPS
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
        _spent.steps += 1
        if name == "uniqueItems" and isinstance(value, list) and not all(isinstance(each, str) for each in value):
            _spent.steps += len(value) ** 2 // 20  # each is compared with each
        if name == "enum" and isinstance(keyword, list):
            _spent.steps += len(keyword) // 10
        if _spent.steps > _spent.most:
            raise TooManySteps
        yield from apply(validator, keyword, value, schema) or ()

    return counted


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
