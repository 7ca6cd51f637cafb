"""Typed access to the untrusted key-value pairs of a model file; a wrong value raises a ModelFileError that names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firsthand.errors import ModelFileError

MAX_LAYERS = 1024
MAX_NUMBERS = 4096
_MISSING: Any = object()


@dataclass(frozen=True)
class Fields:
    """A config.json or GGUF metadata, with validating getters."""

    values: Mapping[str, Any]
    where: str
    """Names the source in errors."""
    prefix: str = ""
    """Put before every key (GGUF: `llama.`)."""

    def integer(self, key: str, default: Any = _MISSING) -> int:
        """A whole number from 0 to 2**31; null counts as absent."""
        value = self._get(key, default)
        if type(value) is not int or not 0 <= value < 2**31:
            raise self.error(key, value, "a whole number from 0 to 2**31")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A finite number; null counts as absent."""
        value = self._get(key, default)
        if not _is_finite(value):
            raise self.error(key, value, "a finite number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false; null counts as absent."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def text(self, key: str, default: Any = _MISSING) -> str:
        """A string; null counts as absent."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(key, value, "a string")
        return value

    def choice(self, key: str, choices: Mapping[str, Any], default: Any = _MISSING) -> Any:
        """Returns the value that `choices` maps the string to."""
        value = self.text(key, default)
        if value not in choices:
            raise self.error(key, value, f"one of {', '.join(choices)}")
        return choices[value]

    def section(self, key: str) -> Fields:
        """A nested object; empty when absent or null."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, "an object")
        return Fields(value, f"{self.where}: {self.prefix}{key}")

    def strings(self, key: str) -> list[str] | None:
        """A list of at most MAX_LAYERS strings; None when absent or null."""
        value = self._get(key, None)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > MAX_LAYERS or not all(isinstance(v, str) for v in value):
            raise self.error(key, value, f"a list of at most {MAX_LAYERS} strings")
        return value

    def numbers(self, key: str) -> list[float] | None:
        """A list of at most MAX_NUMBERS finite numbers; None when absent or null."""
        value = self._get(key, None)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > MAX_NUMBERS or not all(map(_is_finite, value)):
            raise self.error(key, value, f"a list of at most {MAX_NUMBERS} finite numbers")
        return [float(each) for each in value]

    def num_layers(self, key: str) -> int:
        """A number of layers, bounded since tuples of that length are built from it."""
        value = self.integer(key)
        if not 1 <= value <= MAX_LAYERS:
            raise self.error(key, value, f"1 to {MAX_LAYERS} layers")
        return value

    def has(self, key: str) -> bool:
        """True if the key is there and not null."""
        return self.values.get(self.prefix + key) is not None

    def error(self, key: str, value: Any, expected: str) -> ModelFileError:
        """Returns the error for the value found at a key."""
        if value is None:
            return ModelFileError(f"{self.where} has no {self.prefix}{key}: expected {expected}")
        return ModelFileError(f"{self.where}: {self.prefix}{key} is {str(value)[:80]!r}: expected {expected}")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(self.prefix + key)
        if value is None:
            return None if default is _MISSING else default
        return value


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)
